package node

import (
	"context"
	"errors"
	"fmt"

	"licensed/actors"
	"licensed/gateway"
	"licensed/internal/customers"
	"licensed/messages/licensedv1"
	"licensed/persistence"
	"licensed/persistence/archive"
	"licensed/persistence/doctor"
)

// An errand is what operators ask of a customer's owner, whichever process that is. It goes the way of
// queries, and is done by the owner's host; each may be done twice without harm.
type errand interface {
	run(ctx context.Context, h *host, customer string) (actors.Answer, error)
}

// Query implements cluster.Host.
func (h *host) Query(ctx context.Context, customer string, query any) (actors.Answer, error) {
	if err := checkForeign(customer, nil); err != nil {
		return actors.Answer{}, err
	}
	if e, ok := query.(errand); ok {
		return e.run(ctx, h, customer)
	}
	ctx, end := h.node.tracer.Request(ctx, customers.Aggregate(customer), "")
	var answer actors.Answer
	var err error
	switch q := query.(type) {
	case actors.HeadQuery:
		if q.Closed {
			answer, err = h.Runtime.Query(ctx, customer, query)
			break
		}
		answer.Head, err = h.head(ctx, customer)
	case actors.SnapshotQuery:
		if q.InMemory && !h.Resident(customer) {
			answer.Head, err = h.head(ctx, customer)
			break
		}
		answer, err = h.Runtime.Query(ctx, customer, query)
	default:
		answer, err = h.Runtime.Query(ctx, customer, query)
	}
	end(err)
	return answer, err
}

// head returns where a customer's history ends, without loading the customer if that can be told from the store.
func (h *host) head(ctx context.Context, customer string) (persistence.Head, error) {
	head, err := h.Head(ctx, customer)
	if errors.Is(err, actors.ErrCorrupt) {
		if damaged, ok := h.damagedHead(ctx, customer); ok {
			return damaged, nil
		}
	}
	return head, err
}

// damagedHead returns where the stored history ends of a customer that cannot be loaded, so that what is left of it
// can be read and examined. Nothing is decided on it, so nothing can be added to it meanwhile by this owner.
func (h *host) damagedHead(ctx context.Context, customer string) (persistence.Head, bool) {
	head, err := doctor.Recover(ctx, h.node.storage.Hot, customers.Aggregate(customer))
	shard := h.authority.Shard(customers.Aggregate(customer))
	epoch, held := h.authority.Epoch(shard)
	return head, err == nil && held && h.authority.Holds(shard, epoch)
}

// do has the request executed by the customer's owner.
func do[A any](ctx context.Context, n *Node, customer string, e errand) (answer A, head persistence.Head, err error) {
	a, err := n.aggregates.Query(ctx, customer, e)
	if err != nil {
		return answer, head, err
	}
	answer, ok := a.Value.(A)
	if !ok {
		return answer, head, fmt.Errorf("request %T was answered by %T", e, a.Value)
	}
	return answer, a.Head, nil
}

// passivateErrand takes a customer out of memory, unless it is active.
type passivateErrand struct{}

// passivated answers it.
type passivated struct {
	Resident bool `json:"resident"` // before
	Left     bool `json:"left"`
}

func (*passivateErrand) run(ctx context.Context, h *host, customer string) (actors.Answer, error) {
	resident, left := h.Passivate(ctx, customer)
	return actors.Answer{Value: &passivated{resident, left}}, nil
}

// archiveErrand moves the closed part of a customer's history to the archive.
type archiveErrand struct {
	All bool `json:"all"`
}

func (e *archiveErrand) run(ctx context.Context, h *host, customer string) (actors.Answer, error) {
	w := h.archiver.Load()
	if w == nil {
		return actors.Answer{}, gateway.ErrUnsupported
	}
	res, err := w.Archive(ctx, customers.Aggregate(customer), e.All)
	if errors.Is(err, archive.ErrNotHeld) { // The next owner can continue with it.
		err = fmt.Errorf("%w: %w", actors.ErrNotOwner, err)
	}
	if err != nil {
		return actors.Answer{}, err
	}
	return actors.Answer{Value: &licensedv1.ArchiveCustomerResponse{
		Partitions: uint64(res.Partitions), Events: uint64(res.Records), Segments: uint64(res.Segments),
		SegmentBytes: uint64(res.Bytes), Through: res.Through,
	}}, nil
}

// importErrand records a stretch of history, as actors.Import says.
type importErrand struct {
	After   uint64   `json:"after"`
	Records [][]byte `json:"records"` // as persistence.AppendRecord writes them
	End     bool     `json:"end"`
}

// imported answers it. The errors of an import say more than that it failed, so they are answers.
type imported struct {
	NotContinued string `json:"notContinued,omitempty"`
	NoHistory    string `json:"noHistory,omitempty"`
}

func newImportErrand(i actors.Import) *importErrand {
	e := &importErrand{After: i.After, End: i.End}
	for n := range i.Records {
		e.Records = append(e.Records, persistence.AppendRecord(nil, &i.Records[n]))
	}
	return e
}

func (e *importErrand) run(ctx context.Context, h *host, customer string) (actors.Answer, error) {
	i := actors.Import{After: e.After, End: e.End}
	for _, b := range e.Records {
		r, err := persistence.DecodeRecord(b)
		if err != nil {
			return actors.Answer{}, err
		}
		i.Records = append(i.Records, r)
	}
	head, err := h.Import(ctx, customer, i)
	switch {
	case errors.Is(err, actors.ErrNotContinued):
		return actors.Answer{Value: &imported{NotContinued: err.Error()}, Head: head}, nil
	case errors.Is(err, actors.ErrNoHistory):
		return actors.Answer{Value: &imported{NoHistory: err.Error()}}, nil
	}
	return actors.Answer{Value: &imported{}, Head: head}, err
}

// remoteError is an error as its message came from the owner.
type remoteError struct {
	text string
	is   error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.is }

// err returns what became of an import as actors.Runtime tells it.
func (i *imported) err() error {
	switch {
	case i.NotContinued != "":
		return &remoteError{i.NotContinued, actors.ErrNotContinued}
	case i.NoHistory != "":
		return &remoteError{i.NoHistory, actors.ErrNoHistory}
	}
	return nil
}
