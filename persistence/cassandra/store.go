package cassandra

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"licensed/persistence"
)

// Store is an open store. It is safe for concurrent use.
type Store struct {
	session    *session
	opts       Options
	risks      []Risk
	dataCenter string // the one that is used; empty: all
	groups     *groups
	buckets    bucketLocks

	life    sync.RWMutex // guards closed against pending
	closed  bool
	pending sync.WaitGroup

	stats struct{ writes, rows, unknown, rejected, readErrors atomic.Uint64 }
}

var _ persistence.Store = (*Store)(nil)

// Open connects, checks the schema and what endangers the promise, and returns the store. Errors:
// persistence.ErrUnavailable, ErrCredentials, ErrSchema, and ErrUnsafe for a severe [Risk] that
// Options.AcceptRisks does not name. Risks that do not fail are logged; see [Store.Risks].
func Open(ctx context.Context, o Options) (*Store, error) {
	s, err := open(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("cassandra: %w", err)
	}
	return s, nil
}

func open(ctx context.Context, o Options) (*Store, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	session, err := connectKeyspace(ctx, &o)
	if err != nil {
		return nil, err
	}
	s := &Store{session: session, opts: o, buckets: newBucketLocks()}
	if err := s.prepare(ctx); err != nil {
		session.Close()
		return nil, err
	}
	return s, nil
}

// prepare checks the keyspace and takes from Cassandra's settings what the options leave open.
func (s *Store) prepare(ctx context.Context) error {
	if err := checkSchema(ctx, s.session); err != nil {
		return err
	}
	found, err := inspect(ctx, s.session, &s.opts)
	if err != nil {
		return err
	}
	s.risks = found.risks(&s.opts)
	if err := judge(s.risks, &s.opts); err != nil {
		return err
	}
	s.dataCenter = found.dataCenter
	s.session.policy.setReplicas(found.replicas)
	s.groups = newGroups(s, found)
	return nil
}

// Risks returns what was found at Open to endanger the promise, accepted risks included.
func (s *Store) Risks() []Risk { return s.risks }

// Stats are counters since Open.
type Stats struct {
	// Requests sent for Writes, which had Rows: writes per request tell how well grouping works.
	Requests, Writes, Rows uint64
	// Unknown and Rejected are writes and compare-and-sets with those outcomes.
	Unknown, Rejected uint64
	// ReadErrors counts reads that could not be served.
	ReadErrors uint64
}

// Stats returns the counters.
func (s *Store) Stats() Stats {
	return Stats{
		Requests: s.groups.requests.Load(), Writes: s.stats.writes.Load(), Rows: s.stats.rows.Load(),
		Unknown: s.stats.unknown.Load(), Rejected: s.stats.rejected.Load(), ReadErrors: s.stats.readErrors.Load(),
	}
}

// begin lets an operation start unless the store is closed; end must follow.
func (s *Store) begin() error {
	s.life.RLock()
	defer s.life.RUnlock()
	if s.closed {
		return persistence.ErrClosed
	}
	s.pending.Add(1)
	return nil
}

func (s *Store) end() { s.pending.Done() }

// Close waits for what is under way, at most about two timeouts, and closes the connections.
func (s *Store) Close() error {
	s.life.Lock()
	was := s.closed
	s.closed = true
	s.life.Unlock()
	if was {
		return fmt.Errorf("close: %w", persistence.ErrClosed)
	}
	s.pending.Wait()
	s.session.Close()
	return nil
}
