package server

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"

	"connectrpc.com/connect"
)

// InProcess returns a client for parts of this process that use the API like any other
// client: its requests go to the handler without a network between. It is safe for
// concurrent use. The remote address of its requests is none, by which admission knows
// them.
func InProcess(h http.Handler) connect.HTTPClient {
	return &http.Client{Transport: inProcess{h}}
}

// inProcess is a transport that calls a handler. It carries the Connect protocol, which needs neither
// trailers nor HTTP/2.
type inProcess struct{ handler http.Handler }

// RoundTrip implements http.RoundTripper.
func (t inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	// The reply is streamed: RoundTrip returns at its headers, and the handler writes into a
	// pipe that the caller reads.
	ctx, cancel := context.WithCancel(r.Context())
	body, to := io.Pipe()
	w := &pipeWriter{body: to, header: make(http.Header), begun: make(chan struct{})}
	in := r.Clone(ctx)
	in.RequestURI, in.RemoteAddr = r.URL.RequestURI(), "in process"
	if in.Body == nil {
		in.Body = http.NoBody
	}
	go func() {
		defer cancel()
		err := w.serve(t.handler, in)
		_ = in.Body.Close()
		_ = to.CloseWithError(err) // nil is the end of the body.
	}()
	select {
	case <-w.begun:
	case <-ctx.Done():
		// The handler ended, or the caller gave up. Only the caller's own context tells
		// which.
		if err := r.Context().Err(); err != nil {
			cancel()
			_ = body.CloseWithError(err)
			return nil, err
		}
		<-w.begun // The handler is done.
	}
	return &http.Response{
		Status: http.StatusText(w.status), StatusCode: w.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.sent, Body: &pipeBody{body, cancel}, ContentLength: -1, Request: r,
	}, nil
}

// pipeWriter is the writer of a response whose reader waits for its header.
type pipeWriter struct {
	// The handler's end of the pipe, and the header that it fills.
	body   *io.PipeWriter
	header http.Header
	// begun is closed when the header is complete.
	once  sync.Once
	begun chan struct{}
	// Set before begun is closed.
	status int
	sent   http.Header
}

// serve runs the handler. A panic of it breaks the response off, as it does in a server:
// the reader gets an error and no end.
func (w *pipeWriter) serve(h http.Handler, r *http.Request) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the handler panicked: %v: %w", p, io.ErrUnexpectedEOF)
		}
		w.WriteHeader(http.StatusOK)
	}()
	h.ServeHTTP(w, r)
	return nil
}

// Header implements http.ResponseWriter.
func (w *pipeWriter) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *pipeWriter) WriteHeader(status int) {
	w.once.Do(func() {
		w.status, w.sent = status, w.header.Clone()
		close(w.begun)
	})
}

// Write implements http.ResponseWriter. It returns when the reader has taken all, or has gone.
func (w *pipeWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(p)
}

// Flush implements http.Flusher: what was written is with the reader already.
func (w *pipeWriter) Flush() { w.WriteHeader(http.StatusOK) }

// pipeBody ends the request when its reader has enough.
type pipeBody struct {
	*io.PipeReader
	cancel context.CancelFunc
}

// Close implements io.Closer.
func (b *pipeBody) Close() error {
	b.cancel()
	return b.PipeReader.Close()
}
