package gateway

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/actors"
	"licensed/actors/license"
	"licensed/actors/license/policy"
	"licensed/messages/licensedv1"
	"licensed/persistence"
)

// point is a point of a history: after an event, after all events up to a time, or now.
// At most one of the two fields is set.
type point struct {
	sequence uint64
	time     time.Time
	// known is the time by which all that counts was recorded; with time only. Facts that occurred by time and were
	// recorded after it count up to then. Zero: all are known. Otherwise it is not before time's events: see until.
	known time.Time
}

// until returns the time of the last event that counts whenever it occurred.
func (p point) until() time.Time {
	if !p.known.IsZero() && p.known.Before(p.time) {
		return p.known
	}
	return p.time
}

// knownBy checks a time by which what counts was recorded, and returns the point with it.
func (v *violations) knownBy(p point, at *timestamppb.Timestamp) point {
	p.known = v.moment("known_at", at)
	if p.sequence > 0 && at != nil {
		v.add("known_at", "needs a time, not a sequence")
	}
	if p.time.IsZero() {
		p.time = p.known
	}
	return p
}

// pointOf checks the point that a request names; nil stands for none.
func pointOf(v *violations, sequence *uint64, at *timestamppb.Timestamp) (p point) {
	if sequence != nil {
		if p.sequence = *sequence; p.sequence == 0 {
			v.add("sequence", "must be at least 1")
		}
	}
	p.time = v.moment("time", at)
	return p
}

// moment checks an optional time that history is looked at from, and returns it; zero if it is absent.
func (v *violations) moment(field string, at *timestamppb.Timestamp) time.Time {
	t := v.timestamp(field, at)
	if t.Year() > latestYear {
		v.add(field, fmt.Sprintf("is later than the year %d", latestYear))
	}
	return t
}

// latestYear is until when a moment may lie: what is decided there ends later, and must be a time still.
const latestYear = 9990

// replayed is a customer as of a point. The replay is of this request alone, and never of
// the customer in memory.
type replayed struct {
	*actors.Replay
	customer string
	// What is reported about the point; filled while the replay proceeds.
	moment *licensedv1.Moment
	// The time at which the state is looked at and commands are tried: that of the event,
	// the time asked for, or now; never before the last event.
	asOf time.Time
	// started is the time of the root whose snapshot the replay began at.
	started time.Time
	gaps    []*licensedv1.HistoryGap // before the point, which the replay therefore did not reach
}

// replay brings a customer to a point of its history. If events before it are damaged, it
// is an error; or, with left set, the replay ends before them. Errors: connect.Error,
// also for a point after the end of the history.
func (s *historyService) replay(ctx context.Context, customer string, p point, left bool) (*replayed, error) {
	head, err := s.head(ctx, customer)
	if err != nil {
		return nil, s.failed(ctx, customer, err, false)
	}
	switch {
	case p.sequence > 0 && head.Sequence == 0:
		return nil, noHistory(customer)
	case p.sequence > head.Sequence:
		return nil, apiError(connect.CodeOutOfRange, licensedv1.ReasonPastEnd,
			fmt.Sprintf("the history of customer %s ends at event %d", customer, head.Sequence))
	}
	r := &replayed{
		Replay: actors.NewReplay(s.config.Kind, customer), customer: customer,
		moment: &licensedv1.Moment{HeadSequence: head.Sequence, PolicyVersion: s.config.PolicyVersion()},
	}
	// Up to two attempts: to the point; and, if events before it are damaged and the
	// caller takes less, to the last event before the damage.
	err = s.replayTo(ctx, head, p, r)
	var gap *historyGap
	if errors.As(err, &gap) && gap.Reason == licensedv1.GapReason_GAP_REASON_CORRUPT && left && gap.FromSequence > 1 {
		// It will not be read later either.
		r.gaps, p = append(r.gaps, gap.HistoryGap), point{sequence: gap.FromSequence - 1}
		// What the first attempt did to the replay is not known.
		again := &replayed{
			Replay: actors.NewReplay(s.config.Kind, customer), customer: customer, moment: r.moment, gaps: r.gaps,
		}
		r.moment.ReplayedEvents, r.moment.ReplayedFrom = 0, 0
		if s.replayTo(ctx, head, p, again) == nil {
			r, err = again, nil
		}
	}
	if errors.As(err, &gap) {
		return nil, gap.apiError()
	}
	if err != nil {
		return nil, s.failed(ctx, customer, err, false)
	}
	r.moment.Sequence = r.Sequence()
	// The time as of which the state is read: licences expire by it.
	switch {
	case p.sequence > 0:
		if r.asOf = r.Time(); r.asOf.IsZero() {
			r.asOf = r.started
		}
	case !p.time.IsZero():
		r.asOf = p.time
	default:
		// A wrong clock must not bring the customer to a time before its last event.
		r.asOf = s.config.Now()
		if r.asOf.Before(r.Time()) {
			r.asOf = r.Time()
		}
	}
	// As events have it: a state shown for a time must be the one that an event of that
	// time would meet.
	r.asOf = r.asOf.UTC().Truncate(time.Millisecond)
	if !r.Time().IsZero() {
		r.moment.EventTime = timestamppb.New(r.Time())
	}
	if !p.known.IsZero() {
		r.moment.KnownAt = timestamppb.New(p.known)
	}
	r.moment.AsOf = timestamppb.New(r.asOf)
	return r, nil
}

// replayTo starts at the last snapshot before the point, so that at least one event is
// applied, which tells time and policy, and applies the events from there. If these
// cannot be read, a snapshot at the very point is used. Errors: historyGap,
// persistence.ErrUnavailable, actors.ErrCorrupt.
func (s *historyService) replayTo(ctx context.Context, head persistence.Head, p point, r *replayed) error {
	through := head.Sequence
	if p.sequence > 0 {
		through = p.sequence
	}
	// before is the first event that must be applied: all snapshots below it do.
	before := through
	if !p.time.IsZero() {
		after, _, err := s.config.HistoryReader.Between(ctx, head, p.until(), time.Time{})
		if err != nil {
			return err
		}
		before = after // all up to there are earlier
	}
	err := s.replayFrom(ctx, head, before, through, p, r)
	var gap *historyGap
	if !errors.As(err, &gap) {
		return err
	}
	// The replay may have applied a part before it met the gap.
	r.Replay, r.moment.ReplayedEvents = actors.NewReplay(s.config.Kind, r.customer), 0
	again := s.replayFrom(ctx, head, before+1, through, p, r)
	if errors.As(again, &gap) {
		return err
	}
	return again
}

// replayFrom starts at the last snapshot with a base below a sequence, and applies the
// events up to through, or up to the time of the point.
func (s *historyService) replayFrom(
	ctx context.Context, head persistence.Head, before, through uint64, p point, r *replayed,
) error {
	if err := s.restoreBefore(ctx, head, before, r); err != nil {
		return err
	}
	late := false
	err := s.config.HistoryReader.Read(ctx, head,
		persistence.HistoryRange{After: r.Sequence(), Through: through}, func(i *persistence.HistoryItem) error {
			if !p.time.IsZero() && (late || i.Gap == nil && i.Record.Time.After(p.until())) {
				late = true
				return s.afterwards(i, p, r)
			}
			if i.Gap != nil {
				return &historyGap{gapOf(i)}
			}
			r.moment.ReplayedEvents++
			r.moment.RecordedPolicyVersion = i.Record.Header.PolicyVersion
			return r.Apply(&i.Record)
		})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// afterwards applies what was recorded after the point and occurred before it. What cannot be read there becomes a gap
// of the replay.
func (s *historyService) afterwards(i *persistence.HistoryItem, p point, r *replayed) error {
	switch {
	case i.Gap != nil:
		r.gaps = append(r.gaps, gapOf(i))
		return nil
	case !p.known.IsZero() && i.Record.Time.After(p.known):
		return errEnough
	case !license.MayBeFact(i.Record.Mapper):
		return nil
	}
	e, err := s.decode(&i.Record)
	if err != nil {
		return err
	}
	if license.ApplyLate(r.Aggregate(), e, p.time) {
		r.moment.LateFacts++
	}
	return nil
}

// restoreBefore starts a replay at the last snapshot with a base below a sequence, if
// there is one. A snapshot that cannot be restored is replaced by a replay of everything.
func (s *historyService) restoreBefore(ctx context.Context, head persistence.Head, sequence uint64, r *replayed) error {
	if sequence == 0 {
		return nil
	}
	root, ok, err := s.config.HistoryReader.SnapshotBefore(ctx, head, sequence)
	if err != nil || !ok {
		return err
	}
	if err := r.Restore(&root); err != nil {
		// Not an error for the client: snapshots only save time.
		s.config.Logger.WarnContext(ctx, "snapshot not restored, replaying from the first event",
			"root", root.Key.String(), "error", err)
		r.Replay = actors.NewReplay(s.config.Kind, r.customer)
	}
	r.moment.ReplayedFrom, r.started = r.Sequence(), root.Time
	return nil
}

// historyGap is a gap where every event is needed.
type historyGap struct{ *licensedv1.HistoryGap }

// Error returns the reason as the reader gave it.
func (g *historyGap) Error() string { return g.Message }

// apiError says what a gap means for a question that needs what is missing.
func (g *historyGap) apiError() error {
	switch g.Reason {
	case licensedv1.GapReason_GAP_REASON_EXPIRED:
		return apiError(connect.CodeOutOfRange, licensedv1.ReasonExpired,
			g.Message+"; the state at that moment can no longer be determined", g.HistoryGap)
	case licensedv1.GapReason_GAP_REASON_UNAVAILABLE:
		return apiError(connect.CodeUnavailable, licensedv1.ReasonNotExecuted, g.Message+"; retry", g.HistoryGap)
	default:
		return apiError(connect.CodeDataLoss, licensedv1.ReasonCorrupt,
			g.Message+"; an operator must look at it: licensectl verify", g.HistoryGap)
	}
}

// GetState implements licensedv1connect.HistoryServiceHandler.
func (s *historyService) GetState(
	ctx context.Context, r *connect.Request[licensedv1.GetStateRequest],
) (*connect.Response[licensedv1.GetStateResponse], error) {
	v := checkSubject(r.Msg.CustomerId, "", "")
	var sequence *uint64
	if at, ok := r.Msg.At.(*licensedv1.GetStateRequest_Sequence); ok {
		sequence = &at.Sequence
	}
	p := v.knownBy(pointOf(&v, sequence, r.Msg.GetTime()), r.Msg.KnownAt)
	if err := invalid(v); err != nil {
		return nil, err
	}
	at, err := s.replay(ctx, r.Msg.CustomerId, p, true)
	if err != nil {
		return nil, err
	}
	if at.moment.HeadSequence == 0 {
		return nil, noHistory(r.Msg.CustomerId)
	}
	state, err := at.Aggregate().Query(at.asOf, describeState())
	if err != nil {
		return nil, s.failed(ctx, r.Msg.CustomerId, err, false)
	}
	return whole(s,
		&licensedv1.GetStateResponse{State: state.(*licensedv1.CustomerState), Moment: at.moment, Gaps: at.gaps},
		"the state", "list its present parts by page with ListLicenses, ListDevices and ListDownloads; "+
			"events up to a moment with ListEvents")
}

// whole returns a reply that has no pages. Errors: one that says how to get its parts if
// it is larger than Config.MaxReply.
func whole[T any, M interface {
	*T
	proto.Message
}](s *historyService, reply M, what, parts string) (*connect.Response[T], error) {
	if size := proto.Size(reply); size > s.config.MaxReply {
		return nil, apiError(connect.CodeOutOfRange, licensedv1.ReasonTooLarge,
			fmt.Sprintf("%s has %d bytes, and a reply has at most %d; %s", what, size, s.config.MaxReply, parts))
	}
	return connect.NewResponse((*T)(reply)), nil
}

// describeState returns the query for the whole state.
func describeState() *licensedv1.Query {
	return &licensedv1.Query{Query: &licensedv1.Query_DescribeState{DescribeState: &licensedv1.DescribeState{}}}
}

// TryAt implements licensedv1connect.HistoryServiceHandler.
func (s *historyService) TryAt(
	ctx context.Context, r *connect.Request[licensedv1.TryAtRequest],
) (*connect.Response[licensedv1.TryAtResponse], error) {
	v := checkSubject(r.Msg.CustomerId, "", "")
	var sequence *uint64
	if at, ok := r.Msg.At.(*licensedv1.TryAtRequest_Sequence); ok {
		sequence = &at.Sequence
	}
	p := pointOf(&v, sequence, r.Msg.GetTime())
	p.known = p.time // A command is tried on what was known.
	checkCommand(&v, "command", r.Msg.Command)
	if n := len(r.Msg.First); n > maxFirst {
		v.add("first", fmt.Sprintf("has %d entries, want at most %d", n, maxFirst))
	}
	for i, c := range r.Msg.First {
		checkCommand(&v, fmt.Sprintf("first[%d]", i), c)
	}
	if err := invalid(v); err != nil {
		return nil, err
	}
	at, err := s.replay(ctx, r.Msg.CustomerId, p, false)
	if err != nil {
		return nil, err
	}
	command, before, refusedFirst := r.Msg.Command, at.Sequence(), 0
	for i, first := range r.Msg.First {
		d := at.Aggregate().Decide(at.asOf, first)
		if d.Refused {
			command, refusedFirst = first, i+1
			break
		}
		for _, e := range d.Events {
			e.Time = at.asOf
			at.Aggregate().Evolve(e)
		}
		before += uint64(len(d.Events))
	}
	decision := at.Aggregate().Decide(at.asOf, command)
	o, err := license.DecodeOutcome(r.Msg.CustomerId, command, at.asOf, s.config.Kind.Outcome(decision.Events))
	if err != nil {
		return nil, s.failed(ctx, r.Msg.CustomerId, err, false)
	}
	res := &licensedv1.TryAtResponse{
		Refusal:          o.Refusal,
		License:          o.License,
		ReleasedTitleIds: o.ReleasedTitles,
		PlanId:           o.PlanID,
		DeviceLimit:      o.DeviceLimit,
		Removal:          o.Removal,
		StayingDeviceIds: o.StayingDevices,
		Exception:        o.Exception,
		Moment:           at.moment,
		RefusedFirst:     uint32(refusedFirst),
	}
	for i := range decision.Events {
		e := historyEvent(&persistence.HistoryItem{Record: persistence.Record{
			Sequence: before + uint64(i) + 1, Index: uint32(i), Count: uint32(len(decision.Events)),
			AggregateID: decision.Events[i].AggregateID,
			Order:       decision.Events[i].Order,
			Time:        at.asOf,
			IssuedAt:    at.asOf,
			Mapper:      decision.Events[i].Mapper, Header: decision.Events[i].Header, Data: decision.Events[i].Data,
		}}, decision.Events[i].Value, nil)
		// They were never recorded: no row has them.
		e.Committed, e.RowId = false, ""
		res.Events = append(res.Events, e)
	}
	return whole(s, res, "what the command would record",
		"list the licences that it concerns by page with ListLicenses")
}

// maxFirst is the number of commands that are tried before another one.
const maxFirst = 10

// checkCommand checks the ids in a command of a field.
func checkCommand(v *violations, field string, c *licensedv1.Command) {
	switch c := c.GetCommand().(type) {
	case *licensedv1.Command_AcquireLicense:
		v.titled(field+".acquire_license.", c.AcquireLicense)
	case *licensedv1.Command_RenewLicense:
		v.titled(field+".renew_license.", c.RenewLicense)
	case *licensedv1.Command_ReleaseLicense:
		v.titled(field+".release_license.", c.ReleaseLicense)
	case *licensedv1.Command_RecordPlayback:
		v.titled(field+".record_playback.", c.RecordPlayback)
	case *licensedv1.Command_DeactivateDevice:
		v.id(field+".deactivate_device.device_id", c.DeactivateDevice.GetDeviceId())
	case *licensedv1.Command_ChangePlan:
		v.id(field+".change_plan.plan_id", c.ChangePlan.GetPlanId())
	case *licensedv1.Command_SyncDevice:
		if err := license.CheckCommand("", true, &licensedv1.Command{Command: c}); err != nil {
			v.add(field+".sync_device", err.Error())
		}
	case *licensedv1.Command_SelectDevices:
		v.deviceIDs(field+".select_devices.device_ids", c.SelectDevices.GetDeviceIds())
	case *licensedv1.Command_GrantException:
		v.exception(field+".grant_exception", license.CheckGrant(c.GrantException))
	case *licensedv1.Command_WithdrawException:
		v.exception(field+".withdraw_exception", license.CheckWithdraw(c.WithdrawException))
	default:
		v.add(field, "is required")
	}
}

// deviceIDs checks a list of devices.
func (v *violations) deviceIDs(field string, ids []string) {
	if len(ids) == 0 || len(ids) > license.MaxSelected {
		v.add(field, fmt.Sprintf("has %d entries, want 1 to %d", len(ids), license.MaxSelected))
		return
	}
	for i, id := range ids {
		v.id(fmt.Sprintf("%s[%d]", field, i), id)
	}
}

// Why implements licensedv1connect.HistoryServiceHandler.
func (s *historyService) Why(
	ctx context.Context, r *connect.Request[licensedv1.WhyRequest],
) (*connect.Response[licensedv1.WhyResponse], error) {
	m := r.Msg
	var v violations
	v.id("customer_id", m.CustomerId)
	v.id("device_id", m.DeviceId)
	v.id("title_id", m.TitleId)
	at := v.knownBy(pointOf(&v, nil, m.Time), m.KnownAt)
	if err := invalid(v); err != nil {
		return nil, err
	}
	// Events have milliseconds. A finer time could lie between an event and its state.
	now := s.config.Now().UTC().Truncate(time.Millisecond)
	head, err := s.head(ctx, m.CustomerId)
	if err != nil {
		return nil, s.failed(ctx, m.CustomerId, err, false)
	}
	if head.Sequence == 0 {
		return nil, noHistory(m.CustomerId)
	}
	var p *policy.Policy
	if k, ok := s.config.Kind.(*license.Kind); ok {
		p = k.Policy()
	}
	x := license.NewExplainer(m.DeviceId, m.TitleId, p)
	moment := &licensedv1.Moment{
		Sequence: head.Sequence, HeadSequence: head.Sequence, PolicyVersion: s.config.PolicyVersion(),
	}
	gaps, err := s.explain(ctx, head, x, at, moment)
	if err != nil {
		return nil, s.failed(ctx, m.CustomerId, err, false)
	}
	// A wrong clock must not bring the customer to a time before its last event.
	if last := moment.EventTime; last != nil && now.Before(last.AsTime()) {
		now = last.AsTime()
	}
	if !at.time.IsZero() {
		now = at.time.UTC().Truncate(time.Millisecond)
	}
	if m.KnownAt != nil {
		moment.KnownAt = m.KnownAt
	}
	moment.AsOf = timestamppb.New(now)
	state, err := s.present(ctx, m.CustomerId, head, at, now)
	if err != nil {
		return nil, s.failed(ctx, m.CustomerId, err, false)
	}
	res := x.Why(now, state)
	res.Gaps, res.Moment = gaps, moment
	return whole(s, res, "the explanation",
		"read the events of the licence with ListEvents, which takes device_id, title_id, a range and a limit")
}

// present returns a customer's state at a point, or at the end of the history, without loading the
// customer if a replay leads there. Otherwise its owner answers, which may have it in
// memory. It is nil if the customer cannot be rebuilt.
func (s *historyService) present(
	ctx context.Context, customer string, head persistence.Head, at point, now time.Time,
) (*licensedv1.CustomerState, error) {
	// The replay is thrown away: this must not load the customer into the memory of a
	// node that does not own it.
	r := &replayed{Replay: actors.NewReplay(s.config.Kind, customer), customer: customer, moment: &licensedv1.Moment{}}
	var value any
	err := s.replayTo(ctx, head, at, r)
	var gap *historyGap
	if err == nil {
		value, err = r.Aggregate().Query(now, describeState())
	} else if !at.time.IsZero() && errors.As(err, &gap) {
		return nil, nil // The owner knows the present state only.
	} else if ctx.Err() == nil {
		// A gap kept the replay from the end. An owner that has the customer in memory
		// knows the state all the same.
		var answer actors.Answer
		answer, err = s.aggregates.Query(ctx, customer, describeState())
		value = answer.Value
	}
	if errors.Is(err, actors.ErrCorrupt) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	state, ok := value.(*licensedv1.CustomerState)
	if !ok {
		return nil, errOtherAnswer
	}
	return state, nil
}

// explain feeds a history to an explainer and returns the gaps in it. An event that
// cannot be decoded is missing to the explainer, but is no gap of the history. moment
// gets the figures of the last event. Of a point with a time, the explainer gets what had occurred by then.
func (s *historyService) explain(
	ctx context.Context, head persistence.Head, x *license.Explainer, at point, moment *licensedv1.Moment,
) (gaps []*licensedv1.HistoryGap, err error) {
	err = s.config.HistoryReader.Read(ctx, head, persistence.HistoryRange{}, func(i *persistence.HistoryItem) error {
		r := &i.Record
		late := i.Gap == nil && !at.time.IsZero() && r.Time.After(at.until())
		switch {
		case late && !at.known.IsZero() && r.Time.After(at.known):
			return errEnough
		case late && !license.MayBeFact(r.Mapper):
			return nil
		}
		if i.Gap != nil {
			gaps = append(gaps, gapOf(i))
			x.Missing(i.Gap.After+1, i.Gap.Through, i.Gap.Error())
			return nil
		}
		e, err := s.decode(r)
		if late && (err != nil || !license.IsFact(e) || license.OccurredAt(e).After(at.time)) {
			return nil
		}
		moment.ReplayedEvents++
		if late {
			moment.LateFacts++
		} else {
			moment.Sequence = r.Sequence
			moment.EventTime, moment.RecordedPolicyVersion = timestamppb.New(r.Time), r.Header.PolicyVersion
		}
		if err != nil {
			x.Missing(r.Sequence, r.Sequence, err.Error())
			return nil
		}
		x.Add(license.Recorded{
			Event: e, Sequence: r.Sequence, CommandID: r.CommandID, Principal: r.Principal, Reason: r.Reason,
		})
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return gaps, err
}
