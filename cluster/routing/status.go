package routing

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"licensed/cluster/membership"
	"licensed/messages/clusterv1"
)

// Status is how a member does, as it says itself.
type Status struct {
	Member membership.Member
	// Response of the member, or Err why there is none.
	Response *clusterv1.StatusResponse
	Err      error
}

// Statuses asks all members how they do, this process among them, and returns what they said in the order
// of their names. It takes no longer than StatusTimeout.
func (r *Router) Statuses(ctx context.Context) []Status {
	ctx, cancel := context.WithTimeout(ctx, r.config.StatusTimeout)
	defer cancel()
	var all []Status
	for _, m := range r.cast.Load().members {
		if m.Name != r.config.Name || r.config.Self != nil {
			all = append(all, Status{Member: m})
		}
	}
	var asked sync.WaitGroup
	for i := range all {
		s := &all[i]
		asked.Go(func() {
			if s.Member.Name == r.config.Name {
				s.Response, s.Err = r.config.Self.Status(ctx)
				return
			}
			s.Response, s.Err = r.config.Transport.Status(ctx, s.Member.Meta.GetNodeAddress())
		})
	}
	asked.Wait()
	slices.SortFunc(all, func(a, b Status) int { return strings.Compare(a.Member.Name, b.Member.Name) })
	return all
}

// Drain asks a member to hand over all shards and to leave. It returns when that is begun.
func (r *Router) Drain(ctx context.Context, name string) error {
	if name == r.config.Name && r.config.Self != nil {
		return r.config.Self.Drain(ctx)
	}
	address, ok := r.cast.Load().all[name]
	if !ok {
		return fmt.Errorf("there is no member %q", name)
	}
	return r.config.Transport.Drain(ctx, address)
}
