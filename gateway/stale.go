package gateway

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/actors"
	"licensed/gateway/auth"
	"licensed/gateway/fallback"
	"licensed/internal/caller"
	"licensed/internal/planted"
	"licensed/messages/licensedv1"
)

// FallbackStatus returns what the gateway has deferred; nil for a gateway without fallbacks.
func (g *Gateway) FallbackStatus() *licensedv1.FallbackFigures {
	if g.config.Fallback == nil {
		return nil
	}
	return g.config.Fallback.Status()
}

// read asks a question about a customer. An answer that is not current is as old as maxAge at most, and stale tells
// its age; stale is nil if the answer is current. Errors: those of the owner.
// Whether the caller may ask is decided here as the owner does it: the owner has no part in answers that are stale.
func (g *Gateway) read(
	ctx context.Context, customer string, q *licensedv1.Query, maxAge time.Duration,
) (answer actors.Answer, stale *licensedv1.Stale, err error) {
	if g.config.Authenticator != nil {
		d := auth.AuthorizeCaller(g.config.Authorizer, caller.FromContext(ctx), auth.MethodOf(q), customer)
		if !d.Allowed {
			g.metrics.denied.WithLabelValues(string(d.Denial)).Inc()
			return answer, nil, &actors.DeniedError{Text: d.Text}
		}
	}
	if g.config.Fallback == nil {
		answer, err = g.aggregates.Query(ctx, customer, q)
		return answer, nil, err
	}
	a, err := g.config.Fallback.Read(ctx, customer, q, maxAge, func(ctx context.Context) (actors.Answer, error) {
		return g.stored(ctx, customer, q)
	})
	if err != nil || a.Source == fallback.FromOwner || planted.Bug(planted.AnswerStaleAsCurrent) {
		return a.Answer, nil, err
	}
	stale = &licensedv1.Stale{AsOf: timestamppb.New(a.AsOf), Source: licensedv1.StaleSource_STALE_SOURCE_STORE}
	if a.Source == fallback.FromFormer {
		stale.Source = licensedv1.StaleSource_STALE_SOURCE_FORMER_ANSWER
	}
	return a.Answer, stale, nil
}

// stored answers a question from what the store has, without the owner. Errors: persistence.ErrUnavailable,
// actors.ErrCorrupt, actors.ErrImporting, and ctx's.
func (g *Gateway) stored(ctx context.Context, customer string, q *licensedv1.Query) (actors.Answer, error) {
	if g.config.StoredHead == nil {
		return actors.Answer{}, actors.ErrUnavailable
	}
	head, err := g.config.StoredHead(ctx, customer)
	if err != nil {
		return actors.Answer{}, err
	}
	r := &replayed{
		Replay: actors.NewReplay(g.config.Kind, customer), customer: customer, moment: &licensedv1.Moment{},
	}
	var gap *historyGap
	err = (&historyService{g}).replayTo(ctx, head, point{}, r)
	if errors.As(err, &gap) && gap.Reason == licensedv1.GapReason_GAP_REASON_UNAVAILABLE {
		err = actors.ErrUnavailable
	}
	if err != nil {
		return actors.Answer{}, err
	}
	now := g.config.Now()
	if now.Before(r.Time()) {
		now = r.Time()
	}
	value, err := r.Aggregate().Query(now, q)
	return actors.Answer{Value: value, Head: head}, err
}
