package gateway

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/actors"
	"licensed/actors/license"
	"licensed/messages"
	"licensed/messages/licensedv1"
	"licensed/persistence"
)

// HistoryReader reads stored histories. It is safe for concurrent use.
type HistoryReader interface {
	// Read calls yield with the items of a range of the history that ends at the head, until yield
	// returns an error, which is returned. Items belong to the caller. Errors: persistence.ErrUnavailable
	// if nothing can be read at all.
	Read(ctx context.Context, head persistence.Head, r persistence.HistoryRange,
		yield func(*persistence.HistoryItem) error) error
	// SnapshotBefore returns the newest root of the history with a base below a sequence whose snapshot
	// is at hand; false if a replay has to start before the first event.
	SnapshotBefore(ctx context.Context, head persistence.Head, sequence uint64) (persistence.Root, bool, error)
	// Between returns a range of sequences, after exclusive and through inclusive, outside of which no
	// event is at or after from and before to; a zero time bounds nothing.
	Between(ctx context.Context, head persistence.Head, from, to time.Time) (after, through uint64, err error)
}

// historyService implements licensedv1connect.HistoryServiceHandler.
type historyService struct{ *Gateway }

// tiers are those of the API, and selected are those that a request names; of others it selects both.
var (
	tiers = [...]licensedv1.Tier{
		persistence.TierHot: licensedv1.Tier_TIER_HOT, persistence.TierArchive: licensedv1.Tier_TIER_ARCHIVE,
	}
	selected = map[licensedv1.Tier]persistence.Tier{
		licensedv1.Tier_TIER_HOT: persistence.TierHot, licensedv1.Tier_TIER_ARCHIVE: persistence.TierArchive,
	}
)

// errEnough ends a reading whose reader has enough.
var errEnough = errors.New("enough")

// head asks the owner where the customer's history ends. The customer is loaded, if it is
// not in memory: only its owner knows what is acknowledged. Errors: those of package
// actors.
func (g *Gateway) head(ctx context.Context, customer string) (persistence.Head, error) {
	ctx, cancel := context.WithTimeout(ctx, g.config.MaxDeadline)
	defer cancel()
	answer, err := g.aggregates.Query(ctx, customer, actors.HeadQuery{})
	return answer.Head, err
}

// ListEvents implements licensedv1connect.HistoryServiceHandler.
func (s *historyService) ListEvents(
	ctx context.Context, r *connect.Request[licensedv1.ListEventsRequest],
	stream *connect.ServerStream[licensedv1.ListEventsResponse],
) error {
	m := r.Msg
	v := checkSubject(m.CustomerId, m.DeviceId, m.TitleId)
	from, to := v.timestamp("from_time", m.FromTime), v.timestamp("to_time", m.ToTime)
	if m.ToSequence != 0 && m.ToSequence < m.FromSequence {
		v.add("to_sequence", "is before from_sequence")
	}
	if !from.IsZero() && !to.IsZero() && to.Before(from) {
		v.add("to_time", "is before from_time")
	}
	if err := invalid(v); err != nil {
		return err
	}
	head, err := s.head(ctx, m.CustomerId)
	if err == nil && head.Sequence == 0 {
		return noHistory(m.CustomerId)
	}
	// The range of time becomes one of sequences, which may be wider: listing.event
	// checks the time of each.
	var after, through uint64
	if err == nil {
		after, through, err = s.config.HistoryReader.Between(ctx, head, from, to)
	}
	if err != nil {
		return s.failed(ctx, m.CustomerId, err, false)
	}
	l := &listing{
		gateway: s.Gateway, customer: m.CustomerId, device: m.DeviceId, title: m.TitleId, from: from, to: to,
		record: m.IncludeRecord, limit: m.Limit, end: &licensedv1.HistoryEnd{HeadSequence: head.Sequence},
		send: func(items []*licensedv1.HistoryItem, end *licensedv1.HistoryEnd) error {
			return sendTo(ctx, stream, &licensedv1.ListEventsResponse{Items: items, End: end})
		},
	}
	if m.FromSequence > 0 {
		// Sequences begin at 1, and the range excludes after.
		after = max(after, m.FromSequence-1)
	}
	if m.ToSequence > 0 {
		through = min(through, m.ToSequence)
	}
	if after < through {
		err = l.read(ctx, head, persistence.HistoryRange{
			After: after, Through: through, Newest: m.NewestFirst, Tier: selected[m.Tier],
		})
	}
	if err != nil {
		return s.failed(ctx, m.CustomerId, err, false)
	}
	return l.flush(l.end)
}

// checkSubject checks the ids of a customer and, where given, of a device and a title.
func checkSubject(customer, device, title string) (v violations) {
	v.id("customer_id", customer)
	if device != "" {
		v.id("device_id", device)
	}
	if title != "" {
		v.id("title_id", title)
	}
	return v
}

// noHistory is the answer about customers that nothing ever happened to.
func noHistory(customer string) error {
	return apiError(connect.CodeNotFound, licensedv1.ReasonNoHistory,
		fmt.Sprintf("customer %s has no history", customer))
}

// listing sends items in batches: a message for each would take several times as long. It
// is one reading, used by one goroutine.
type listing struct {
	// The filter, empty for all; from inclusive, to exclusive, zero for no bound.
	gateway       *Gateway
	customer      string
	device, title string
	from, to      time.Time
	// Whether each event comes with its stored record.
	record bool
	// The largest number of events; 0 for all.
	limit uint64
	whole bool // end with errUnreadable before a gap that may be filled later
	// Sends a batch, and with the last one the end.
	send func([]*licensedv1.HistoryItem, *licensedv1.HistoryEnd) error

	// What was left out, and why, so that a client can tell a whole list from a part.
	end *licensedv1.HistoryEnd
	// The batch being filled, and its size in bytes, about.
	items []*licensedv1.HistoryItem
	bytes int
}

// A batch is sent when it has this many items or bytes.
const (
	batchItems = 256
	batchBytes = 128 << 10
)

// read adds the items of a range. Errors: those of the reader and of send; errUnreadable,
// if whole is set, before a gap that may be filled later.
func (l *listing) read(ctx context.Context, head persistence.Head, r persistence.HistoryRange) error {
	err := l.gateway.config.HistoryReader.Read(ctx, head, r, func(i *persistence.HistoryItem) error {
		if i.Gap != nil {
			gap := gapOf(i)
			if l.whole && gap.Reason == licensedv1.GapReason_GAP_REASON_UNAVAILABLE {
				return errUnreadable
			}
			l.end.Gaps++
			l.end.MissingEvents += i.Gap.Through - i.Gap.After
			return l.add(&licensedv1.HistoryItem{Item: &licensedv1.HistoryItem_Gap{Gap: gap}}, 100)
		}
		return l.event(i)
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// event adds an event, if it is asked for. An event that cannot be decoded is listed with
// the problem: that it exists is known.
func (l *listing) event(i *persistence.HistoryItem) error {
	t := i.Record.Time
	if !l.from.IsZero() && t.Before(l.from) || !l.to.IsZero() && !t.Before(l.to) {
		return nil
	}
	decoded, err := l.gateway.decode(&i.Record)
	// The filter by time came first: it needs no decoding.
	if !about(&i.Record, decoded.Value, l.device, l.title) {
		return nil
	}
	// One event more than the limit was found, so that there is a next page.
	if l.limit > 0 && l.end.Events == l.limit {
		l.end.Limited = true
		return errEnough
	}
	l.end.Events++
	e := historyEvent(i, decoded.Value, err)
	// An estimate of the message's size, for the budget of replies.
	size := 200 + len(i.Record.Data)
	if l.record {
		e.Record = persistence.AppendRecord(nil, &i.Record)
		size += len(e.Record)
	}
	return l.add(&licensedv1.HistoryItem{Item: &licensedv1.HistoryItem_Event{Event: e}}, size)
}

// add adds an item of that size, and sends the batch when it is full.
func (l *listing) add(i *licensedv1.HistoryItem, size int) error {
	l.items = append(l.items, i)
	l.bytes += size
	if len(l.items) < batchItems && l.bytes < batchBytes {
		return nil
	}
	return l.flush(nil)
}

// flush sends what there is, and the end if it is that.
func (l *listing) flush(end *licensedv1.HistoryEnd) error {
	err := l.send(l.items, end)
	l.items, l.bytes = nil, 0
	return err
}

// about reports whether an event is about a device and a title; an empty id stands for any.
func about(r *persistence.Record, value any, device, title string) bool {
	if device == "" && title == "" {
		return true
	}
	// Events of a licence have the device and the title in the id of their aggregate.
	ofDevice, ofTitle, _ := strings.Cut(r.AggregateID, "/")
	if unlicensed := license.TitleOfFact(value); unlicensed != "" {
		ofTitle = unlicensed
	}
	if named, ok := value.(interface {
		GetDeviceId() string
		GetTitleId() string
	}); ok { // An event of the customer that names both itself.
		ofDevice, ofTitle = named.GetDeviceId(), named.GetTitleId()
	}
	return (device == "" || device == ofDevice) && (title == "" || title == ofTitle)
}

// historyEvent returns a record in the API's words. value is the decoded event, or
// problem why there is none.
func historyEvent(i *persistence.HistoryItem, value any, problem error) *licensedv1.HistoryEvent {
	r := &i.Record
	e := &licensedv1.HistoryEvent{
		Sequence: r.Sequence, Epoch: i.Partition.Epoch, RowId: i.Partition.RowID(), AggregateId: r.AggregateID,
		EventTime: timestamppb.New(r.Time), Committed: true, EventOrderNumber: r.Order, CommandId: r.CommandID,
		CommandIndex: r.Index, CommandCount: r.Count, Tier: tiers[i.Tier], Bytes: uint32(len(r.Data)), Mapper: r.Mapper,
		PolicyVersion: r.Header.PolicyVersion, Principal: r.Principal, Reason: r.Reason,
	}
	// The time at which the client issued the command is stored with its first event.
	if r.Index == 0 {
		e.IssuedAt = timestamppb.New(r.IssuedAt)
	}
	e.Event, _, _ = strings.Cut(r.Mapper, "/")
	event, ok := value.(proto.Message)
	switch {
	case problem != nil:
		e.Problem = problem.Error()
	case !ok:
		e.Problem = fmt.Sprintf("%T is no message", value)
	default:
		e.Data = eventData(r.Mapper, r.Data, event)
		e.Event = string(event.ProtoReflect().Descriptor().Name())
		if at := license.OccurredAt(actors.Event{Time: r.Time, Value: value}); !at.Equal(r.Time) {
			e.OccurredAt = timestamppb.New(at)
		}
	}
	return e
}

// eventData returns an event by today's definition. What is stored by it is passed on as it is.
func eventData(mapper string, stored []byte, event proto.Message) *anypb.Any {
	url := "type.googleapis.com/" + string(event.ProtoReflect().Descriptor().FullName())
	if messages.EventMapper(event) == mapper {
		return &anypb.Any{TypeUrl: url, Value: stored}
	}
	data, err := messages.AppendEvent(nil, event)
	if err != nil {
		panic(err) // It was decoded, so its strings are UTF-8.
	}
	return &anypb.Any{TypeUrl: url, Value: data}
}

// gapOf returns a gap in the API's words.
func gapOf(i *persistence.HistoryItem) *licensedv1.HistoryGap {
	g := &licensedv1.HistoryGap{
		FromSequence: i.Gap.After + 1,
		ToSequence:   i.Gap.Through,
		Message:      i.Gap.Error(),
		Reason:       licensedv1.GapReason_GAP_REASON_CORRUPT,
	}
	if !i.Partition.IsZero() {
		g.RowId = i.Partition.RowID()
	}
	switch {
	case !i.Gap.Expired.IsZero():
		g.Reason, g.ExpiredBefore = licensedv1.GapReason_GAP_REASON_EXPIRED, timestamppb.New(i.Gap.Expired)
	case errors.Is(i.Gap.Err, persistence.ErrUnavailable):
		g.Reason = licensedv1.GapReason_GAP_REASON_UNAVAILABLE
	}
	return g
}

// decode returns the event of a record, with its value.
func (g *Gateway) decode(r *persistence.Record) (actors.Event, error) {
	value, err := g.config.Kind.DecodeEvent(r.Mapper, r.Header, r.Data)
	return actors.Event{
		AggregateID: r.AggregateID, Order: r.Order, Time: r.Time, Mapper: r.Mapper, Header: r.Header, Data: r.Data,
		Value: value,
	}, err
}

// events returns the events of the history that ends at head, oldest first. After an error, which comes last, the
// history is not complete. Errors: persistence.HistoryGap, and those of the reader and of decoding.
func (g *Gateway) events(ctx context.Context, head persistence.Head) iter.Seq2[actors.Event, error] {
	return func(yield func(actors.Event, error) bool) {
		err := g.config.HistoryReader.Read(ctx, head, persistence.HistoryRange{},
			func(i *persistence.HistoryItem) error {
				if i.Gap != nil {
					return i.Gap
				}
				e, err := g.decode(&i.Record)
				if err != nil {
					return fmt.Errorf("%s record %d: %w", head.Partition.Aggregate, i.Record.Sequence, err)
				}
				if !yield(e, nil) {
					return errEnough
				}
				return nil
			})
		if err != nil && !errors.Is(err, errEnough) {
			yield(actors.Event{}, err)
		}
	}
}
