package gateway_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"connectrpc.com/grpcreflect"

	"licensed/actors"
	"licensed/gateway"
	"licensed/gateway/server"
	"licensed/internal/harness"
	"licensed/messages/licensedv1/licensedv1connect"
)

func TestHealth(t *testing.T) {
	g := start(t, failing(nil))
	for _, step := range []struct {
		move           func()
		healthz        int
		readyz         int
		says           string
		serving        bool
		unknownService bool
	}{
		{move: func() { g.health.Set(gateway.Starting) }, healthz: 200, readyz: 503, says: "starting"},
		{move: func() { g.health.Set(gateway.Ready) }, healthz: 200, readyz: 200, says: "ready", serving: true},
		{move: func() { g.health.Set(gateway.Draining) }, healthz: 200, readyz: 503, says: "draining"},
		{move: func() { g.health.Fail(errors.New("disk full")) }, healthz: 503, readyz: 503, says: "failed: disk full"},
		{move: func() { g.health.Set(gateway.Ready) }, healthz: 503, readyz: 503, says: "failed: disk full"},
		{move: func() { g.health.Fail(errors.New("later")) }, healthz: 503, readyz: 503, says: "failed: disk full"},
	} {
		step.move()
		for _, url := range []string{g.url, g.admin} {
			for path, want := range map[string]int{"/healthz": step.healthz, "/readyz": step.readyz} {
				res, err := http.Get(url + path)
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(res.Body)
				res.Body.Close()
				if res.StatusCode != want || !strings.Contains(string(body), step.says) {
					t.Errorf("%s in %s: %d %s, want %d", path, step.says, res.StatusCode, body, want)
				}
			}
		}
		for _, service := range []string{"", licensedv1connect.LicenseServiceName} {
			res, err := g.health.Check(t.Context(), &grpchealth.CheckRequest{Service: service})
			if err != nil || (res.Status == grpchealth.StatusServing) != step.serving {
				t.Errorf("service %q in %s: %v %v", service, step.says, res, err)
			}
		}
	}
	if _, err := g.health.Check(t.Context(),
		&grpchealth.CheckRequest{Service: "x"}); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("unknown service: %v", err)
	}
}

func TestReflection(t *testing.T) {
	g := start(t, failing(nil))
	stream := grpcreflect.NewClient(harness.HTTP2(t), g.url, connect.WithGRPC()).NewStream(t.Context())
	defer stream.Close()
	names, err := stream.ListServices()
	if err != nil || len(names) != 2 {
		t.Fatalf("services %v, %v", names, err)
	}
	for _, name := range names {
		files, err := stream.FileContainingSymbol(name)
		if err != nil || len(files) == 0 {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(files[0].Service) == 0 {
			t.Errorf("%s: %v has no service", name, files[0].GetName())
		}
	}
}

func TestMetricsCountByMethodCodeAndNothingElse(t *testing.T) {
	f := failing(actors.ErrOverloaded)
	g := start(t, f)
	for range 3 {
		post(t, g.url, "AcquireLicense", `{"customerId":"Bayley","deviceId":"iphone","titleId":"t","commandId":"c"}`)
	}
	post(t, g.url, "ListDevices", `{"customerId":""}`)
	post(t, g.url, "NoSuchMethod", `{}`)
	for series, want := range map[string]string{
		`licensed_gateway_request_duration_seconds_count{code="resource_exhausted",method="AcquireLicense"}`: "3",
		`licensed_gateway_request_duration_seconds_count{code="invalid_argument",method="ListDevices"}`:      "1",
		`licensed_gateway_request_duration_seconds_count{code="ok",method="AcquireLicense"}`:                 "0",
		`licensed_gateway_refusals_total{rule="RULE_DEVICE_LIMIT"}`:                                          "0",
		`licensed_gateway_requests_in_flight`:                                                                "0",
	} {
		if got := g.metric(t, series); got != want {
			t.Errorf("%s is %q, want %q", series, got, want)
		}
	}
	if all := get(t, g.admin+"/metrics"); strings.Contains(all, "NoSuchMethod") || strings.Contains(all, "Bayley") {
		t.Error("a client can make series")
	}
}

func TestAdminPort(t *testing.T) {
	g := start(t, failing(nil))
	for path, says := range map[string]string{
		"/":                             "/metrics",
		"/debug/pprof/":                 "goroutine",
		"/debug/pprof/cmdline":          "Unknown profile", // It may have passwords.
		"/debug/pprof/heap?debug=1":     "heap profile",
		"/debug/pprof/trace?seconds=.1": "go 1.",
	} {
		if body := get(t, g.admin+path); !strings.Contains(body, says) {
			t.Errorf("%s does not say %q", path, says)
		}
	}
	for _, path := range []string{"/metrics", "/debug/pprof/"} {
		if body := get(t, g.url+path); !strings.Contains(body, "404") {
			t.Errorf("the public port serves %s: %q", path, body)
		}
	}
	if body := get(t, g.url+"/"); !strings.Contains(body, "licensed.v1.LicenseService") {
		t.Errorf("the front page is %q", body)
	}
}

// TestShutdownWaitsForRequests holds in every protocol: what was taken is answered.
func TestShutdownWaitsForRequests(t *testing.T) {
	for name := range protocols(t, "http://unused") {
		entered, leave := make(chan struct{}), make(chan struct{})
		f := failing(nil)
		f.execute = func(context.Context, string, actors.Command) (actors.Reply, error) {
			close(entered)
			<-leave
			return actors.Reply{}, actors.ErrNotOwner
		}
		g := gateway.New(gateway.DefaultConfig(), f)
		s, err := server.Listen("127.0.0.1:0", serverConfig(slog.Default()))
		if err != nil {
			t.Fatal(err)
		}
		s.Start(g.Handler())
		client := protocols(t, "http://"+s.Addr().String())[name]
		answered, stopped := make(chan error, 1), make(chan error, 1)
		go func() {
			_, err := client.AcquireLicense(t.Context(), connect.NewRequest(acquire()))
			answered <- err
		}()
		<-entered
		g.EndStreams()
		go func() { stopped <- s.Shutdown(t.Context()) }()
		// New connections are refused while the request is still in progress.
		for !errors.Is(dial(t.Context(), s.Addr().String()), syscall.ECONNREFUSED) {
			time.Sleep(time.Millisecond)
		}
		select {
		case err := <-stopped:
			t.Errorf("%s: shutdown did not wait: %v", name, err)
		default:
		}
		close(leave)
		if err := <-answered; connect.CodeOf(err) != connect.CodeUnavailable ||
			!strings.Contains(err.Error(), "not available") {
			t.Errorf("%s: the request under way was answered %v", name, err)
		}
		if err := <-stopped; err != nil {
			t.Errorf("%s: shutdown: %v", name, err)
		}
	}
}

func TestShutdownCutsOffWhenTimeIsUp(t *testing.T) {
	entered := make(chan struct{})
	f := failing(nil)
	f.execute = func(ctx context.Context, _ string, _ actors.Command) (actors.Reply, error) {
		close(entered)
		<-ctx.Done()
		return actors.Reply{}, ctx.Err()
	}
	c := gateway.DefaultConfig()
	c.MaxDeadline = time.Hour
	s, err := server.Listen("127.0.0.1:0", serverConfig(slog.Default()))
	if err != nil {
		t.Fatal(err)
	}
	s.Start(gateway.New(c, f).Handler())
	answered := make(chan error, 1)
	go func() {
		_, err := protocols(t, "http://"+s.Addr().String())["grpc"].AcquireLicense(t.Context(),
			connect.NewRequest(acquire()))
		answered <- err
	}()
	<-entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("shutdown: %v", err)
	}
	if err := <-answered; err == nil {
		t.Error("a request that was cut off succeeded")
	}
}

func dial(ctx context.Context, address string) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", address)
	if err == nil {
		err = c.Close()
	}
	return err
}
