package gateway_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"licensed/actors"
	"licensed/gateway"
	"licensed/gateway/server"
	"licensed/internal/harness"
	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
)

// fake aggregates answer with what a test tells them to, and remember what they were asked.
type fake struct {
	mu       sync.Mutex
	commands []actors.Command
	queries  []*licensedv1.Query
	execute  func(ctx context.Context, id string, c actors.Command) (actors.Reply, error)
	answer   func(q *licensedv1.Query) (actors.Answer, error)
}

func (f *fake) Execute(ctx context.Context, id string, c actors.Command) (actors.Reply, error) {
	f.mu.Lock()
	f.commands = append(f.commands, c)
	f.mu.Unlock()
	return f.execute(ctx, id, c)
}

func (f *fake) Query(_ context.Context, _ string, q any) (actors.Answer, error) {
	query, _ := q.(*licensedv1.Query) // nil for the head
	f.mu.Lock()
	f.queries = append(f.queries, query)
	f.mu.Unlock()
	return f.answer(query)
}

func (f *fake) last(t *testing.T) actors.Command {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.commands) == 0 {
		t.Fatal("no command reached the aggregates")
	}
	return f.commands[len(f.commands)-1]
}

// failing returns aggregates on which everything fails with err.
func failing(err error) *fake {
	return &fake{
		execute: func(context.Context, string, actors.Command) (actors.Reply, error) { return actors.Reply{}, err },
		answer:  func(*licensedv1.Query) (actors.Answer, error) { return actors.Answer{}, err },
	}
}

// untilGivenUp executes a command until its caller gives up.
func untilGivenUp(ctx context.Context, _ string, _ actors.Command) (actors.Reply, error) {
	<-ctx.Done()
	return actors.Reply{}, ctx.Err()
}

// holding returns aggregates that report each command on entered, unless that is nil, hold it until leave is closed,
// and then fail it, since they are not its owner.
func holding(entered chan<- struct{}, leave <-chan struct{}) *fake {
	f := failing(nil)
	f.execute = func(context.Context, string, actors.Command) (actors.Reply, error) {
		if entered != nil {
			entered <- struct{}{}
		}
		<-leave
		return actors.Reply{}, actors.ErrNotOwner
	}
	return f
}

// noon is when everything happens in these tests.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)

// rig is a gateway on a loopback port.
type rig struct {
	url    string
	admin  string
	health *gateway.Health
	log    *harness.Log
}

// logged returns the log so far.
func (r *rig) logged() string { return r.log.String() }

// metric returns the value of a series as /metrics shows it, "" if it is missing.
func (r *rig) metric(t testing.TB, series string) string {
	t.Helper()
	for line := range strings.Lines(get(t, r.admin+"/metrics")) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func get(t testing.TB, url string) string {
	t.Helper()
	_, body := harness.Get(t, url)
	return body
}

func start(t testing.TB, a gateway.Aggregates, change ...func(*gateway.Config)) *rig {
	t.Helper()
	r := &rig{log: new(harness.Log)}
	c := gateway.DefaultConfig()
	c.Now = func() time.Time { return noon }
	c.Logger = slog.New(slog.NewTextHandler(r.log, nil))
	for _, f := range change {
		f(&c)
	}
	registry := prometheus.NewRegistry()
	c.Registry, r.health = registry, c.Health
	r.url = serve(t, gateway.New(c, a).Handler(), c.Logger)
	r.admin = serve(t, gateway.AdminHandler(c.Health, registry, c.Logger), c.Logger)
	r.health.Set(gateway.Ready)
	return r
}

// serverConfig is the default one with a log.
func serverConfig(log *slog.Logger) server.Config {
	c := server.DefaultConfig()
	c.Logger = log
	return c
}

func serve(t testing.TB, h http.Handler, log *slog.Logger) (url string) {
	t.Helper()
	s, err := server.Listen("127.0.0.1:0", serverConfig(log))
	if err != nil {
		t.Fatal(err)
	}
	failed := s.Start(h)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		select {
		case err := <-failed:
			t.Error(err)
		default:
		}
	})
	return "http://" + s.Addr().String()
}

// protocols are the ways to speak to the API.
func protocols(t testing.TB, url string) map[string]licensedv1connect.LicenseServiceClient {
	h1 := &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(h1.CloseIdleConnections)
	over1, over2 := &http.Client{Transport: h1}, harness.HTTP2(t)
	client := func(c *http.Client, o ...connect.ClientOption) licensedv1connect.LicenseServiceClient {
		return licensedv1connect.NewLicenseServiceClient(c, url, o...)
	}
	return map[string]licensedv1connect.LicenseServiceClient{
		"connect/h1":  client(over1),
		"connect/h2":  client(over2),
		"json/h1":     client(over1, connect.WithProtoJSON()),
		"json/h2":     client(over2, connect.WithProtoJSON()),
		"grpc":        client(over2, connect.WithGRPC()),
		"grpc-web/h1": client(over1, connect.WithGRPCWeb()),
		"grpc-web/h2": client(over2, connect.WithGRPCWeb()),
		"session":     overSession(t, client(over2, connect.WithGRPC())),
	}
}

func acquire() *licensedv1.AcquireLicenseRequest {
	return &licensedv1.AcquireLicenseRequest{
		CustomerId: "Bayley", DeviceId: "iphone", TitleId: "GlowS01E01", CommandId: "c1",
	}
}

// post sends JSON as curl would.
func post(t testing.TB, url, method, body string) (status int, header http.Header, reply string) {
	t.Helper()
	res, err := http.Post(url+"/licensed.v1.LicenseService/"+method, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header, string(b)
}

// detail returns the detail of type T that an error carries.
func detail[T proto.Message](t testing.TB, err error) (m T, ok bool) {
	t.Helper()
	var ce *connect.Error
	if !errors.As(err, &ce) {
		t.Fatalf("not an error of the API: %v", err)
	}
	for _, d := range ce.Details() {
		v, err := d.Value()
		if err != nil {
			t.Fatalf("detail %s: %v", d.Type(), err)
		}
		if m, ok := v.(T); ok {
			return m, true
		}
	}
	return m, false
}
