package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"licensed/gateway/server"
)

func inProcess(t *testing.T, ctx context.Context, h http.HandlerFunc) (*http.Response, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://in.process/x?y=z", strings.NewReader("question"))
	if err != nil {
		t.Fatal(err)
	}
	return server.InProcess(h).Do(r)
}

// TestInProcess sends a request to a handler that answers as it reads.
func TestInProcess(t *testing.T) {
	res, err := inProcess(t, t.Context(), func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Path", r.URL.Path+r.URL.RawQuery)
		w.WriteHeader(http.StatusTeapot)
		w.Header().Set("X-Late", "not sent any more")
		fmt.Fprintf(w, "to %s", body)
		w.(http.Flusher).Flush()
		fmt.Fprint(w, " and more")
	})
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || string(body) != "to question and more" || res.StatusCode != http.StatusTeapot {
		t.Errorf("%d %q, %v", res.StatusCode, body, err)
	}
	if res.Header.Get("X-Path") != "/xy=z" || res.Header.Get("X-Late") != "" {
		t.Errorf("header %v", res.Header)
	}
}

// TestInProcessSilent answers with nothing.
func TestInProcessSilent(t *testing.T) {
	res, err := inProcess(t, t.Context(), func(http.ResponseWriter, *http.Request) {})
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); err != nil || len(body) != 0 || res.StatusCode != http.StatusOK {
		t.Errorf("%d %q, %v", res.StatusCode, body, err)
	}
}

// TestInProcessPanic breaks a response off, so that nobody takes it for whole.
func TestInProcessPanic(t *testing.T) {
	res, err := inProcess(t, t.Context(), func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "begun")
		panic("bug")
	})
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%q, %v", body, err)
	}
}

// TestInProcessEnds ends the handler when its reader goes, before the header and after it.
func TestInProcessEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	begun, ended := make(chan struct{}), make(chan struct{})
	go func() {
		<-begun
		cancel()
	}()
	res, err := inProcess(t, ctx, func(_ http.ResponseWriter, r *http.Request) {
		close(begun)
		<-r.Context().Done()
		close(ended)
	})
	if !errors.Is(err, context.Canceled) {
		_ = res.Body.Close()
		t.Errorf("%v", err)
	}
	<-ended

	ended = make(chan struct{})
	res, err = inProcess(t, t.Context(), func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		close(ended)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := res.Body.Close(); err != nil {
		t.Error(err)
	}
	<-ended
}
