package routing

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"licensed/cluster/membership"
	"licensed/messages/clusterv1"
	"licensed/persistence"
)

// Status is the status of a member, as it says itself. Exactly one of Response and Err is
// set.
type Status struct {
	Member membership.Member
	// Response of the member, or Err why there is none.
	Response *clusterv1.StatusResponse
	Err      error
}

// Statuses asks all members for their status, this process among them, and returns the answers in the order
// of their names. It takes no longer than StatusTimeout.
func (r *Router) Statuses(ctx context.Context) []Status {
	var listed []membership.Member
	for _, m := range r.members.Load().listed {
		if m.Name != r.config.Name || r.config.Self != nil {
			listed = append(listed, m)
		}
	}
	return r.StatusesOf(ctx, listed)
}

// StatusesOf asks processes for their status, as Statuses does, whether they are listed or not.
func (r *Router) StatusesOf(ctx context.Context, members []membership.Member) []Status {
	ctx, cancel := context.WithTimeout(ctx, r.config.StatusTimeout)
	defer cancel()
	all := make([]Status, len(members))
	var asked sync.WaitGroup
	for i, m := range members {
		s := &all[i]
		s.Member = m
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

// Knows reports whether an incarnation is that of a listed member, and is not known to be dead.
func (r *Router) Knows(i persistence.Incarnation) bool {
	_, ok := r.members.Load().byIncarnation[i]
	return ok
}

// Drain asks a member, by its name, to hand over all shards and to leave. It returns when
// that is begun. Errors: that of the transport, and one for a name that no member has.
func (r *Router) Drain(ctx context.Context, name string) error {
	return r.direct(ctx, name, Self.Drain, r.config.Transport.Drain)
}

// Undrain asks a member to take shards again after a Drain. It returns when that is begun.
func (r *Router) Undrain(ctx context.Context, name string) error {
	return r.direct(ctx, name, Self.Undrain, r.config.Transport.Undrain)
}

// direct has a member do something: this process, or another.
func (r *Router) direct(
	ctx context.Context, name string, self func(Self, context.Context) error, other func(context.Context, string) error,
) error {
	if name == r.config.Name && r.config.Self != nil {
		return self(r.config.Self, ctx)
	}
	address, ok := r.members.Load().all[name]
	if !ok {
		return fmt.Errorf("the cluster has no member %q", name)
	}
	return other(ctx, address)
}
