package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"licensed/internal/harness"
	"licensed/internal/historyjson"
	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
)

// TestHelp: every verb says what it does and gives an example of itself, and every flag is explained.
func TestHelp(t *testing.T) {
	p := &program{stdout: &bytes.Buffer{}, stderr: &bytes.Buffer{}, width: func() int { return 0 }}
	var walk func(c *cobra.Command)
	verbs := 0
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			if sub.Name() == "help" || sub.Name() == "completion" {
				continue
			}
			verbs++
			if sub.Short == "" ||
				!strings.Contains(sub.Example, "licensectl "+strings.TrimPrefix(sub.CommandPath(), "licensectl ")) &&
					!strings.Contains(sub.Example, " "+sub.Name()) {
				t.Errorf("%s: short %q, example %q", sub.CommandPath(), sub.Short, sub.Example)
			}
			walk(sub)
		}
	}
	walk(p.rootCommand())
	if verbs < 22 {
		t.Errorf("%d verbs", verbs)
	}
	for _, line := range []string{"help", "acquire --help", "completion bash", "completion zsh", "completion fish",
		"completion powershell", "version", ""} {
		out := &bytes.Buffer{}
		p := &program{stdout: out, stderr: out, getenv: func(string) string { return "" }, now: time.Now,
			width: func() int { return 0 }}
		if code := p.run(t.Context(), strings.Fields(line)); code != 0 || out.Len() == 0 {
			t.Errorf("%q: exit %d, %d bytes", line, code, out.Len())
		}
	}
}

// TestExitCodesAreDocumented: the page has what the help says, word by word, and every verb.
func TestExitCodesAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/guide/licensectl.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(exitCodes) {
		if text := strings.TrimSpace(line); !strings.Contains(string(page), text) {
			t.Errorf("docs/guide/licensectl.md does not say %q", text)
		}
	}
	p := &program{stdout: &bytes.Buffer{}, stderr: &bytes.Buffer{}, width: func() int { return 0 }}
	for _, c := range p.rootCommand().Commands() {
		if !strings.Contains(string(page), "`"+c.Name()) && !strings.Contains(string(page), "licensectl "+c.Name()) {
			t.Errorf("docs/guide/licensectl.md does not have %s", c.Name())
		}
	}
}

func TestMoments(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	p := &program{now: func() time.Time { return now }}
	for text, want := range map[string]moment{
		"now": {}, "": {}, "7": {sequence: 7},
		"2026-01-02":                {time: time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)},
		"2026-01-02 03:04":          {time: time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC)},
		"2026-01-02T03:04:05":       {time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)},
		"2026-01-02T03:04:05+02:00": {time: time.Date(2026, 1, 2, 1, 4, 5, 0, time.UTC)},
		"2026-01-02T03:04:05.678Z":  {time: time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)},
		"-90m":                      {time: now.Add(-90 * time.Minute)},
		"-7d":                       {time: now.AddDate(0, 0, -7)},
	} {
		if got, err := p.parseMoment("it", text); err != nil || !got.time.Equal(want.time) ||
			got.sequence != want.sequence {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"0", "tomorrow", "-", "-d", "2026-13-01", "1.5"} {
		if m, err := p.parseMoment("it", text); err == nil {
			t.Errorf("%q is %+v", text, m)
		}
	}
}

// environment names a server, and nothing else.
func environment(server string) func(string) string {
	return func(name string) string { return map[string]string{"LICENSED_SERVER": server}[name] }
}

// TestFollow sees events as they come, also those that come while the node restarts.
func TestFollow(t *testing.T) {
	s := newSession(t)
	s.config.Listen = freeAddress(t, s)
	s.run("licensectl acquire Bayley iphone GlowS01E01 --command-id c1")
	out := new(harness.Log)
	ctx, cancel := context.WithCancel(t.Context())
	code := make(chan int)
	p := &program{
		stdout: out,
		stderr: &harness.Log{},
		now:    s.now,
		width:  func() int { return 0 },
		newID:  func() string { return "x" },
		getenv: environment(s.config.Listen),
	}
	go func() { code <- p.run(ctx, []string{"events", "Bayley", "--follow", "--json=talk", "--from", "3"}) }()
	seen := func(sequences ...int) func() bool {
		return func() bool {
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")
			for i, n := range sequences {
				var e historyjson.Event
				if i >= len(lines) || json.Unmarshal([]byte(lines[i]), &e) != nil || e.Sequence != uint64(n) {
					return false
				}
			}
			return true
		}
	}
	harness.Until(seen(3, 4))
	s.run("licensectl renew Bayley iphone GlowS01E01")
	harness.Until(seen(3, 4, 5))
	s.stop()
	s.start()
	s.run("licensectl release Bayley iphone GlowS01E01")
	harness.Until(seen(3, 4, 5, 6))
	cancel()
	if c := <-code; c != exitOK {
		t.Errorf("exit %d", c)
	}
}

// aHistory is a service whose streams of Follow end as a test wants them to, one after the other.
type aHistory struct {
	licensedv1connect.UnimplementedHistoryServiceHandler
	ends []func(context.Context) error

	mu    sync.Mutex
	after []uint64 // where streams were taken up
}

func (h *aHistory) ListEvents(
	_ context.Context, _ *connect.Request[licensedv1.ListEventsRequest],
	stream *connect.ServerStream[licensedv1.ListEventsResponse],
) error {
	return stream.Send(&licensedv1.ListEventsResponse{End: &licensedv1.HistoryEnd{HeadSequence: 10}})
}

func (h *aHistory) Follow(
	ctx context.Context, r *connect.Request[licensedv1.FollowRequest],
	stream *connect.ServerStream[licensedv1.FollowResponse],
) error {
	h.mu.Lock()
	end := h.ends[len(h.after)]
	h.after = append(h.after, r.Msg.GetAfterSequence())
	h.mu.Unlock()
	return errors.Join(stream.Send(&licensedv1.FollowResponse{Sequence: r.Msg.GetAfterSequence() + 1}), end(ctx))
}

// TestFollowBreaksOff: what breaks a stream is survived, what the gateway tells of is the end.
func TestFollowBreaksOff(t *testing.T) {
	type connectionKey struct{}
	cut := func(linger int) func(context.Context) error {
		return func(ctx context.Context) error {
			c := ctx.Value(connectionKey{}).(*net.TCPConn)
			if err := errors.Join(c.SetLinger(linger), c.Close()); err != nil {
				t.Error(err)
			}
			return nil
		}
	}
	h := &aHistory{ends: []func(context.Context) error{
		func(context.Context) error { return nil },
		cut(-1), // as by kill -9: the end of the connection, but not of the stream
		cut(0),  // as by a host that has forgotten it
		func(context.Context) error { panic(http.ErrAbortHandler) }, // RST_STREAM with INTERNAL_ERROR
		func(context.Context) error { return connect.NewError(connect.CodeUnavailable, errors.New("drained")) },
		func(context.Context) error {
			defect := connect.NewError(connect.CodeInternal, errors.New("a defect"))
			d, err := connect.NewErrorDetail(&errdetails.ErrorInfo{Reason: "BUG", Domain: "licensed"})
			if err != nil {
				return err
			}
			defect.AddDetail(d)
			return defect
		},
	}}
	_, handler := licensedv1connect.NewHistoryServiceHandler(h)
	server := httptest.NewUnstartedServer(handler)
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, connectionKey{}, c)
	}
	server.Start()
	defer server.Close()
	var out bytes.Buffer
	p := &program{
		stdout: &out, stderr: &out, now: time.Now, width: func() int { return 0 },
		getenv: environment(server.Listener.Addr().String()),
	}
	if code := p.run(t.Context(), []string{"events", "Bayley", "--follow"}); code != exitFailed ||
		!strings.Contains(out.String(), "a defect") {
		t.Errorf("exit %d, %s", code, out.String())
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	// What was in flight when a connection was cut may be lost.
	if len(h.after) != len(h.ends) || h.after[0] != 10 || h.after[1] != 11 || !slices.IsSorted(h.after) {
		t.Errorf("taken up after %v", h.after)
	}
}

// freeAddress gives the session's node an address that it keeps.
func freeAddress(t *testing.T, s *session) string {
	t.Helper()
	address := s.node.API().String()
	s.stop()
	s.config.Listen = address
	s.start()
	return address
}

// interrupted returns ids of commands for bench, which it interrupts once this many commands came after the warm-up.
func interrupted(commands int, warmup time.Duration, interrupt func()) func() string {
	var mu sync.Mutex
	var ids int
	var measure time.Time
	return func() string {
		mu.Lock()
		defer mu.Unlock()
		now := time.Now()
		if ids++; ids == 2 { // The first is sent before the warm-up begins.
			measure = now.Add(warmup)
		}
		if ids > 1 && !now.Before(measure) {
			if commands--; commands == 0 {
				interrupt()
			}
		}
		return uuid.NewString()
	}
}

// TestBench runs each loop for some commands; its figures are not judged, but that they are complete is.
func TestBench(t *testing.T) {
	s := newSession(t)
	s.stop()
	s.config.Now = nil // Its customers are limited by the node's clock.
	s.start()
	bench := func(warmup time.Duration, flags string) string {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var out bytes.Buffer
		p := &program{
			stdout: &out,
			stderr: new(bytes.Buffer),
			now:    time.Now,
			width:  func() int { return 0 },
			newID:  interrupted(200, warmup, cancel),
			getenv: environment(s.node.API().String()),
		}
		line := fmt.Sprintf("bench --duration 1h --timeout 1m --warmup %v %s", warmup, flags)
		if code := p.run(ctx, strings.Fields(line)); code != exitNotNow {
			t.Errorf("%s: exit %d, want that of an interruption", line, code)
		}
		return out.String()
	}
	for _, flags := range []string{"", "--rate 1000"} {
		out := bench(50*time.Millisecond, "--concurrency 4 --customers 100 -o json "+flags)
		var r struct {
			Loop      string
			PerSecond float64
			Accepted  uint64
			Failed    map[string]uint64
			Latency   []benchRow
		}
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Fatalf("%s: %v", out, err)
		}
		last := r.Latency[len(r.Latency)-1]
		if (r.Loop == "open") != (flags != "") || r.Accepted == 0 ||
			len(r.Failed) > 0 || last.Verb != "all" || last.P50 <= 0 || last.P50 > last.P99 || last.P99 > last.Max {
			t.Errorf("%s", out)
		}
	}
	out := bench(0, "--concurrency 2 --customers 20 --mix renew=1")
	if !strings.Contains(out, "closed loop, 2 clients") || !strings.Contains(out, "P99.9") ||
		!strings.Contains(out, "renew") {
		t.Errorf("%s", out)
	}
}

// TestExportResume cuts an export anywhere and completes it: the result is the same as without the cut.
func TestExportResume(t *testing.T) {
	s := newSession(t)
	for _, c := range []string{"Ann", "Bayley", "Chris", "Zoë"} {
		s.run("licensectl acquire " + c + " iphone GlowS01E01")
		s.run("licensectl renew " + c + " iphone GlowS01E01")
	}
	if out := s.run(
		"licensectl export --out $DIR/whole.jsonl",
	); !strings.Contains(out, "exported 4 customers, 20 events") {
		t.Fatal(out)
	}
	whole, err := os.ReadFile(s.dir + "/whole.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	first := bytes.IndexByte(whole, '\n') + 1
	for at := first; at < len(whole); at += 97 {
		s.write("cut.jsonl", string(whole[:at]))
		if out := s.run(
			"licensectl export --out $DIR/cut.jsonl --resume",
		); !strings.Contains(out, "exported 4 customers, 20 events") {
			t.Fatalf("cut at %d: %s", at, out)
		}
		completed, err := os.ReadFile(s.dir + "/cut.jsonl")
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(completed, whole) {
			t.Fatalf("cut at %d: not the same", at)
		}
	}
}

// TestMoves: what was exported from one cluster and imported by another is exported alike.
func TestMoves(t *testing.T) {
	from, to := newSession(t), newSession(t)
	for i := range 30 {
		from.run(fmt.Sprintf("licensectl acquire Bayley device%d title%d", i%2, i%5))
		from.run(fmt.Sprintf("licensectl release Bayley device%d title%d", i%2, i%5))
		from.clock.Add(time.Hour.Milliseconds())
	}
	from.run("licensectl archive Bayley --all")
	to.clock.Store(from.clock.Load())
	from.run("licensectl export --out $DIR/a.jsonl")
	a, err := os.ReadFile(from.dir + "/a.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	to.write("a.jsonl", string(a))
	// In two halves: the first ends in the middle of a history.
	to.write("half.jsonl", string(a[:bytes.LastIndexByte(a[:len(a)/2], '\n')+1]))
	if out := to.run("licensectl import $DIR/half.jsonl"); !strings.Contains(out, "exit 6") {
		t.Fatal(out)
	}
	if out := to.run("licensectl import $DIR/a.jsonl"); strings.Contains(out, "exit") {
		t.Fatal(out)
	}
	to.run("licensectl export --out $DIR/b.jsonl")
	b, err := os.ReadFile(to.dir + "/b.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	if recordsIn(t, a) != recordsIn(t, b) || recordsIn(t, a) == "" {
		t.Error("the records differ")
	}
	for _, line := range []string{"licensectl verify", "licensectl acquire Bayley phone other"} {
		if out := to.run(line); strings.Contains(out, "exit") {
			t.Error(out)
		}
	}
	if x, y := from.run("licensectl state Bayley --at 40 -o json"),
		to.run("licensectl state Bayley --at 40 -o json"); stateIn(t, x) != stateIn(t, y) {
		t.Errorf("%s\nand\n%s", x, y)
	}
}

func recordsIn(t *testing.T, export []byte) string {
	t.Helper()
	var out strings.Builder
	for line := range bytes.Lines(export) {
		var l importLine
		if err := json.Unmarshal(line, &l); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "%s %d %x\n", l.CustomerID, l.Sequence, l.Record)
	}
	return out.String()
}

func stateIn(t *testing.T, answer string) string {
	t.Helper()
	var a struct{ State json.RawMessage }
	if err := json.Unmarshal([]byte(answer), &a); err != nil {
		t.Fatal(err)
	}
	return string(a.State)
}

// TestNode has all lines.
func TestNode(t *testing.T) {
	s := newSession(t)
	s.run("licensectl acquire Bayley iphone GlowS01E01")
	out := s.normal(s.run("licensectl node"))
	for _, want := range []string{", ready", "incarnation  UUID", "1 in memory", "512 of 512 held, epochs 1 to 1",
		"policy       first", "pebble in $DATA", "archive lag"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	s.stop()
	s.config.Archive = "off"
	s.start()
	if out := s.run("licensectl node"); !strings.Contains(out, "archive      none") {
		t.Error(out)
	}
	if out := s.run("licensectl archive Bayley"); !strings.Contains(out, "no archive") ||
		!strings.Contains(out, "exit 1") {
		t.Error(out)
	}
}

// TestCompletion completes customers.
func TestCompletion(t *testing.T) {
	s := newSession(t)
	s.run("licensectl acquire Bayley iphone GlowS01E01")
	s.run("licensectl acquire Robin iphone GlowS01E01")
	if out := s.run("licensectl __complete events B"); !strings.HasPrefix(out, "Bayley\n") ||
		strings.Contains(out, "Robin") {
		t.Errorf("%s", out)
	}
}

// TestHostileArguments: what cannot be asked of any gateway is a usage error, before one is dialled.
func TestHostileArguments(t *testing.T) {
	for name, args := range map[string][]string{
		"not UTF-8":      {"acquire", "a\xff", "b", "c"},
		"flag not UTF-8": {"events", "Bayley", "--device=\xff"},
		"negative limit": {"customers", "--limit=-1"},
	} {
		out := &bytes.Buffer{}
		p := &program{stdout: out, stderr: out, getenv: func(string) string { return "127.0.0.1:1" }, now: time.Now,
			width: func() int { return 0 }}
		if code := p.run(t.Context(), args); code != exitUsage {
			t.Errorf("%s: exit %d, want %d: %s", name, code, exitUsage, out)
		}
	}
}
