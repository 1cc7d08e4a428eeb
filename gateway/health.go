package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"

	"licensed/messages/licensedv1/licensedv1connect"
)

// State is what health checks tell about a node.
type State int

// The states of a node. /healthz fails only in Failed (restart it); /readyz succeeds only in Ready
// (send it requests).
const (
	Starting State = iota
	Ready
	Draining
	Failed
)

// String returns the state in lower case.
func (s State) String() string {
	return [...]string{"starting", "ready", "draining", "failed"}[s]
}

// Health answers health checks over HTTP and gRPC. The zero value is Starting. Safe for concurrent use.
type Health struct {
	mu    sync.Mutex
	state State
	// Why the node is Failed.
	cause error
	hold  error // why the node is not ready though it is Ready
}

// Set moves to a state; Failed is final.
func (h *Health) Set(s State) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.state != Failed {
		h.state = s
	}
}

// Fail moves to Failed for a reason, which the checks show. The first reason stays.
func (h *Health) Fail(cause error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.state != Failed {
		h.state, h.cause = Failed, cause
	}
}

// Hold makes the readiness checks fail for a reason while the node is Ready; nil ends that. The state stays.
func (h *Health) Hold(reason error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hold = reason
}

// held returns why the readiness checks fail in Ready, or nil.
func (h *Health) held() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.state != Ready {
		return nil
	}
	return h.hold
}

// State returns the present state and, in Failed, why.
func (h *Health) State() (State, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.state, h.cause
}

// Check implements grpchealth.Checker: the process and the service serve while Ready.
func (h *Health) Check(_ context.Context, r *grpchealth.CheckRequest) (*grpchealth.CheckResponse, error) {
	switch r.Service {
	case "", licensedv1connect.LicenseServiceName, licensedv1connect.HistoryServiceName,
		licensedv1connect.AdminServiceName:
	default:
		return nil, connect.NewError(connect.CodeNotFound, errors.New("unknown service "+r.Service))
	}
	if s, _ := h.State(); s != Ready || h.held() != nil {
		return &grpchealth.CheckResponse{Status: grpchealth.StatusNotServing}, nil
	}
	return &grpchealth.CheckResponse{Status: grpchealth.StatusServing}, nil
}

// mount adds the checks over HTTP, which are on both ports.
func (h *Health) mount(mux *http.ServeMux) {
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		s, cause := h.State()
		answer(w, s != Failed, s, cause)
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		s, cause := h.State()
		if reason := h.held(); reason != nil {
			// A hold is temporary: the orchestrator takes the node out of service and
			// does not restart it.
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			w.Header().Set("Cache-Control", "no-store")
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintf(w, "not ready: %v\n", reason)
			return
		}
		answer(w, s == Ready, s, cause)
	})
}

// answer writes the result of a check: 200 or 503, and a line for people.
func answer(w http.ResponseWriter, ok bool, s State, cause error) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if !ok {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	if cause != nil {
		fmt.Fprintf(w, "%v: %v\n", s, cause)
		return
	}
	fmt.Fprintf(w, "%v\n", s)
}
