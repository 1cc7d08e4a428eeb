package cassandra

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/gocql/gocql"

	"licensed/persistence"
)

// TestReadsAreBounded: a read waits until there is room for it, as long as its caller does and not longer than
// the timeout, and leaves its room to the next.
func TestReadsAreBounded(t *testing.T) {
	const most = 2
	s := &Store{keyspace: &keyspace{}, reads: locks{make(chan struct{}, most)}}
	s.opts.Timeout = time.Hour
	end := make(chan struct{})
	began, ended := make(chan struct{}), make(chan error)
	for range most {
		go func() {
			ended <- s.reads.with(t.Context(), 0, func() error { began <- struct{}{}; <-end; return nil })
		}()
		<-began
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		ended <- s.scan(1, (&gocql.Query{}).WithContext(ctx), func(*gocql.Iter) (bool, error) {
			t.Error("it was sent")
			return false, nil
		})
	}()
	cancel()
	if err := <-ended; !errors.Is(err, persistence.ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("one too many: %v", err)
	}
	impatient := &Store{keyspace: &keyspace{opts: Options{Timeout: time.Millisecond}}, reads: s.reads}
	err := impatient.scan(1, (&gocql.Query{}).WithContext(t.Context()), func(*gocql.Iter) (bool, error) { return false, nil })
	if !errors.Is(err, persistence.ErrUnavailable) || impatient.stats.readErrors.Load() != 1 {
		t.Errorf("one that waits longer than the timeout: %v", err)
	}
	close(end)
	for range most {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	if err := s.reads.with(t.Context(), 0, func() error { return nil }); err != nil {
		t.Errorf("after them: %v", err)
	}
	// What waits when the store is closed is not sent any more.
	s.reads[0] <- struct{}{}
	s.reads[0] <- struct{}{}
	waits := waiting{t.Context(), make(chan struct{}, 1)}
	go func() {
		ended <- s.scan(1, (&gocql.Query{}).WithContext(waits), func(*gocql.Iter) (bool, error) { return false, nil })
	}()
	<-waits.asked
	s.life.Lock()
	s.closed = true
	s.life.Unlock()
	<-s.reads[0]
	if err := <-ended; !errors.Is(err, persistence.ErrClosed) {
		t.Errorf("after the store was closed: %v", err)
	}
}

// waiting is a context that tells when it is waited for.
type waiting struct {
	context.Context
	asked chan struct{}
}

func (w waiting) Done() <-chan struct{} {
	select {
	case w.asked <- struct{}{}:
	default:
	}
	return w.Context.Done()
}
