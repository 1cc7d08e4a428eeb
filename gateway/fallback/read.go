package fallback

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"licensed/actors"
	"licensed/actors/license"
	"licensed/internal/caller"
	"licensed/internal/planted"
	"licensed/messages/licensedv1"
	"licensed/persistence"
)

// Source is where an answer is from.
type Source uint8

// Sources.
const (
	// FromOwner: the answer is current.
	FromOwner Source = iota
	// FromStore: from the history in the store. It has all that was acknowledged before it was read.
	FromStore
	// FromFormer: the gateway gave it before.
	FromFormer
)

// String returns the value of the metrics' label.
func (s Source) String() string {
	switch s {
	case FromOwner:
		return "owner"
	case FromStore:
		return "store"
	case FromFormer:
		return "former_answer"
	default:
		return fmt.Sprintf("Source(%d)", uint8(s))
	}
}

// Answer is the answer to a question about a customer.
type Answer struct {
	actors.Answer
	Source Source
	// AsOf is the time before which all that was acknowledged is in the answer, by the gateway's clock.
	AsOf time.Time
}

// storeBreaker is the key of the breaker of the gateway's own reads of the store. No process has this incarnation.
var storeBreaker = breakerKey{owner: persistence.Incarnation{15: 1}, read: true}

// Read answers a question: by the owner; if that is unavailable, from the store, for which stored is called; and if
// that is unavailable too, as it was answered before. An answer that is not the owner's is as old as maxAge at most;
// with 0 only the owner is asked, and has all the time of the question. A question never waits to find out whether the
// owner is back: one that is asked in the background does. Errors: those of the owner.
func (f *Fallback) Read(
	ctx context.Context, customer string, q *licensedv1.Query, maxAge time.Duration,
	stored func(ctx context.Context) (actors.Answer, error),
) (Answer, error) {
	b := f.breakers.of(breakerKey{f.config.Owner(customer), true})
	ask := func(ctx context.Context) (actors.Answer, error) { return f.config.Query(ctx, customer, q) }
	patience, most := f.config.Patience, longest(ctx)
	if maxAge <= 0 {
		patience, most = f.config.Timeout, f.config.Timeout
	}
	a, err := f.readFrom(ctx, b, FromOwner, patience, most, ask)
	if err == nil {
		f.former.add(customer, q, a)
		return a, nil
	}
	if errors.Is(err, actors.ErrForgotten) {
		f.Forget(customer)
	}
	if !Unavailable(err) || ctx.Err() != nil {
		return Answer{}, err
	}
	if maxAge <= 0 && !planted.Bug(planted.AnswerStaleUnasked) {
		f.metrics.unanswered.Inc()
		return Answer{}, err
	}
	if stored != nil {
		a, failed := f.readFrom(ctx, f.breakers.of(storeBreaker), FromStore, f.config.Patience, longest(ctx), stored)
		if failed == nil {
			f.metrics.stale.WithLabelValues(FromStore.String()).Inc()
			return a, nil
		}
		if errors.Is(failed, actors.ErrForgotten) {
			f.Forget(customer)
			return Answer{}, failed
		}
	}
	if a, ok := f.former.get(customer, q, f.config.Now(), maxAge); ok {
		f.metrics.stale.WithLabelValues(FromFormer.String()).Inc()
		return a, nil
	}
	f.metrics.unanswered.Inc()
	return Answer{}, err
}

// readFrom asks a source. It waits for at most that long, and for the patience if the source answers nobody. If others
// failed to ask it just now, that is an error at once.
func (f *Fallback) readFrom(
	ctx context.Context, b *breaker, source Source, patience, most time.Duration,
	ask func(ctx context.Context) (actors.Answer, error),
) (Answer, error) {
	if !b.IsClosed() {
		f.probe(ctx, b, ask)
		return Answer{}, fmt.Errorf("%w: %w", actors.ErrUnavailable, ErrOpen)
	}
	at := f.config.Now()
	limited, done := b.limit(ctx, patience, most)
	defer done()
	a, err := ask(limited)
	f.record(ctx, b, err)
	if err == nil {
		b.heard()
	}
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		err = f.late(err)
	}
	return Answer{a, source, at}, err
}

// probe asks a source in the background whether it is back, at most twice a second. It asks for the caller of the
// question: the owner decides about the probe as about the question.
func (f *Fallback) probe(ctx context.Context, b *breaker, ask func(ctx context.Context) (actors.Answer, error)) {
	if !b.TryAcquirePermit() {
		return
	}
	asking := f.running
	if by := caller.FromContext(ctx); by != nil {
		by := *by // The question may end first, and its caller with it.
		asking = caller.NewContext(asking, &by)
	}
	go func() {
		ctx, cancel := context.WithTimeout(asking, min(f.config.Timeout, probeTimeout))
		defer cancel()
		_, err := ask(ctx)
		f.record(ctx, b, err)
	}()
}

// messageOf returns the message of an answer of the owner; nil if it cannot be kept.
func messageOf(value any) proto.Message {
	switch v := value.(type) {
	case *license.Downloads:
		if v.Older { // The list is made of the history.
			return nil
		}
		return v.Response
	case proto.Message:
		return v
	}
	return nil
}

// answerTo returns an empty message for the answer to a question, nil if it is not known, and the value of an answer
// with it.
func answerTo(q *licensedv1.Query) (m proto.Message, value any) {
	switch q.GetQuery().(type) {
	case *licensedv1.Query_ListLicenses:
		m = &licensedv1.ListLicensesResponse{}
	case *licensedv1.Query_ListDevices:
		m = &licensedv1.ListDevicesResponse{}
	case *licensedv1.Query_GetCustomer:
		m = &licensedv1.GetCustomerResponse{}
	case *licensedv1.Query_ListDownloads:
		d := &licensedv1.ListDownloadsResponse{}
		return d, &license.Downloads{Response: d}
	}
	return m, m
}
