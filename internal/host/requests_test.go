package host

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"licensed/actors"
	"licensed/actors/license/policy/policyfile"
	"licensed/cluster"
	"licensed/internal/status"
	"licensed/internal/storage"
	"licensed/messages/licensedv1"
	"licensed/messages/nodev1"
	"licensed/persistence/archive"
	"licensed/persistence/memory"
)

// alone returns the host of a process that has its store to itself.
func alone(t *testing.T) *Host {
	t.Helper()
	log, registry := slog.New(slog.DiscardHandler), prometheus.NewRegistry()
	s, err := storage.Open(t.Context(), storage.Config{
		Store: "cassandra://shared/test", Shared: memory.New(), Archive: storage.ArchiveOff, Logger: log,
	}, storage.Options{Registry: registry, Now: time.Now, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	policy, err := policyfile.OpenSource(policyfile.SourceConfig{Log: log})
	if err != nil {
		t.Fatal(err)
	}
	solo, err := cluster.OpenSolo(t.Context(), s.Hot, cluster.SoloConfig{Cluster: "test", Node: "n1", Log: log})
	if err != nil {
		t.Fatal(err)
	}
	hosts := New(Config{
		Node: "n1", Storage: s, Policy: policy, Runtime: actors.DefaultConfig(),
		Archiver:  archive.DefaultWorkerConfig(),
		Confirmed: func(context.Context) bool { return true },
		Events:    new(status.Events),
		Registry:  registry,
		Now:       time.Now,
		Log:       log,
	})
	t.Cleanup(hosts.Close)
	h, err := hosts.New(solo)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close(context.Background()) })
	return h
}

// TestOperate: what an operator asks is no query, and a query is nothing that an operator asks.
func TestOperate(t *testing.T) {
	h := alone(t)
	request := &nodev1.PassivateRequest{}
	answer, err := h.Operate(t.Context(), "Bayley", request)
	if r, ok := answer.Value.(*nodev1.PassivateResponse); err != nil || !ok || r.Resident {
		t.Errorf("request to evict a customer: %+v, %v", answer.Value, err)
	}
	if answer, err := h.Query(t.Context(), "Bayley", request); err == nil {
		t.Errorf("a query to evict a customer is answered: %+v", answer.Value)
	}
	if _, err := h.Operate(t.Context(), "Bayley", &licensedv1.Query{}); !errors.Is(err, actors.ErrNotSupported) {
		t.Errorf("a query among operators' requests: %v", err)
	}
	if _, err := h.Operate(t.Context(), "two\nlines", request); !errors.Is(err, actors.ErrNotSupported) {
		t.Errorf("a customer that no API accepts: %v", err)
	}
	if _, err := h.Operate(t.Context(), "Bayley", &nodev1.ArchiveRequest{}); err == nil {
		t.Error("a process without an archive archives")
	}
}
