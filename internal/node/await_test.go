package node_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"licensed/internal/node"
	"licensed/persistence"
	"licensed/persistence/memory"
)

// away is a store that fails the first calls that a process makes when it starts.
type away struct {
	persistence.Store
	err   error
	left  atomic.Int64
	calls atomic.Int64
}

func (s *away) CreateCluster(ctx context.Context, want persistence.ClusterInfo) (persistence.ClusterInfo, error) {
	s.calls.Add(1)
	if s.left.Add(-1) >= 0 {
		return persistence.ClusterInfo{}, s.err
	}
	return s.Store.CreateCluster(ctx, want)
}

// TestStoreAway starts processes whose store cannot be reached yet.
func TestStoreAway(t *testing.T) {
	for name, test := range map[string]struct {
		err   error
		left  int64
		wait  time.Duration
		calls int64
		fails string
	}{
		"comes back":        {persistence.ErrUnavailable, 2, time.Minute, 3, ""},
		"nobody knows":      {persistence.ErrUnknownOutcome, 1, time.Minute, 2, ""},
		"stays away":        {persistence.ErrUnavailable, 1 << 40, 500 * time.Millisecond, 1, "store unavailable"},
		"nobody waits":      {persistence.ErrUnavailable, 1, 0, 1, "store unavailable"},
		"waiting is no use": {errors.New("no such user"), 1, time.Minute, 1, "no such user"},
	} {
		for role, roles := range map[string]node.Roles{"node": node.RoleNode, "gateway": node.RoleGateway} {
			t.Run(name+"/"+role, func(t *testing.T) {
				store := &away{Store: memory.New(), err: test.err}
				store.left.Store(test.left)
				c := newCompany(t)
				c.store = store.Store
				if roles == node.RoleGateway { // It is ready when there is a node.
					c.start("n1", node.RoleNode)
				}
				config := c.config("n2", roles)
				config.Share(store)
				config.StoreWait = test.wait
				config.Logger = slog.New(slog.NewTextHandler(outputOf(t), nil))
				n, err := node.Start(t.Context(), config)
				if err == nil {
					defer func() {
						if err := n.Stop(context.Background()); err != nil {
							t.Errorf("stop: %v", err)
						}
					}()
				}
				if (err != nil) != (test.fails != "") || err != nil && !strings.Contains(err.Error(), test.fails) {
					t.Errorf("error %v, want %q", err, test.fails)
				}
				if calls := store.calls.Load(); calls < test.calls || test.fails == "" && calls != test.calls {
					t.Errorf("%d calls, want %d", calls, test.calls)
				}
			})
		}
	}
}

// forgetful is a store that does not list leases for a while once a process has a lease.
type forgetful struct {
	persistence.Store
	leased atomic.Bool
	failed atomic.Int64
}

func (s *forgetful) CompareAndSetLease(
	ctx context.Context, old, next persistence.Lease,
) (bool, persistence.Lease, error) {
	defer s.leased.Store(true)
	return s.Store.CompareAndSetLease(ctx, old, next)
}

func (s *forgetful) Leases(ctx context.Context) ([]persistence.Lease, error) {
	if s.leased.Load() && s.failed.Add(1) <= 4 {
		return nil, persistence.ErrUnavailable
	}
	return s.Store.Leases(ctx)
}

// TestStoreAwayForName: a node that has its lease waits for the store when it looks for other processes of its name.
func TestStoreAwayForName(t *testing.T) {
	c := newCompany(t)
	store := &forgetful{Store: c.store}
	config := c.config("n1", node.RoleNode)
	config.Share(store)
	config.StoreWait = time.Minute
	n, err := node.Start(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Stop(context.Background()); err != nil {
		t.Error(err)
	}
	if store.failed.Load() == 0 {
		t.Error("no list of leases failed")
	}
}
