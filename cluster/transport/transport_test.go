package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"licensed/actors"
	"licensed/cluster"
	"licensed/cluster/membership"
	"licensed/internal/caller"
	"licensed/messages/clusterv1"
	"licensed/persistence"
)

// TestCaller: who a request acts for is carried with it, and nobody is without one.
func TestCaller(t *testing.T) {
	a, b := start(t, nil), start(t, nil)
	by := &caller.Caller{
		Principal: "tokens:anna", Roles: 1 << 3, Customer: "Bayley", Reason: "lost phone", Method: "/s/M",
		Token: "secret",
	}
	for _, want := range []*caller.Caller{by, nil} {
		ctx := t.Context()
		if want != nil {
			ctx = caller.NewContext(ctx, want)
		}
		var got []*caller.Caller
		b.handler.execute = func(ctx context.Context, _ string, _ actors.Command) (actors.Reply, error) {
			got = append(got, caller.FromContext(ctx))
			return actors.Reply{}, nil
		}
		b.handler.operate = func(ctx context.Context, _ string, _ any) (actors.Answer, error) {
			got = append(got, caller.FromContext(ctx))
			return actors.Answer{}, nil
		}
		_, err := a.Execute(ctx, b.Address(), "Kind", "id", actors.Command{Payload: "command"})
		if err == nil {
			_, err = a.Operate(ctx, b.Address(), "Kind", "id", "request")
		}
		if err != nil || !reflect.DeepEqual(got, []*caller.Caller{want, want}) {
			t.Errorf("%+v, %v, want %+v", got, err, want)
		}
	}
}

func TestRequests(t *testing.T) {
	a, b := start(t, nil), start(t, nil)
	a.works(t, b.Address())
	b.works(t, a.Address())

	head := persistence.Head{
		Partition: persistence.Partition{
			RootKey:     persistence.RootKey{Aggregate: "id:Kind", Epoch: 3, Version: 2},
			Incarnation: persistence.NewIncarnation(),
		},
		Base: 7, Parent: persistence.RootKey{Aggregate: "id:Kind", Epoch: 1, Version: 1},
		ParentIncarnation: persistence.NewIncarnation(), Sequence: 9,
	}
	b.handler.query = func(_ context.Context, _ string, q any) (actors.Answer, error) {
		switch q := q.(type) {
		case actors.HeadQuery:
			return actors.Answer{Head: head}, nil
		case actors.SnapshotQuery:
			return actors.Answer{
				Head:  head,
				Value: actors.Snapshot{Mapper: "M/1", Header: persistence.Header{Codec: 1}, Data: []byte{1}},
			}, nil
		default:
			return actors.Answer{Head: head, Value: q}, nil
		}
	}
	for _, q := range []any{
		actors.HeadQuery{}, actors.SnapshotQuery{}, actors.SnapshotQuery{InMemory: true}, "question",
	} {
		want, _ := b.handler.query(t.Context(), "", q)
		got, err := a.Query(t.Context(), b.Address(), "Kind", "id", q)
		if err != nil || got.Head != want.Head {
			t.Errorf("%T: head %+v, %v", q, got.Head, err)
		}
		if s, ok := want.Value.(actors.Snapshot); ok {
			g, _ := got.Value.(actors.Snapshot)
			if g.Mapper != s.Mapper || g.Header != s.Header || !bytes.Equal(g.Data, s.Data) {
				t.Errorf("snapshot %+v, want %+v", g, s)
			}
		} else if got.Value != want.Value {
			t.Errorf("%T: value %v, want %v", q, got.Value, want.Value)
		}
	}
	b.handler.query = nil
	b.handler.operate = func(_ context.Context, id string, request any) (actors.Answer, error) {
		return actors.Answer{Head: head, Value: id + " " + request.(string)}, nil
	}
	if got, err := a.Operate(t.Context(), b.Address(), "Kind", "id", "evict"); err != nil || got.Head != head ||
		got.Value != "id evict" {
		t.Errorf("operator's request: %+v, %v", got, err)
	}
	if got, err := a.Query(t.Context(), b.Address(), "Kind", "id", "evict"); err != nil || got.Value != "evict" {
		t.Errorf("a query like an operator's request: %+v, %v", got, err)
	}
	if _, err := a.Operate(t.Context(), b.Address(), "Kind", "id", 7); err == nil {
		t.Error("an operator's request of an unknown type was sent")
	}
	if s, err := a.Status(t.Context(), b.Address()); err != nil || s.GetName() != "echo" {
		t.Errorf("status %v, %v", s, err)
	}
	if err := a.Drain(t.Context(), b.Address()); !errors.Is(err, ErrInternal) ||
		!strings.Contains(err.Error(), "it stays") {
		t.Errorf("drain: %v", err)
	}
	if err := a.Undrain(t.Context(), b.Address()); err != nil {
		t.Errorf("undrain: %v", err)
	}
}

// TestErrors has every error of the runtime travel, and come out as what it was and nothing else.
func TestErrors(t *testing.T) {
	a, b := start(t, nil), start(t, nil)
	all := []error{
		actors.ErrNotOwner, actors.ErrOverloaded, actors.ErrExpired, actors.ErrUnavailable, actors.ErrUnknownOutcome,
		actors.ErrIDReused, actors.ErrTooOld, actors.ErrIssuedAhead, actors.ErrCorrupt, actors.ErrPanic,
		actors.ErrRejected, actors.ErrImporting, actors.ErrNotSupported, actors.ErrForgotten, ErrInternal,
	}
	row := persistence.Shard{
		ID: 5, Epoch: 9, Owner: persistence.NewIncarnation(), Successor: persistence.NewIncarnation(),
	}
	for _, c := range []struct{ there, here error }{
		{&cluster.NotOwnerError{Row: row}, actors.ErrNotOwner},
		{errors.Join(actors.ErrUnknownOutcome, actors.ErrOverloaded, actors.ErrNotOwner), actors.ErrUnknownOutcome},
		{errors.Join(actors.ErrExpired, context.DeadlineExceeded), actors.ErrExpired},
		{context.DeadlineExceeded, actors.ErrUnknownOutcome},
		{persistence.ErrCorrupt, actors.ErrCorrupt},
		{actors.ErrForgotten, actors.ErrForgotten},
		{&persistence.ForgottenError{At: time.UnixMilli(5)}, &persistence.ForgottenError{At: time.UnixMilli(5)}},
		{errors.New("of another kind"), ErrInternal},
		{errors.New("\xff"), ErrInternal},
	} {
		b.handler.execute = func(context.Context, string, actors.Command) (actors.Reply, error) {
			return actors.Reply{}, c.there
		}
		_, err := a.execute(t.Context(), b.Address(), "x")
		for _, e := range all {
			if errors.Is(err, e) != errors.Is(c.here, e) {
				t.Errorf("%v came out as %v, which is (%t) %v", c.there, err, errors.Is(err, e), e)
			}
		}
		var forgotten, at *persistence.ForgottenError
		if errors.As(c.here, &at) && (!errors.As(err, &forgotten) || !forgotten.At.Equal(at.At)) {
			t.Errorf("%v came out as %v", c.there, err)
		}
		var owner, said *cluster.NotOwnerError
		if errors.As(c.there, &said) && (!errors.As(err, &owner) || owner.Row != said.Row) {
			t.Errorf("hint came out as %+v", owner)
		}
	}
	b.handler.execute = func(_ context.Context, _ string, c actors.Command) (actors.Reply, error) {
		if c.Stamped {
			return actors.Reply{}, fmt.Errorf("execute: %w", &actors.StampError{At: time.UnixMilli(1_700_000_000_001)})
		}
		return actors.Reply{}, actors.ErrTooOld
	}
	for _, stamped := range []bool{true, false} {
		_, err := a.Execute(t.Context(), b.Address(), "k", "x",
			actors.Command{ID: "c", Stamped: stamped, IssuedAt: time.UnixMilli(1), Payload: "x"})
		var stamp *actors.StampError
		if errors.As(err, &stamp) != stamped || !errors.Is(err, actors.ErrTooOld) ||
			stamped && stamp.At.UnixMilli() != 1_700_000_000_001 {
			t.Errorf("stamped %t: %v", stamped, err)
		}
	}
	for _, e := range all {
		b.handler.execute = func(context.Context, string, actors.Command) (actors.Reply, error) {
			return actors.Reply{}, e
		}
		_, err := a.execute(t.Context(), b.Address(), "x")
		for _, o := range all {
			if errors.Is(err, o) != errors.Is(e, o) {
				t.Errorf("%v came out as %v", e, err)
			}
		}
	}
	b.handler.execute = func(context.Context, string, actors.Command) (actors.Reply, error) {
		return actors.Reply{}, &actors.RateLimitedError{Reason: "too many", RetryAfter: 3 * time.Second}
	}
	var limited *actors.RateLimitedError
	if _, err := a.execute(t.Context(), b.Address(), "x"); !errors.As(err, &limited) ||
		limited.RetryAfter != 3*time.Second {
		t.Errorf("rate limit came out as %v", err)
	}
}

// TestDeadlines: the time that is left travels, and a request that is given up says what is known of it.
func TestDeadlines(t *testing.T) {
	a, b := start(t, nil), start(t, nil)
	a.works(t, b.Address())
	left := make(chan time.Duration, 1)
	over := make(chan struct{}, 1)
	b.handler.execute = func(ctx context.Context, _ string, _ actors.Command) (actors.Reply, error) {
		deadline, _ := ctx.Deadline()
		left <- time.Until(deadline)
		<-ctx.Done()
		over <- struct{}{}
		return actors.Reply{}, actors.ErrUnknownOutcome
	}
	timeout := 100 * time.Millisecond
	_, err := a.execute(within(t, timeout), b.Address(), "x")
	for errors.Is(err, actors.ErrExpired) { // before it was written, as on a busy machine
		timeout *= 2
		_, err = a.execute(within(t, timeout), b.Address(), "x")
	}
	if !errors.Is(err, actors.ErrUnknownOutcome) {
		t.Fatal(err)
	}
	if d := <-left; d > timeout {
		t.Errorf("%v were left of %v", d, timeout)
	}
	<-over
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.execute(ctx, b.Address(), "x"); !errors.Is(err, actors.ErrExpired) ||
		!errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
}

// TestUnreachable: what was not written is certain, and known at once.
func TestUnreachable(t *testing.T) {
	a := start(t, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	began := time.Now()
	for range 20 {
		if _, err := a.execute(t.Context(), address, "x"); !errors.Is(err, ErrNotSent) ||
			errors.Is(err, actors.ErrUnknownOutcome) {
			t.Fatalf("%v", err)
		}
	}
	if d := time.Since(began); d > 2*time.Second {
		t.Errorf("20 requests to nobody took %v", d)
	}
	for _, address := range []string{"", a.Address()} {
		if _, err := a.execute(t.Context(), address, "x"); !errors.Is(err, ErrNotSent) {
			t.Errorf("to %q: %v", address, err)
		}
	}
	// Who appears there is reached.
	b := startAt(t, address)
	until(t, "answer", func() bool { _, err := a.execute(t.Context(), b.Address(), "x"); return err == nil })
}

// TestKilledPeer: what was written to a peer whose connection breaks has an unknown outcome at once, and a
// process that starts at its address is reached, though it was reached under that address before.
func TestKilledPeer(t *testing.T) {
	a, b := start(t, nil), start(t, nil)
	for round := range 3 {
		started := b.hangs()
		result := make(chan error, 1)
		go func() { _, err := a.execute(within(t, time.Minute), b.Address(), "x"); result <- err }()
		<-started
		a.SetMembers([]membership.Member{member("b", b.Address())})
		kill(b)
		if err := <-result; !errors.Is(err, actors.ErrUnknownOutcome) {
			t.Fatalf("round %d: %v", round, err)
		}
		if round == 1 {
			a.SetMembers(nil)
		}
		address := b.Address()
		b = startAt(t, address)
		until(t, "answer of the next process",
			func() bool { _, err := a.execute(t.Context(), address, "x"); return err == nil })
	}
}

// kill ends a process without goodbye.
func kill(p *process) {
	p.server.Stop()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = p.Close(ctx)
}

// TestMemberLeft: requests to a member that has left fail at once, with an open connection.
func TestMemberLeft(t *testing.T) {
	a, b := start(t, nil), start(t, nil)
	started := b.hangs()
	a.SetMembers([]membership.Member{member("a", a.Address()), member("b", b.Address())})
	for _, fail := range []func(){
		func() { a.SetMembers([]membership.Member{member("a", a.Address())}) },
		func() { a.Fail(b.Address(), errors.New("marked dead")) },
	} {
		var waiting sync.WaitGroup
		for range 10 {
			waiting.Go(func() {
				if _, err := a.execute(t.Context(), b.Address(), "x"); !errors.Is(err, actors.ErrUnknownOutcome) {
					t.Errorf("%v", err)
				}
			})
		}
		for range 10 {
			<-started
		}
		fail()
		waiting.Wait()
	}
	b.handler.execute = nil
	a.works(t, b.Address())
}

// TestFirstCauseCounts: who breaks a connection gives the reader of its stream another reason, and may be slower
// than the reader to tell the true one.
func TestFirstCauseCounts(t *testing.T) {
	told := make(chan struct{})
	a := start(t, func(c *Config) { c.Listener.Disconnected = func(string, error) { <-told } })
	b := start(t, nil)
	started := b.hangs()
	result := make(chan error, 1)
	go func() { _, err := a.execute(t.Context(), b.Address(), "x"); result <- err }()
	<-started
	dead := errors.New("marked dead")
	var failing sync.WaitGroup
	failing.Go(func() { a.Fail(b.Address(), dead) })
	if err := <-result; !errors.Is(err, actors.ErrUnknownOutcome) || !errors.Is(err, dead) {
		t.Error(err)
	}
	close(told)
	failing.Wait()
}

// TestHalfOpen: a connection on which nothing arrives any more is given up when the peer owes an answer.
func TestHalfOpen(t *testing.T) {
	a, b := start(t, nil), start(t, nil)
	tick := a.tickBy()
	p := startProxy(t, b.Address())
	a.works(t, p.address())
	p.hold()
	result := make(chan error)
	go func() { _, err := a.execute(within(t, time.Minute), p.address(), "x"); result <- err }()
	var err error
	for waiting := true; waiting; {
		select {
		case tick <- time.Time{}:
		case err = <-result:
			waiting = false
		}
	}
	if !errors.Is(err, actors.ErrUnknownOutcome) || !errors.Is(err, errSilent) {
		t.Fatalf("%v", err)
	}
	// Not even the handshake gets through now.
	a.config.DialTimeout = 100 * time.Millisecond
	if _, err := a.execute(within(t, time.Minute), p.address(), "x"); !errors.Is(err, ErrNotSent) {
		t.Fatalf("%v", err)
	}
	a.config.DialTimeout = 10 * time.Second
	p.cut()
	p.pass()
	until(t, "answer", func() bool { _, err := a.execute(t.Context(), p.address(), "x"); return err == nil })
}

// TestSlowHandler: a peer that is only slow to answer gives signs of life, and is not given up.
func TestSlowHandler(t *testing.T) {
	a, b := start(t, nil), start(t, nil)
	tick := a.tickBy()
	b.signEvery = 5 * time.Millisecond
	started, finish := make(chan struct{}), make(chan struct{})
	b.handler.execute = func(context.Context, string, actors.Command) (actors.Reply, error) {
		close(started)
		<-finish
		return actors.Reply{Outcome: []byte("late")}, nil
	}
	type result struct {
		got string
		err error
	}
	answer := make(chan result)
	go func() { got, err := a.execute(t.Context(), b.Address(), "x"); answer <- result{got, err} }()
	<-started
	p, err := a.peer(b.Address())
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	heard := &p.stream.heard
	p.mu.Unlock()
	for range 20 {
		tick <- time.Time{} // it is silent
		before := heard.Load()
		until(t, "sign of life", func() bool { return heard.Load() > before })
		tick <- time.Time{} // it is not
	}
	close(finish)
	if r := <-answer; r.got != "late" || r.err != nil {
		t.Errorf("%q, %v", r.got, r.err)
	}
	if n := a.journal.count("disconnected"); n != 0 {
		t.Errorf("%d connections were given up", n)
	}
}

func TestLimits(t *testing.T) {
	small := func(c *Config) { c.MaxMessageBytes, c.MaxInFlight = 4<<10, 4 }
	a, b := start(t, small), start(t, small)
	if _, err := a.execute(t.Context(), b.Address(), strings.Repeat("x", 5<<10)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("large request: %v", err)
	}
	if _, err := a.Execute(t.Context(), b.Address(), "Kind", "\xff",
		actors.Command{ID: "1", Payload: "x"}); !errors.Is(err, ErrInvalid) {
		t.Errorf("request that is no text: %v", err)
	}
	if n := a.journal.count("connected"); n != 0 {
		t.Errorf("it was sent")
	}
	b.handler.query = func(context.Context, string, any) (actors.Answer, error) {
		return actors.Answer{Value: strings.Repeat("x", 5<<10)}, nil
	}
	if _, err := a.Query(t.Context(), b.Address(), "Kind", "id", "x"); !errors.Is(err, actors.ErrRejected) ||
		!strings.Contains(err.Error(), "at most 4096") {
		t.Errorf("large answer: %v", err)
	}

	release, started := make(chan struct{}), make(chan struct{}, 8)
	b.handler.execute = func(context.Context, string, actors.Command) (actors.Reply, error) {
		started <- struct{}{}
		<-release
		return actors.Reply{}, nil
	}
	// The other side has its own limit, for peers that exceed theirs.
	c := start(t, func(c *Config) { c.MaxInFlight = 100 })
	var waiting sync.WaitGroup
	for _, p := range []*process{a, c} {
		for range 4 {
			waiting.Go(func() {
				if _, err := p.execute(t.Context(), b.Address(), "x"); err != nil {
					t.Error(err)
				}
			})
		}
		for range 4 {
			<-started
		}
		if _, err := p.execute(t.Context(), b.Address(), "x"); !errors.Is(err, actors.ErrOverloaded) {
			t.Errorf("one too many: %v", err)
		}
	}
	close(release)
	waiting.Wait()
}

// TestLargeRequests: as many of the largest as one likes, at once.
func TestLargeRequests(t *testing.T) {
	large := func(c *Config) { c.MaxMessageBytes, c.MaxPeerBytes = 1<<20, 64<<20 }
	a, b := start(t, large), start(t, large)
	b.handler.query = func(_ context.Context, _ string, q any) (actors.Answer, error) {
		return actors.Answer{Value: q}, nil
	}
	question := strings.Repeat("x", 1<<20-100)
	var asking sync.WaitGroup
	for range 30 {
		asking.Go(func() {
			if got, err := a.Query(t.Context(), b.Address(), "Kind", "id", question); err != nil ||
				got.Value != question {
				t.Errorf("%v", err)
			}
		})
	}
	asking.Wait()
	if n := a.journal.count("disconnected"); n != 0 {
		t.Errorf("%d connections broke", n)
	}
}

// TestStalledPeer: requests to a peer that does not read wait in a bounded queue and fail by what is known.
func TestStalledPeer(t *testing.T) {
	a := start(t, func(c *Config) { c.MaxInFlight = 64; c.Silence = 300 * time.Millisecond })
	b := start(t, nil)
	p := startProxy(t, b.Address())
	a.works(t, p.address())
	a.config.DialTimeout = 100 * time.Millisecond
	p.hold()
	large := strings.Repeat("x", 1<<20)
	var waiting sync.WaitGroup
	var mu sync.Mutex
	seen := map[string]int{}
	for range 100 {
		waiting.Go(func() {
			_, err := a.execute(within(t, time.Minute), p.address(), large)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case errors.Is(err, actors.ErrUnknownOutcome):
				seen["unknown"]++
			case errors.Is(err, ErrNotSent), errors.Is(err, actors.ErrOverloaded):
				seen["certain"]++
			default:
				t.Errorf("%v", err)
			}
		})
	}
	waiting.Wait()
	if seen["unknown"] == 0 || seen["certain"] < 36 {
		t.Errorf("%v", seen)
	}
}

// TestClose: a close waits for answers, leaves nothing behind, and can be called again.
func TestClose(t *testing.T) {
	before := runtime.NumGoroutine()
	a, b := start(t, nil), start(t, nil)
	started := make(chan struct{})
	b.handler.execute = func(context.Context, string, actors.Command) (actors.Reply, error) {
		close(started)
		time.Sleep(50 * time.Millisecond)
		return actors.Reply{Outcome: []byte("done")}, nil
	}
	result := make(chan error, 1)
	go func() { _, err := a.execute(t.Context(), b.Address(), "x"); result <- err }()
	<-started
	for range 2 {
		if err := b.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if err := <-result; err != nil {
		t.Errorf("answer during close: %v", err)
	}
	until(t, "end of the connection", func() bool {
		_, err := a.execute(t.Context(), b.Address(), "x")
		return errors.Is(err, ErrNotSent)
	})
	if err := a.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := a.execute(t.Context(), b.Address(), "x"); !errors.Is(err, ErrNotSent) {
		t.Errorf("request of a closed process: %v", err)
	}
	a.SetMembers(nil)
	a.Fail(b.Address(), errors.New("dead"))
	until(t, "end of all goroutines", func() bool { runtime.GC(); return runtime.NumGoroutine() <= before })
}

// TestCloseWhileAsking: a process that closes while it sends and answers requests leaves none without a result.
func TestCloseWhileAsking(t *testing.T) {
	for range 20 {
		a, b := start(t, nil), start(t, nil)
		var asking sync.WaitGroup
		for _, p := range [][2]*process{{a, b}, {b, a}} {
			for range 4 {
				asking.Go(func() {
					for err := error(nil); err == nil || errors.Is(err, actors.ErrNotOwner) ||
						errors.Is(err, actors.ErrUnknownOutcome); {
						_, err = p[0].execute(t.Context(), p[1].Address(), "x")
						if err != nil && p[0].closed.Load() && !errors.Is(err, ErrNotSent) &&
							!errors.Is(err, actors.ErrUnknownOutcome) {
							t.Errorf("of a process that is closed: %v", err)
						}
					}
				})
			}
		}
		a.works(t, b.Address())
		asking.Go(func() { _ = a.Close(t.Context()) })
		asking.Wait()
	}
}

func TestStartErrors(t *testing.T) {
	a := start(t, nil)
	for name, change := range map[string]func(*Config){
		"address already in use": func(c *Config) { c.Bind = a.Address() },
		"address to bind":        func(c *Config) { c.Bind = "nowhere" },
		"address to advertise":   func(c *Config) { c.Advertise = "nowhere" },
		"advertise one":          func(c *Config) { c.Bind = "0.0.0.0:0" },
		"Cluster":                func(c *Config) { c.Cluster = "" },
		"Silence":                func(c *Config) { c.Silence = 0 },
	} {
		c := DefaultConfig()
		c.Cluster, c.Bind, c.Codec = "test", "127.0.0.1:0", words{}
		change(&c)
		if _, err := Start(c); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("want an error about %q, got %v", name, err)
		}
	}
}

// TestThoseWhoLeftAreForgotten: nothing is kept of an address that is no member's any more, not even if a late
// request has gone there since. Who comes back to it is found again.
func TestThoseWhoLeftAreForgotten(t *testing.T) {
	a, b := start(t, nil), start(t, nil)
	a.mu.Lock()
	a.forgetAfter = 0
	a.mu.Unlock()
	known := func() int {
		a.mu.Lock()
		defer a.mu.Unlock()
		return len(a.peers)
	}
	for range 3 {
		a.SetMembers([]membership.Member{member("b", b.Address())})
		a.works(t, b.Address())
		a.SetMembers([]membership.Member{member("b", b.Address())})
		if known() != 1 {
			t.Fatal("a member was forgotten")
		}
		a.SetMembers(nil)
		until(t, "answer to a late request",
			func() bool { _, err := a.execute(t.Context(), b.Address(), "x"); return err == nil })
		until(t, "end of what is kept of it", func() bool { a.SetMembers(nil); return known() == 0 })
		until(t, "end of its connection", func() bool { b.mu.Lock(); defer b.mu.Unlock(); return len(b.sessions) == 0 })
	}
}

// TestForgettingLosesNoRequest: requests that come while a peer is forgotten find the next one.
func TestForgettingLosesNoRequest(t *testing.T) {
	a, b := start(t, nil), start(t, nil)
	p, err := a.peer(b.Address())
	if err != nil {
		t.Fatal(err)
	}
	a.mu.Lock()
	if p.forget(time.Hour) || !p.forget(0) {
		t.Error("not forgotten when nothing was asked of it")
	}
	delete(a.peers, b.Address())
	a.mu.Unlock()
	if err := p.begin(&call{}); !errors.Is(err, errForgotten) {
		t.Errorf("a call to a peer that is forgotten: %v", err)
	}
	a.works(t, b.Address())
}

// TestPauses: after a failed attempt to connect, requests fail at once for a while, and say why. The pauses grow and
// are bounded.
func TestPauses(t *testing.T) {
	p := &peer{transport: &Transport{config: DefaultConfig()}}
	var before time.Duration
	refused := errors.New("connection refused")
	for range 10 {
		p.unreachable(refused)
		pause := time.Until(p.retry)
		if p.pause < before || p.pause > longestPause || pause > p.pause || pause < 0 {
			t.Errorf("pause of %v within %v, before it %v", pause, p.pause, before)
		}
		if err := p.begin(&call{}); !errors.Is(err, ErrNotSent) || !errors.Is(err, refused) {
			t.Errorf("in the pause: %v", err)
		}
		before = p.pause
	}
	if before != longestPause {
		t.Errorf("the last pause is %v", before)
	}
}

// TestAbandonedInQueue: a request that is given up before it was given to a stream is certainly not executed, and
// leaves nothing in the queue.
func TestAbandonedInQueue(t *testing.T) {
	p := &peer{transport: &Transport{config: DefaultConfig()}, ready: make(chan struct{}, 1), running: true}
	var calls []*call
	for i := range 3 {
		calls = append(calls, &call{id: uint64(i), part: make(part, 10), done: make(chan struct{})})
		if err := p.begin(calls[i]); err != nil {
			t.Fatal(err)
		}
	}
	p.abandon(calls[1], context.Canceled)
	if err := calls[1].err; !errors.Is(err, actors.ErrExpired) || !errors.Is(err, context.Canceled) ||
		errors.Is(err, actors.ErrUnknownOutcome) {
		t.Error(err)
	}
	if len(p.queue) != 2 || p.bytes != 20 || p.pending != 2 {
		t.Errorf("%d requests of %d bytes are queued, %d pending", len(p.queue), p.bytes, p.pending)
	}
	s := &stream{peer: p, calls: map[uint64]*call{}}
	if f := s.take(); len(f) != 2 || p.bytes != 0 {
		t.Errorf("%d requests were taken, %d bytes are left", len(f), p.bytes)
	}
	p.abandon(calls[0], context.Canceled)
	if err := calls[0].err; !errors.Is(err, actors.ErrUnknownOutcome) {
		t.Errorf("given to a stream: %v", err)
	}
	f := &clusterv1.Frame{}
	if b := slices.Concat(s.take()...); proto.Unmarshal(b, f) != nil ||
		!slices.Equal(f.Abandoned, []uint64{0}) || p.bytes != 0 {
		t.Errorf("the next frame is %v, %d bytes are left", f, p.bytes)
	}
	if f := s.take(); f != nil {
		t.Errorf("a frame without need: %v", f)
	}
	s.answered(&incoming{
		responses: []*clusterv1.Response{{Id: 0, Code: clusterv1.Code_CODE_OK}, {Id: 2, Code: clusterv1.Code_CODE_OK}},
	})
	if <-calls[2].done; calls[2].err != nil || p.pending != 0 {
		t.Errorf("%v, %d pending", calls[2].err, p.pending)
	}
}

// TestLeftInQueue: requests that a broken stream left in the queue are sent on the next one, without another request.
func TestLeftInQueue(t *testing.T) {
	a, b := start(t, nil), start(t, nil)
	p := &peer{transport: a.Transport, address: b.Address(), ready: make(chan struct{}, 1), running: true}
	c, err := a.prepare(t.Context(),
		&clusterv1.Request{Body: &clusterv1.Request_Status{Status: &clusterv1.StatusRequest{}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.begin(c); err != nil {
		t.Fatal(err)
	}
	<-p.ready // The writer of the former stream looked here, and did not take the request any more.
	a.running.Go(p.run)
	<-c.done
	if c.err != nil {
		t.Error(c.err)
	}
	p.retire(errLeft)
}

// TestAbandonedInHandler: a request whose caller gives up holds no place at the peer until its deadline. The next
// requests are answered, though as many as the peer accepts were abandoned.
func TestAbandonedInHandler(t *testing.T) {
	const places = 4
	a := start(t, nil)
	b := start(t, func(c *Config) { c.MaxInFlight, c.MaxTimeout = places, time.Hour })
	for range 2 {
		begun := b.hangs()
		ctx, cancel := context.WithCancel(t.Context())
		var callers sync.WaitGroup
		for range places {
			callers.Go(func() {
				if _, err := a.execute(ctx, b.Address(), "x"); !errors.Is(err, actors.ErrUnknownOutcome) ||
					!errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			})
		}
		for range places {
			<-begun
		}
		cancel()
		callers.Wait()
		until(t, "end of abandoned requests", func() bool { return b.owed() == 0 })
		b.handler.execute = nil
		for range 2 * places {
			a.works(t, b.Address())
		}
	}
	until(t, "end of bytes in flight", func() bool { return b.bytes.Load() == 0 })
}

// TestAbandonedByID: a peer abandons requests by their ids. Ids of no request are ignored, and so are those of requests
// that have been answered. An abandoned request gets no response, whatever its handler returns.
func TestAbandonedByID(t *testing.T) {
	a := start(t, func(c *Config) { c.MaxTimeout = time.Hour })
	ended := make(chan any)
	a.handler.query = func(ctx context.Context, _ string, query any) (actors.Answer, error) {
		<-ctx.Done()
		ended <- query
		return actors.Answer{Value: "nobody waits for this"}, nil
	}
	query := func(what string) *clusterv1.Request {
		return &clusterv1.Request{Body: &clusterv1.Request_Query{
			Query: &clusterv1.Query{Payload: &clusterv1.Payload{Type: "string", Data: []byte(what)}},
		}}
	}
	stream := newStranger(t, a.Address()).greet()
	if _, err := ask(t, stream, statusRequest()); err != nil {
		t.Fatal(err)
	}
	first, second := query("first"), query("second")
	first.Id, second.Id = 8, 9
	f := frameOf(first, second)
	f.Abandoned = []uint64{9, 7, 5000, 9} // 7 is the status request.
	for _, f := range []*clusterv1.Frame{f, {Abandoned: []uint64{8}}} {
		if err := stream.SendMsg(f); err != nil {
			t.Fatal(err)
		}
		want := "first"
		if len(f.Requests) > 0 {
			want = "second"
		}
		if got := <-ended; got != want {
			t.Errorf("the %v request ended, want the %s one", got, want)
		}
	}
	until(t, "end of both requests", func() bool { return a.owed() == 0 })
	again := statusRequest()
	again.Id = 8
	// the next response on the stream
	if r, err := ask(t, stream, again); err != nil || r.GetStatus().GetName() != "echo" {
		t.Errorf("after that: %v, %v", r, err)
	}
}

// TestQueueOfBytes: what waits to be written to one peer is bounded in bytes.
func TestQueueOfBytes(t *testing.T) {
	p := &peer{transport: &Transport{config: DefaultConfig()}, ready: make(chan struct{}, 1), running: true}
	p.transport.config.MaxPeerBytes = 100
	for _, size := range []int{200, 10} { // the first one is sent, however large
		err := p.begin(&call{part: make(part, size)})
		if want := size == 10; errors.Is(err, actors.ErrOverloaded) != want {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}
