package tracing

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/attribute"

	"licensed/persistence"
)

// Journal returns a journal whose reads and writes are spans of the requests that wait for them; j itself
// from a nil tracer.
func (t *Tracer) Journal(j persistence.Journal) persistence.Journal {
	if t == nil {
		return j
	}
	return &journal{j, t}
}

// journal is a traced one. Other calls of the embedded journal are not traced: no request
// waits for them.
type journal struct {
	persistence.Journal
	tracer *Tracer
}

// anyCommand is for reads, which all requests of the aggregate wait for.
func anyCommand(string) bool { return true }

// TopRoot implements persistence.Journal.
func (j *journal) TopRoot(ctx context.Context, aggregate string) (persistence.Root, error) {
	s := j.tracer.start("store read", aggregate, anyCommand,
		attribute.String("licensed.read", "top root"))
	root, err := j.Journal.TopRoot(ctx, aggregate)
	if errors.Is(err, persistence.ErrNotFound) {
		s.end(nil) // A customer's first request.
		return root, err
	}
	s.end(err)
	return root, err
}

// ReadRecords implements persistence.Journal.
func (j *journal) ReadRecords(
	ctx context.Context, p persistence.Partition, after uint64, limit int,
) ([]persistence.Record, error) {
	s := j.tracer.start("store read", p.Aggregate, anyCommand,
		attribute.String("licensed.read", "records"))
	records, err := j.Journal.ReadRecords(ctx, p, after, limit)
	s.end(err)
	return records, err
}

// PutRoot implements persistence.Journal.
func (j *journal) PutRoot(ctx context.Context, r *persistence.Root, done func(error)) {
	s := j.tracer.start("store put root", r.Key.Aggregate, anyCommand)
	if len(s.all) == 0 {
		j.Journal.PutRoot(ctx, r, done)
		return
	}
	j.Journal.PutRoot(ctx, r, func(err error) {
		s.end(err)
		done(err)
	})
}

// Append implements persistence.Journal.
func (j *journal) Append(ctx context.Context, m *persistence.Mutation, done func(error)) {
	s := j.tracer.start("store append", m.Partition.Aggregate, func(command string) bool {
		for i := range m.Records {
			if m.Records[i].CommandID == command {
				return true
			}
		}
		return false
	}, attribute.Int("licensed.records", len(m.Records)))
	if len(s.all) == 0 {
		j.Journal.Append(ctx, m, done)
		return
	}
	j.Journal.Append(ctx, m, func(err error) {
		s.end(err)
		done(err)
	})
}
