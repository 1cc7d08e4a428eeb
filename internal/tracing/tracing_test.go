package tracing_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"licensed/internal/tracing"
	"licensed/persistence"
	"licensed/persistence/memory"
)

const aggregate = "Bayley:LicenseAggregate"

func newTracer(ratio float64) (*tracing.Tracer, *tracetest.SpanRecorder) {
	r := tracetest.NewSpanRecorder()
	return tracing.New(tracing.Config{Ratio: ratio, Instance: "n1", Version: "v1"}, sdktrace.WithSpanProcessor(r)), r
}

// traced returns a context in a trace that is kept.
func traced(ctx context.Context) (context.Context, trace.TraceID) {
	id := trace.TraceID{1, 2, 3}
	return trace.ContextWithSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: id, SpanID: trace.SpanID{9}, TraceFlags: trace.FlagsSampled,
	})), id
}

// names of spans that ended in a trace, in the order of their ends.
func names(r *tracetest.SpanRecorder, id trace.TraceID) []string {
	var out []string
	for _, s := range r.Ended() {
		if s.SpanContext().TraceID() == id {
			out = append(out, s.Name())
		}
	}
	return out
}

// TestJournal puts reads and writes into the traces of the requests that wait for them, and no others.
func TestJournal(t *testing.T) {
	tracer, recorder := newTracer(1)
	j := tracer.Journal(memory.New())
	ctx, id := traced(t.Context())
	_, end := tracer.Request(ctx, aggregate, "c1")

	if _, err := j.TopRoot(t.Context(), aggregate); !errors.Is(err, persistence.ErrNotFound) {
		t.Fatal(err)
	}
	incarnation := persistence.NewIncarnation()
	root := &persistence.Root{
		Key:         persistence.RootKey{Aggregate: aggregate, Epoch: 1, Version: 1},
		Incarnation: incarnation,
	}
	wait := func(write func(func(error))) {
		t.Helper()
		done := make(chan error, 1)
		write(func(err error) { done <- err })
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	wait(func(done func(error)) { j.PutRoot(t.Context(), root, done) })
	p := persistence.Partition{RootKey: root.Key, Incarnation: incarnation}
	mutation := func(sequence uint64, command string) *persistence.Mutation {
		return &persistence.Mutation{Partition: p, Records: []persistence.Record{{
			Sequence: sequence, Count: 1, CommandID: command, AggregateID: "customer", Mapper: "X/1", Data: []byte("x"),
		}}}
	}
	wait(func(done func(error)) { j.Append(t.Context(), mutation(1, "c1"), done) })
	wait(func(done func(error)) { j.Append(t.Context(), mutation(2, "c2"), done) }) // not traced
	if _, err := j.ReadRecords(t.Context(), p, 0, 10); err != nil {
		t.Fatal(err)
	}
	end(nil)
	want := []string{"store read", "store put root", "store append", "store read", "actor execute"}
	if got := names(recorder, id); !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	for _, s := range recorder.Ended() {
		if s.Status().Description != "" {
			t.Errorf("%s: %v", s.Name(), s.Status())
		}
	}
	n := len(recorder.Ended())
	wait(func(done func(error)) { j.Append(t.Context(), mutation(3, "c1"), done) })
	if len(recorder.Ended()) != n {
		t.Error("a request that ended is still traced")
	}
}

// TestCustomersAreHidden: no span has the id of a customer, also not in an error. Who has the id finds its spans.
func TestCustomersAreHidden(t *testing.T) {
	tracer, recorder := newTracer(1)
	ctx, _ := traced(t.Context())
	_, end := tracer.Request(ctx, "Bayley:Test", "c1")
	end(errors.New("history of Bayley: Bayley:Test is damaged"))
	spans := recorder.Ended()
	if len(spans) != 1 {
		t.Fatalf("%d spans", len(spans))
	}
	all := fmt.Sprint(spans[0].Name(), spans[0].Attributes(), spans[0].Status(), spans[0].Events())
	const hash = "68cef93fc98138a4" // printf Bayley | sha256sum | cut -c 1-16
	if strings.Contains(all, "Bayley") || strings.Count(all, hash) != 3 {
		t.Errorf("a span says %s", all)
	}
}

// TestRatio: the ratio decides where a trace enters, whatever the client asks for, and a process of the
// cluster is believed.
func TestRatio(t *testing.T) {
	tracer, recorder := newTracer(0)
	ctx, id := traced(t.Context())
	remote := trace.ContextWithSpanContext(t.Context(), trace.SpanContextFromContext(ctx).WithRemote(true))
	_, end := tracer.Request(remote, aggregate, "c1")
	end(nil)
	if n := len(recorder.Ended()); n != 0 {
		t.Errorf("%d spans, though the ratio is 0", n)
	}
	inside := tracer.Extract(t.Context(), tracer.Inject(ctx))
	_, end = tracer.Request(inside, aggregate, "")
	end(errors.New("no"))
	if got := names(recorder, id); !slices.Equal(got, []string{"actor query"}) {
		t.Errorf("%v", got)
	}
}

// TestExtract takes anything.
func TestExtract(t *testing.T) {
	tracer, _ := newTracer(1)
	for _, parent := range []string{
		"", "x", "00-0-0-0", strings.Repeat("z", 1000), "00-01020300000000000000000000000000-0900000000000000-zz",
	} {
		if ctx := tracer.Extract(t.Context(), parent); trace.SpanContextFromContext(ctx).IsValid() {
			t.Errorf("%q is a trace", parent)
		}
	}
	if s := tracer.Inject(t.Context()); s != "" {
		t.Errorf("%q", s)
	}
	ctx, _ := traced(t.Context())
	if s := tracer.Inject(ctx); s != "00-01020300000000000000000000000000-0900000000000000-01" {
		t.Errorf("%q", s)
	}
}

// TestLog names the trace in what is logged about it.
func TestLog(t *testing.T) {
	tracer, _ := newTracer(1)
	var b bytes.Buffer
	log := slog.New(tracer.Log(slog.NewTextHandler(&b, nil))).With("a", 1).WithGroup("g")
	ctx, id := traced(t.Context())
	log.InfoContext(ctx, "in a trace")
	log.Info("in none")
	if strings.Count(b.String(), "trace_id="+id.String()) != 1 {
		t.Errorf("%s", b.String())
	}
}

// TestNil: a nil tracer does nothing.
func TestNil(t *testing.T) {
	tracer, err := tracing.Start(t.Context(), tracing.Config{})
	if tracer != nil || err != nil {
		t.Fatal(tracer, err)
	}
	j := memory.New()
	if tracer.Journal(j) != persistence.Journal(j) {
		t.Error("another journal")
	}
	ctx, end := tracer.Request(t.Context(), aggregate, "c1")
	end(nil)
	i, err := tracer.Interceptors()
	if ctx != t.Context() || i != nil || err != nil || tracer.Inject(ctx) != "" || tracer.Extract(ctx, "x") != ctx ||
		tracer.Close(ctx) != nil {
		t.Error("it does something")
	}
}

func TestCheck(t *testing.T) {
	for endpoint, ok := range map[string]bool{
		"": true, "http://127.0.0.1:4317": true, "https://collector:4317": true, "127.0.0.1:4317": false,
		"ftp://x": false, "http://": false,
	} {
		if err := (tracing.Config{Endpoint: endpoint}).Check(); (err == nil) != ok {
			t.Errorf("%q: %v", endpoint, err)
		}
	}
	if (tracing.Config{Ratio: 1.5}).Check() == nil || (tracing.Config{Ratio: -1}).Check() == nil {
		t.Error("any ratio is fine")
	}
}

// FuzzExtract: what others say of a trace is one or none.
func FuzzExtract(f *testing.F) {
	f.Add("00-01020300000000000000000000000000-0900000000000000-01")
	f.Add("ff-01020300000000000000000000000000-0900000000000000-01-x")
	tracer, _ := newTracer(1)
	f.Fuzz(func(t *testing.T, parent string) {
		there := trace.SpanContextFromContext(tracer.Extract(t.Context(), parent))
		if there.IsRemote() || there.HasTraceID() != there.HasSpanID() {
			t.Errorf("%q: %+v", parent, there)
		}
	})
}
