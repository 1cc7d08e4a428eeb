package host

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/actors"
	"licensed/gateway"
	"licensed/internal/customers"
	"licensed/internal/payload"
	"licensed/messages/licensedv1"
	"licensed/messages/nodev1"
	"licensed/persistence"
	"licensed/persistence/archive"
	"licensed/persistence/doctor"
)

// Operate implements cluster.Host: each request may be executed twice without harm.
func (h *Host) Operate(ctx context.Context, customer string, request any) (actors.Answer, error) {
	// The id came from another process, which may be of another release.
	if err := checkForeign(customer, nil); err != nil {
		return actors.Answer{}, err
	}
	switch r := request.(type) {
	case *nodev1.PassivateRequest:
		resident, evicted := h.Passivate(ctx, customer)
		return actors.Answer{Value: &nodev1.PassivateResponse{Resident: resident, Evicted: evicted}}, nil
	case *nodev1.ArchiveRequest:
		return h.archive(ctx, customer, r)
	case *nodev1.ImportRequest:
		return h.importHistory(ctx, customer, r)
	case *nodev1.ForgetRequest:
		return h.forget(ctx, customer)
	}
	return actors.Answer{}, fmt.Errorf("%w: operator's request %T", actors.ErrNotSupported, request)
}

// Query implements cluster.Host.
func (h *Host) Query(ctx context.Context, customer string, query any) (answer actors.Answer, err error) {
	if err := checkForeign(customer, nil); err != nil {
		return actors.Answer{}, err
	}
	ctx, end := h.hosts.Tracer.Request(ctx, customers.Aggregate(customer), "")
	// Questions about the end of a history are answered without loading the customer.
	headOnly := false
	switch q := query.(type) {
	case actors.HeadQuery:
		headOnly = !q.Closed
	case actors.SnapshotQuery:
		headOnly = q.InMemory && !h.Resident(customer)
	}
	if headOnly {
		answer.Head, err = h.head(ctx, customer)
	} else {
		answer, err = h.Runtime.Query(ctx, customer, query)
	}
	end(err)
	return answer, err
}

// head returns where a customer's history ends, without loading the customer if that can be told from the store.
func (h *Host) head(ctx context.Context, customer string) (persistence.Head, error) {
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
func (h *Host) damagedHead(ctx context.Context, customer string) (persistence.Head, bool) {
	head, err := doctor.Recover(ctx, h.hosts.Storage.Hot, customers.Aggregate(customer))
	shard := h.authority.Shard(customers.Aggregate(customer))
	epoch, held := h.authority.Epoch(shard)
	return head, err == nil && held && h.authority.Holds(shard, epoch)
}

// archive moves the closed part of a customer's history to the archive.
func (h *Host) archive(ctx context.Context, customer string, r *nodev1.ArchiveRequest) (actors.Answer, error) {
	w := h.archiver.Load()
	// No archive, or not started yet.
	if w == nil {
		return actors.Answer{}, gateway.ErrUnsupported
	}
	res, err := w.Archive(ctx, customers.Aggregate(customer), r.All)
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

// forget removes a customer for good, as actors.Forgetting says.
func (h *Host) forget(ctx context.Context, customer string) (actors.Answer, error) {
	aggregate := customers.Aggregate(customer)
	shard := h.authority.Shard(aggregate)
	epoch, held := h.authority.Epoch(shard)
	if !held {
		return actors.Answer{}, actors.ErrNotOwner
	}
	select {
	case h.forgetting <- struct{}{}:
		defer func() { <-h.forgetting }()
	case <-ctx.Done():
		return actors.Answer{}, ctx.Err()
	}
	storage := h.hosts.Storage
	f := actors.Forgetting{
		Store: storage.Hot, Archive: storage.Cold, Now: h.hosts.Now,
		End: func(ctx context.Context, cause error) error {
			if err := h.End(ctx, customer, cause); err != nil {
				return err
			}
			if w := h.archiver.Load(); w != nil {
				return w.Await(ctx, aggregate)
			}
			return nil
		},
		// As for the archiver: the confirmation comes first.
		Held: func(ctx context.Context) bool { return h.hosts.Confirmed(ctx) && h.authority.Holds(shard, epoch) },
	}
	done, err := f.Forget(ctx, aggregate)
	if err != nil {
		return actors.Answer{}, err
	}
	h.hosts.forgetScan(aggregate)
	return actors.Answer{Value: &licensedv1.ForgetCustomerResponse{
		ForgottenAt: timestamppb.New(done.Time), Before: done.Before,
		Roots: uint64(done.Removed.Roots), Events: uint64(done.Removed.Records),
		Segments:  uint64(done.Removed.Segments),
		Tombstone: done.Key.String(), Remains: storage.Remains(),
	}}, nil
}

// importHistory records a stretch of history, as actors.Import says.
func (h *Host) importHistory(ctx context.Context, customer string, r *nodev1.ImportRequest) (actors.Answer, error) {
	i, err := payload.Import(r)
	if err != nil {
		return actors.Answer{}, err
	}
	head, err := h.Import(ctx, customer, i)
	answer, ok := payload.ImportResponse(err)
	if !ok {
		return actors.Answer{}, err
	}
	return actors.Answer{Value: answer, Head: head}, nil
}
