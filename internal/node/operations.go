package node

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/actors"
	"licensed/actors/license"
	"licensed/actors/license/policy/policyfile"
	"licensed/gateway"
	"licensed/internal/customers"
	"licensed/internal/member"
	"licensed/internal/payload"
	"licensed/internal/status"
	"licensed/internal/version"
	"licensed/messages/licensedv1"
	"licensed/messages/nodev1"
	"licensed/persistence"
)

// operations is what operators ask of a node. It implements gateway.Operations.
type operations struct{ n *Node }

// Node implements gateway.Operations.
func (o *operations) Node(ctx context.Context) (*licensedv1.GetNodeResponse, error) {
	stats := o.n.hosts.Stats()
	held, lowest, highest := o.n.shards.Held()
	return &licensedv1.GetNodeResponse{
		Name:        o.n.name,
		Incarnation: status.IncarnationText(o.n.shards.Incarnation()),
		Version:     version.Version(),
		GoVersion:   runtime.Version(),
		StartedAt:   timestamppb.New(o.n.started), Uptime: durationpb.New(o.n.config.Now().Sub(o.n.started)),
		ResidentCustomers: uint64(stats.Resident),
		UnpackedCustomers: uint64(stats.Unpacked),
		ResidentBytes:     uint64(stats.ResidentBytes),
		RequestsInFlight:  uint64(stats.InFlight),
		Shards:            o.n.shards.Shards(), ShardsHeld: uint32(held), LowestEpoch: lowest, HighestEpoch: highest,
		PolicyVersion: o.n.policy.Version(), PolicySource: o.n.policy.Name(),
		PolicyLimits: license.Limits(o.n.policy.Kind().Policy()), Store: o.n.storage.Status(ctx),
		Archive: o.n.hosts.ArchiveStatus(),
	}, nil
}

// Drain implements gateway.Operations.
func (o *operations) Drain(ctx context.Context, name string) error {
	m, err := o.holder(name)
	if err != nil {
		return fmt.Errorf("drain %s: %w", name, err)
	}
	return m.Router.Drain(ctx, name)
}

// Undrain implements gateway.Operations.
func (o *operations) Undrain(ctx context.Context, name string) error {
	m, err := o.holder(name)
	if err != nil {
		return fmt.Errorf("undrain %s: %w", name, err)
	}
	return m.Router.Undrain(ctx, name)
}

// holder returns this process as a member if the member of that name is one that holds shards.
func (o *operations) holder(name string) (*member.Self, error) {
	m, ok := o.n.member.Get()
	switch {
	case !ok:
		return nil, gateway.ErrUnsupported
	case name != o.n.name && !o.n.members.Has(name):
		return nil, gateway.ErrNoMember
	case !o.n.holds(name):
		return nil, gateway.ErrHoldsNothing
	}
	return m, nil
}

// holds reports whether this process, or a member of that name, is one that holds shards.
func (n *Node) holds(name string) bool {
	if name == n.name {
		_, ok := n.owner.Get()
		return ok
	}
	return n.members.IsNode(name)
}

// Customers implements gateway.Operations.
func (o *operations) Customers(ctx context.Context, after string, limit int) ([]string, error) {
	return customers.List(ctx, o.n.storage.Hot, after, limit)
}

// request sends an operator's request to the customer's owner, whichever process that is.
func request[A proto.Message](
	ctx context.Context, aggregates aggregates, customer string, r proto.Message,
) (answer A, head persistence.Head, err error) {
	// The reply may come from a process of another release.
	a, err := aggregates.Operate(ctx, customer, r)
	if err != nil {
		return answer, head, err
	}
	answer, ok := a.Value.(A)
	if !ok {
		return answer, head, fmt.Errorf("request %T was answered by %T", r, a.Value)
	}
	return answer, a.Head, nil
}

// Passivate implements gateway.Operations.
func (o *operations) Passivate(ctx context.Context, customer string) (resident, left bool, err error) {
	r, _, err := request[*nodev1.PassivateResponse](ctx, o.n.aggregates, customer, &nodev1.PassivateRequest{})
	return r.GetResident(), r.GetEvicted(), err
}

// Archive implements gateway.Operations.
func (o *operations) Archive(
	ctx context.Context, customer string, all bool,
) (*licensedv1.ArchiveCustomerResponse, error) {
	if o.n.storage.Cold == nil {
		return nil, gateway.ErrUnsupported
	}
	// The owner is asked, since only it knows where the history ends.
	answer, err := o.n.aggregates.Query(ctx, customer, actors.HeadQuery{})
	if err != nil {
		return nil, err
	}
	if answer.Head.Sequence == 0 {
		return nil, fmt.Errorf("history of %s: %w", customer, persistence.ErrNotFound)
	}
	res, _, err := request[*licensedv1.ArchiveCustomerResponse](ctx, o.n.aggregates, customer,
		&nodev1.ArchiveRequest{All: all})
	return res, err
}

// Import implements gateway.Operations.
func (o *operations) Import(ctx context.Context, customer string, i actors.Import) (persistence.Head, error) {
	r, head, err := request[*nodev1.ImportResponse](ctx, o.n.aggregates, customer, payload.ImportRequest(i))
	if err == nil {
		err = payload.ImportError(r)
	}
	return head, err
}

// Forget implements gateway.Operations. Only an id that its owner takes for a new customer is unknown: one that was
// forgotten, or that cannot be read, is not.
func (o *operations) Forget(
	ctx context.Context, customer string, evenIfUnknown bool,
) (*licensedv1.ForgetCustomerResponse, error) {
	if !evenIfUnknown {
		answer, err := o.n.aggregates.Query(ctx, customer, actors.HeadQuery{})
		switch {
		case errors.Is(err, actors.ErrForgotten), errors.Is(err, actors.ErrCorrupt), errors.Is(err, actors.ErrPanic),
			errors.Is(err, actors.ErrImporting):
		case err != nil:
			return nil, err
		case answer.Head.Sequence == 0:
			return nil, fmt.Errorf("history of %s: %w", customer, persistence.ErrNotFound)
		}
	}
	res, _, err := request[*licensedv1.ForgetCustomerResponse](ctx, o.n.aggregates, customer, &nodev1.ForgetRequest{})
	return res, err
}

// ReloadPolicy implements gateway.Operations.
func (o *operations) ReloadPolicy(ctx context.Context) (version string, changed bool, err error) {
	changed, err = o.n.policy.ReloadNow(ctx)
	if errors.Is(err, policyfile.ErrNoFile) {
		err = gateway.ErrUnsupported
	}
	return o.n.policy.Version(), changed, err
}

// Verify implements gateway.Operations.
func (o *operations) Verify(
	ctx context.Context, customer string, repair bool, progress func(checked, total uint64) error,
) (*licensedv1.CustomerReport, error) {
	n := o.n
	v := customers.Verifier{
		Query: n.aggregates.Query, Hot: n.storage.Hot, Cold: n.storage.Cold, Kind: n.policy.Kind(), Now: n.config.Now,
	}
	return v.Verify(ctx, customer, repair, progress)
}
