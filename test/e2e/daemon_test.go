package e2e_test

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"licensed/internal/harness"
	"licensed/messages/licensedv1/licensedv1connect"
	"licensed/persistence/cassandra/cassandratest"
)

func TestMain(m *testing.M) { os.Exit(cassandratest.Main(m)) }

// licensed and licensectl return the paths of the programs under test.
func licensed(t testing.TB) string   { return filepath.Join(harness.Programs(t), "licensed") }
func licensectl(t testing.TB) string { return filepath.Join(harness.Programs(t), "licensectl") }

// daemon is a running licensed.
type daemon struct {
	*harness.Program
	t testing.TB
}

// launch starts the daemon on free ports, with more arguments, and does not wait.
func launch(t testing.TB, data string, arguments ...string) *daemon {
	t.Helper()
	return &daemon{harness.Launch(t, licensed(t), append([]string{
		"dev", "--data", data, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0",
	}, arguments...)...), t}
}

// start starts the daemon and waits until it is ready.
func start(t testing.TB, data string, arguments ...string) *daemon {
	t.Helper()
	d := launch(t, data, arguments...)
	d.AwaitReady()
	return d
}

// startRole starts a process with these arguments and waits until it is ready.
func startRole(t testing.TB, arguments ...string) *daemon {
	t.Helper()
	return startProgram(t, licensed(t), arguments...)
}

// startProgram starts a process of a program with these arguments and waits until it is ready.
func startProgram(t testing.TB, program string, arguments ...string) *daemon {
	t.Helper()
	return &daemon{harness.Start(t, program, arguments...), t}
}

// clients returns one client for each way to speak to the API.
func (d *daemon) clients() []licensedv1connect.LicenseServiceClient {
	h1 := &http.Transport{MaxIdleConnsPerHost: 64}
	d.t.Cleanup(h1.CloseIdleConnections)
	url := "http://" + d.API
	return []licensedv1connect.LicenseServiceClient{
		licensedv1connect.NewLicenseServiceClient(harness.HTTP2(d.t), url, connect.WithGRPC()),
		licensedv1connect.NewLicenseServiceClient(&http.Client{Transport: h1}, url, connect.WithProtoJSON()),
		licensedv1connect.NewLicenseServiceClient(&http.Client{Transport: h1}, url, connect.WithGRPCWeb()),
	}
}

// post sends JSON as curl would and returns the status and the reply.
func (d *daemon) post(method, body string) (int, string) {
	d.t.Helper()
	res, err := http.Post("http://"+d.API+"/licensed.v1.LicenseService/"+method, "application/json",
		strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	defer res.Body.Close()
	reply, err := io.ReadAll(res.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return res.StatusCode, string(reply)
}
