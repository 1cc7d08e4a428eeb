package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/actors"
	"licensed/actors/license"
	"licensed/actors/license/policy"
	"licensed/gateway"
	"licensed/messages"
	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
	"licensed/persistence"
)

// past is the real license aggregates whose histories are kept as records, with damage where a test asks
// for it. It has the gateway's three sides.
type past struct {
	t    testing.TB
	kind *license.Kind

	mu      sync.Mutex
	now     time.Time
	state   map[string]actors.Aggregate
	records map[string][]persistence.Record
	roots   map[string][]persistence.Root
	gaps    []*persistence.HistoryGap // in place of the events of any customer
	broken  error                     // of every reading
	reading func()                    // called for every reading, locked; nil for nothing
	asked   error                     // of every question to an aggregate
	imports []actors.Import
	reports map[string]*licensedv1.CustomerReport
	fails   error // of operations
	tell    atomic.Pointer[gateway.Gateway]
}

const historyRules = `
version: test
default_plan: all
plans: {one: {devices: 1}, all: {devices: 9}}
defaults: {studio: any, studio_downloads: 2, yearly_limit: 50}
`

func newPast(t testing.TB) *past {
	t.Helper()
	p, err := policy.Parse("rules", []byte(historyRules))
	if err != nil {
		t.Fatal(err)
	}
	return &past{
		t: t, kind: license.NewKind(p), now: noon.Truncate(time.Second), state: map[string]actors.Aggregate{},
		records: map[string][]persistence.Record{},
		roots:   map[string][]persistence.Root{},
		reports: map[string]*licensedv1.CustomerReport{},
	}
}

// give executes a command, an hour after the one before, and returns where the history then ends.
func (p *past) give(customer string, c *licensedv1.Command) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state[customer] == nil {
		p.state[customer] = p.kind.New(customer)
	}
	p.now = p.now.Add(time.Hour)
	d := p.state[customer].Decide(p.now, c)
	all := p.records[customer]
	for i, e := range d.Events {
		p.state[customer].Evolve(e)
		all = append(all, persistence.Record{
			Sequence:  uint64(len(all)) + 1,
			Index:     uint32(i),
			Count:     uint32(len(d.Events)),
			CommandID: fmt.Sprint("c", len(all)+1-i),
			IssuedAt:  p.now, AggregateID: e.AggregateID, Order: e.Order, Time: p.now, Mapper: e.Mapper,
			Header: e.Header, Data: e.Data,
		})
	}
	p.records[customer] = all
	if g := p.tell.Load(); g != nil {
		g.Appended(customer)
	}
	return uint64(len(all))
}

func (p *past) Execute(context.Context, string, actors.Command) (actors.Reply, error) {
	return actors.Reply{}, actors.ErrImporting
}

func (p *past) Query(_ context.Context, id string, q any) (actors.Answer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, head := q.(actors.HeadQuery); p.asked != nil && !(head && errors.Is(p.asked, actors.ErrCorrupt)) {
		return actors.Answer{}, p.asked
	}
	a := actors.Answer{Head: persistence.Head{
		Partition: persistence.Partition{RootKey: persistence.RootKey{Aggregate: id, Epoch: 3, Version: 7}},
		Sequence:  uint64(len(p.records[id])),
	}}
	if _, ok := q.(actors.HeadQuery); ok || p.state[id] == nil {
		return a, nil
	}
	var err error
	a.Value, err = p.state[id].Query(p.now, q)
	return a, err
}

// Read implements gateway.HistoryReader: a gap stands where it begins, or ends.
func (p *past) Read(
	_ context.Context, head persistence.Head, r persistence.HistoryRange, yield func(*persistence.HistoryItem) error,
) error {
	p.mu.Lock()
	if p.reading != nil {
		p.reading()
	}
	records, broken := slices.Clone(p.records[head.Partition.Aggregate]), p.broken
	p.mu.Unlock()
	if broken != nil {
		return broken
	}
	var items []*persistence.HistoryItem
	for i := range records[:head.Sequence] {
		rec := &records[i]
		if rec.Sequence <= r.After || r.Through > 0 && rec.Sequence > r.Through {
			continue
		}
		item := &persistence.HistoryItem{Record: *rec, Partition: head.Partition, Tier: persistence.TierHot}
		gap := slices.IndexFunc(p.gaps, func(g *persistence.HistoryGap) bool {
			return g.After < rec.Sequence && rec.Sequence <= g.Through
		})
		switch {
		case gap >= 0 && p.gaps[gap].After+1 < rec.Sequence && len(items) > 0:
			continue
		case gap >= 0:
			item.Gap = p.gaps[gap]
		}
		items = append(items, item)
	}
	if r.Newest {
		slices.Reverse(items)
	}
	for _, i := range items {
		if err := yield(i); err != nil {
			return err
		}
	}
	return nil
}

func (p *past) SnapshotBefore(
	_ context.Context, head persistence.Head, sequence uint64,
) (persistence.Root, bool, error) {
	for _, r := range slices.Backward(p.roots[head.Partition.Aggregate]) {
		if r.Base < sequence {
			return r, true, nil
		}
	}
	return persistence.Root{}, false, p.broken
}

func (p *past) Between(_ context.Context, head persistence.Head, _, _ time.Time) (after, through uint64, err error) {
	return 0, head.Sequence, p.broken
}

func (p *past) start(change ...func(*gateway.Config)) *rig {
	return start(p.t, p, append([]func(*gateway.Config){func(c *gateway.Config) {
		c.HistoryReader, c.Operations, c.Kind = p, p, p.kind
		c.PolicyVersion = func() string { return p.kind.Policy().Version() }
		c.Now = func() time.Time { p.mu.Lock(); defer p.mu.Unlock(); return p.now }
	}}, change...)...)
}

func historyOf(r *rig) licensedv1connect.HistoryServiceClient {
	return licensedv1connect.NewHistoryServiceClient(http.DefaultClient, r.url)
}

func acquires(device, title string) *licensedv1.Command {
	return &licensedv1.Command{Command: &licensedv1.Command_AcquireLicense{
		AcquireLicense: &licensedv1.AcquireLicense{DeviceId: device, TitleId: title},
	}}
}

func renews(device, title string) *licensedv1.Command {
	return &licensedv1.Command{Command: &licensedv1.Command_RenewLicense{
		RenewLicense: &licensedv1.RenewLicense{DeviceId: device, TitleId: title},
	}}
}

func releases(device, title string) *licensedv1.Command {
	return &licensedv1.Command{Command: &licensedv1.Command_ReleaseLicense{
		ReleaseLicense: &licensedv1.ReleaseLicense{DeviceId: device, TitleId: title},
	}}
}

// life gives Bayley a history: 1-4 acquired, 5 renewed, 6 released, 7 a refusal, 8-11 the ipad, 12-14 a
// second title, 15 another refusal.
func (p *past) life() *past {
	for _, c := range []*licensedv1.Command{
		acquires("iphone", "a"), renews("iphone", "a"), releases("iphone", "a"), renews("iphone", "a"),
		acquires("ipad", "a"), acquires("ipad", "b"), acquires("tv", "a"),
	} {
		p.give("Bayley", c)
	}
	return p
}

// listed is a listing: sequences, and gaps as negative ranges.
func listed(
	t *testing.T, r *rig, m *licensedv1.ListEventsRequest,
) (out []string, end *licensedv1.HistoryEnd, err error) {
	t.Helper()
	stream, err := historyOf(r).ListEvents(t.Context(), connect.NewRequest(m))
	if err != nil {
		return nil, nil, err
	}
	defer stream.Close()
	for stream.Receive() {
		for _, i := range stream.Msg().Items {
			if g := i.GetGap(); g != nil {
				out = append(out, fmt.Sprintf("gap %d-%d", g.FromSequence, g.ToSequence))
				continue
			}
			out = append(out, fmt.Sprint(i.GetEvent().Sequence))
		}
		end = stream.Msg().End
	}
	return out, end, stream.Err()
}

func TestListEvents(t *testing.T) {
	p := newPast(t).life()
	r := p.start()
	at := func(hours int) *timestamppb.Timestamp {
		return timestamppb.New(noon.Truncate(time.Second).Add(time.Duration(hours) * time.Hour))
	}
	for _, c := range []struct {
		name    string
		request *licensedv1.ListEventsRequest
		want    string
		limited bool
	}{
		{"all", &licensedv1.ListEventsRequest{}, "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15", false},
		{"newest", &licensedv1.ListEventsRequest{NewestFirst: true, Limit: 3}, "15 14 13", true},
		{"range", &licensedv1.ListEventsRequest{FromSequence: 4, ToSequence: 6}, "4 5 6", false},
		{"one", &licensedv1.ListEventsRequest{FromSequence: 15}, "15", false},
		{"past the end", &licensedv1.ListEventsRequest{FromSequence: 16}, "", false},
		{"from time", &licensedv1.ListEventsRequest{FromTime: at(6)}, "12 13 14 15", false},
		{"to time", &licensedv1.ListEventsRequest{ToTime: at(2)}, "1 2 3 4", false},
		{"times", &licensedv1.ListEventsRequest{FromTime: at(2), ToTime: at(4)}, "5 6", false},
		{"device", &licensedv1.ListEventsRequest{DeviceId: "iphone"}, "1 2 3 4 5 6 7", false},
		{"title", &licensedv1.ListEventsRequest{TitleId: "b"}, "12 13 14", false},
		{"licence", &licensedv1.ListEventsRequest{DeviceId: "iphone", TitleId: "a"}, "2 3 4 5 6 7", false},
		{"refusal names them", &licensedv1.ListEventsRequest{DeviceId: "tv"}, "15", false},
		{"limit reached exactly", &licensedv1.ListEventsRequest{TitleId: "b", Limit: 3}, "12 13 14", false},
		{"limit of a filter", &licensedv1.ListEventsRequest{TitleId: "b", Limit: 2}, "12 13", true},
	} {
		c.request.CustomerId = "Bayley"
		got, end, err := listed(t, r, c.request)
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%s: %v, %v, want %s", c.name, got, err, c.want)
			continue
		}
		if end.HeadSequence != 15 || end.Events != uint64(len(got)) || end.Limited != c.limited || end.Gaps != 0 {
			t.Errorf("%s: end %v", c.name, end)
		}
	}
}

// TestEventInFull has all fields of an event, and its record.
func TestEventInFull(t *testing.T) {
	p := newPast(t).life()
	stream, err := historyOf(p.start()).ListEvents(t.Context(), connect.NewRequest(&licensedv1.ListEventsRequest{
		CustomerId: "Bayley", FromSequence: 3, ToSequence: 5, IncludeRecord: true,
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	var events []*licensedv1.HistoryEvent
	for stream.Receive() {
		for _, i := range stream.Msg().Items {
			events = append(events, i.GetEvent())
		}
	}
	if len(events) != 3 {
		t.Fatalf("%d events, %v", len(events), stream.Err())
	}
	for _, e := range events {
		stored := p.records["Bayley"][e.Sequence-1]
		if string(e.Record) != string(persistence.AppendRecord(nil, &stored)) {
			t.Errorf("event %d: record %x", e.Sequence, e.Record)
		}
		data, err := e.Data.UnmarshalNew()
		if err != nil {
			t.Fatal(err)
		}
		want, err := messages.DecodeEvent(stored.Mapper, stored.Data)
		if err != nil || !proto.Equal(data, want) {
			t.Errorf("event %d: data %v, %v, want %v", e.Sequence, data, err, want)
		}
	}
	events[1].Record, events[1].Data = nil, nil
	want := &licensedv1.HistoryEvent{
		Sequence: 4, Epoch: 3, RowId: "Bayley:7", AggregateId: "iphone/a", Event: "TitleDownloaded",
		EventTime: timestamppb.New(noon.Truncate(time.Second).Add(time.Hour)), Committed: true, EventOrderNumber: 2,
		CommandId: "c1", CommandIndex: 3, CommandCount: 4, Tier: licensedv1.Tier_TIER_HOT, Mapper: "TitleDownloaded/1",
		PolicyVersion: "test",
	}
	if !proto.Equal(events[1], want) {
		t.Errorf("got  %v\nwant %v", events[1], want)
	}
	if events[2].IssuedAt == nil || events[0].IssuedAt != nil {
		t.Errorf("issue times: %v, %v", events[0].IssuedAt, events[2].IssuedAt)
	}
}

func TestListEventsErrors(t *testing.T) {
	p := newPast(t).life()
	r := p.start()
	wants := func(name string, m *licensedv1.ListEventsRequest, code connect.Code, says string) {
		t.Helper()
		_, end, err := listed(t, r, m)
		if connect.CodeOf(err) != code || !strings.Contains(err.Error(), says) || end != nil {
			t.Errorf("%s: %v, end %v", name, err, end)
		}
	}
	wants("no customer", &licensedv1.ListEventsRequest{}, connect.CodeInvalidArgument, "customer_id is required")
	wants("bad device", &licensedv1.ListEventsRequest{CustomerId: "Bayley", DeviceId: "a/b"},
		connect.CodeInvalidArgument, "device_id")
	wants("backwards", &licensedv1.ListEventsRequest{CustomerId: "Bayley", FromSequence: 5, ToSequence: 4},
		connect.CodeInvalidArgument, "to_sequence")
	wants("times backwards", &licensedv1.ListEventsRequest{
		CustomerId: "Bayley", FromTime: timestamppb.New(noon), ToTime: timestamppb.New(noon.Add(-time.Hour)),
	}, connect.CodeInvalidArgument, "to_time")
	wants("nobody", &licensedv1.ListEventsRequest{CustomerId: "Nobody"}, connect.CodeNotFound, "Nobody has no history")
	p.broken = fmt.Errorf("disk: %w", persistence.ErrUnavailable)
	wants("no store", &licensedv1.ListEventsRequest{CustomerId: "Bayley"}, connect.CodeUnavailable, "retry")
	p.asked = actors.ErrNotOwner
	wants("no owner", &licensedv1.ListEventsRequest{CustomerId: "Bayley"}, connect.CodeUnavailable, "retry")
}

var (
	expired = &persistence.HistoryGap{Through: 5, Expired: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	corrupt = &persistence.HistoryGap{
		After: 8, Through: 10, Err: fmt.Errorf("damage: %w", persistence.ErrCorrupt),
	}
)

// TestGapsAreNamed: in every answer, what cannot be read is said to be.
func TestGapsAreNamed(t *testing.T) {
	p := newPast(t).life()
	p.gaps = []*persistence.HistoryGap{expired, corrupt}
	r := p.start()
	got, end, err := listed(t, r, &licensedv1.ListEventsRequest{CustomerId: "Bayley"})
	if want := "gap 1-5 6 7 8 gap 9-10 11 12 13 14 15"; err != nil || strings.Join(got, " ") != want {
		t.Errorf("%v, %v, want %s", got, err, want)
	}
	if end.Gaps != 2 || end.MissingEvents != 7 || end.Events != 8 {
		t.Errorf("end %v", end)
	}
	h := historyOf(r)
	for _, c := range []struct {
		sequence uint64
		gap      *persistence.HistoryGap
		code     connect.Code
		reason   string
	}{
		{3, expired, connect.CodeOutOfRange, licensedv1.ReasonExpired},
		{12, expired, connect.CodeOutOfRange, licensedv1.ReasonExpired},
	} {
		_, err := h.GetState(t.Context(), connect.NewRequest(&licensedv1.GetStateRequest{
			CustomerId: "Bayley", At: &licensedv1.GetStateRequest_Sequence{Sequence: c.sequence},
		}))
		wantGap(t, err, c.code, c.reason, c.gap)
	}
	p.gaps = p.gaps[1:]
	left, err := h.GetState(t.Context(), connect.NewRequest(&licensedv1.GetStateRequest{CustomerId: "Bayley"}))
	if err != nil || left.Msg.Moment.Sequence != 8 || left.Msg.Moment.HeadSequence != 15 || len(left.Msg.Gaps) != 1 ||
		left.Msg.Gaps[0].FromSequence != 9 {
		t.Errorf("what is left of the state: %v, %v", left, err)
	}
	_, err = h.TryAt(t.Context(),
		connect.NewRequest(&licensedv1.TryAtRequest{CustomerId: "Bayley", Command: renews("ipad", "a")}))
	wantGap(t, err, connect.CodeDataLoss, licensedv1.ReasonCorrupt, corrupt)
	p.asked = actors.ErrCorrupt
	why, err := h.Why(t.Context(),
		connect.NewRequest(&licensedv1.WhyRequest{CustomerId: "Bayley", DeviceId: "ipad", TitleId: "a"}))
	if err != nil || len(why.Msg.Gaps) != 1 || !strings.Contains(why.Msg.Verdict, "cannot be rebuilt") ||
		why.Msg.License != nil || len(why.Msg.Steps) == 0 {
		t.Errorf("why without a state: %v, %v", why, err)
	}
	p.asked = nil
	p.gaps[0] = &persistence.HistoryGap{
		After: 8, Through: 10, Err: fmt.Errorf("damage: %w", persistence.ErrUnavailable),
	}
	_, err = h.TryAt(t.Context(),
		connect.NewRequest(&licensedv1.TryAtRequest{CustomerId: "Bayley", Command: renews("ipad", "a")}))
	wantGap(t, err, connect.CodeUnavailable, licensedv1.ReasonNotExecuted, p.gaps[0])
	why, err = h.Why(t.Context(),
		connect.NewRequest(&licensedv1.WhyRequest{CustomerId: "Bayley", DeviceId: "ipad", TitleId: "a"}))
	if err != nil || len(why.Msg.Gaps) != 1 || !strings.Contains(why.Msg.Verdict, "Some events cannot be read") ||
		!why.Msg.License.GetActive() {
		t.Errorf("why: %v, %v", why, err)
	}
}

func wantGap(t *testing.T, err error, code connect.Code, reason string, gap *persistence.HistoryGap) {
	t.Helper()
	if connect.CodeOf(err) != code || reasonOf(err) != reason || !strings.Contains(err.Error(), gap.Error()) {
		t.Errorf("%v (%s), want %v (%s)", err, reasonOf(err), code, reason)
	}
	var e *connect.Error
	if !errors.As(err, &e) {
		return
	}
	for _, d := range e.Details() {
		if v, err := d.Value(); err == nil {
			if got, ok := v.(*licensedv1.HistoryGap); ok && got.FromSequence == gap.After+1 {
				return
			}
		}
	}
	t.Errorf("%v has no detail about the gap", err)
}

// TestUndecodable: an event of a newer release is listed, and said not to be understood.
func TestUndecodable(t *testing.T) {
	p := newPast(t).life()
	p.records["Bayley"][4].Mapper = "LicensePainted/1"
	stream, err := historyOf(p.start()).ListEvents(t.Context(),
		connect.NewRequest(&licensedv1.ListEventsRequest{CustomerId: "Bayley", FromSequence: 5, ToSequence: 5}))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	found := false
	for stream.Receive() {
		for _, i := range stream.Msg().Items {
			e := i.GetEvent()
			found = e.Event == "LicensePainted" && strings.Contains(e.Problem, "unknown event mapper") && e.Data == nil
		}
	}
	if !found {
		t.Error("not listed as undecodable")
	}
}

// TestRepliesWithoutPages: an answer that is larger than one reply may be is refused, with the calls that return its
// parts. One that fits is not.
func TestRepliesWithoutPages(t *testing.T) {
	p := newPast(t)
	p.give("Bayley", acquires("ipad", "a"))
	for _, c := range []struct {
		most int
		fits bool
	}{{100, false}, {4 << 20, true}} {
		h := historyOf(p.start(func(config *gateway.Config) { config.MaxReply = c.most }))
		_, state := h.GetState(t.Context(), connect.NewRequest(&licensedv1.GetStateRequest{CustomerId: "Bayley"}))
		_, try := h.TryAt(t.Context(),
			connect.NewRequest(&licensedv1.TryAtRequest{CustomerId: "Bayley", Command: renews("ipad", "a")}))
		_, why := h.Why(t.Context(),
			connect.NewRequest(&licensedv1.WhyRequest{CustomerId: "Bayley", DeviceId: "ipad", TitleId: "a"}))
		for name, got := range map[string]struct {
			err  error
			call string
		}{"GetState": {state, "ListLicenses"}, "TryAt": {try, "ListLicenses"}, "Why": {why, "ListEvents"}} {
			switch {
			case c.fits && got.err != nil:
				t.Errorf("%s: %v", name, got.err)
			case !c.fits && (connect.CodeOf(got.err) != connect.CodeOutOfRange ||
				reasonOf(got.err) != licensedv1.ReasonTooLarge || !strings.Contains(got.err.Error(), got.call)):
				t.Errorf("%s of %d bytes at most: %v", name, c.most, got.err)
			}
		}
	}
}

// TestGetState compares the state at every event, by number and by time, with the one that was live then.
func TestGetState(t *testing.T) {
	p := newPast(t)
	r := p.start()
	var lives []*licensedv1.CustomerState
	var ends []uint64
	var times []time.Time
	replay := actors.NewReplay(p.kind, "Bayley")
	for i, c := range []*licensedv1.Command{
		acquires("iphone", "a"), renews("iphone", "a"), releases("iphone", "a"), renews("iphone", "a"),
		acquires("ipad", "a"), acquires("ipad", "b"),
	} {
		ends = append(ends, p.give("Bayley", c))
		live, err := p.state["Bayley"].Query(p.now, describe)
		if err != nil {
			t.Fatal(err)
		}
		lives, times = append(lives, live.(*licensedv1.CustomerState)), append(times, p.now)
		for replay.Sequence() < ends[i] {
			if err := replay.Apply(&p.records["Bayley"][replay.Sequence()]); err != nil {
				t.Fatal(err)
			}
		}
		if i == 3 { // from here on there is a snapshot to start at
			s := replay.Aggregate().Snapshot(p.now)
			p.roots["Bayley"] = append(p.roots["Bayley"], persistence.Root{
				Base:     ends[i],
				Mapper:   s.Mapper,
				Header:   s.Header,
				Snapshot: append([]byte{1, 5, 1, 0, 0, 0, 0}, s.Data...),
				Time:     p.now,
			})
		}
	}
	h := historyOf(r)
	for i := range lives {
		bySequence, err := h.GetState(t.Context(), connect.NewRequest(&licensedv1.GetStateRequest{
			CustomerId: "Bayley", At: &licensedv1.GetStateRequest_Sequence{Sequence: ends[i]},
		}))
		if err != nil {
			t.Fatal(err)
		}
		byTime, err := h.GetState(t.Context(), connect.NewRequest(&licensedv1.GetStateRequest{
			CustomerId: "Bayley", At: &licensedv1.GetStateRequest_Time{Time: timestamppb.New(times[i])},
		}))
		if err != nil {
			t.Fatal(err)
		}
		for how, res := range map[string]*licensedv1.GetStateResponse{"sequence": bySequence.Msg, "time": byTime.Msg} {
			if !proto.Equal(res.State, lives[i]) {
				t.Errorf("by %s at %d: %v\nwant %v", how, ends[i], res.State, lives[i])
			}
			m := res.Moment
			if m.Sequence != ends[i] || !m.EventTime.AsTime().Equal(times[i]) || !m.AsOf.AsTime().Equal(times[i]) ||
				m.HeadSequence != ends[len(ends)-1] ||
				m.PolicyVersion != "test" || m.RecordedPolicyVersion != "test" {
				t.Errorf("by %s at %d: %v", how, ends[i], m)
			}
			if from := m.ReplayedFrom; how == "sequence" && (from > 0) != (i > 3) {
				t.Errorf("at %d: replayed from %d", ends[i], from)
			}
		}
	}
}

var describe = &licensedv1.Query{Query: &licensedv1.Query_DescribeState{DescribeState: &licensedv1.DescribeState{}}}

// TestMoments: before the first event, now, in the future, past the end.
func TestMoments(t *testing.T) {
	p := newPast(t).life()
	h := historyOf(p.start())
	get := func(at any) (*licensedv1.GetStateResponse, error) {
		m := &licensedv1.GetStateRequest{CustomerId: "Bayley"}
		switch at := at.(type) {
		case uint64:
			m.At = &licensedv1.GetStateRequest_Sequence{Sequence: at}
		case time.Time:
			m.At = &licensedv1.GetStateRequest_Time{Time: timestamppb.New(at)}
		}
		res, err := h.GetState(t.Context(), connect.NewRequest(m))
		if err != nil {
			return nil, err
		}
		return res.Msg, nil
	}
	if res, err := get(noon.Add(-time.Hour)); err != nil || res.Moment.Sequence != 0 || res.Moment.EventTime != nil ||
		len(res.State.Devices) != 0 {
		t.Errorf("before the first event: %v, %v", res, err)
	}
	if res, err := get(nil); err != nil || res.Moment.Sequence != 15 || res.State.ActiveLicenses != 2 ||
		!res.Moment.AsOf.AsTime().Equal(p.now) {
		t.Errorf("now: %v, %v", res, err)
	}
	if res, err := get(p.now.AddDate(0, 2, 0)); err != nil || res.Moment.Sequence != 15 ||
		res.State.ActiveLicenses != 0 {
		t.Errorf("in two months: %v, %v", res, err)
	}
	if _, err := get(uint64(16)); connect.CodeOf(err) != connect.CodeOutOfRange ||
		reasonOf(err) != licensedv1.ReasonPastEnd {
		t.Errorf("past the end: %v", err)
	}
	if _, err := get(uint64(0)); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("event 0: %v", err)
	}
	if _, err := h.GetState(
		t.Context(), connect.NewRequest(&licensedv1.GetStateRequest{CustomerId: "Nobody"}),
	); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("nobody: %v", err)
	}
}

// TestSnapshotAtThePoint does where the events before it cannot be read.
func TestSnapshotAtThePoint(t *testing.T) {
	p := newPast(t).life()
	replay := actors.NewReplay(p.kind, "Bayley")
	for i := range p.records["Bayley"][:7] {
		if err := replay.Apply(&p.records["Bayley"][i]); err != nil {
			t.Fatal(err)
		}
	}
	at := replay.Time()
	s := replay.Aggregate().Snapshot(at)
	p.roots["Bayley"] = []persistence.Root{{
		Base: 7, Mapper: s.Mapper, Header: s.Header, Snapshot: append([]byte{1, 5, 1, 0, 0, 0, 0}, s.Data...), Time: at,
	}}
	p.gaps = []*persistence.HistoryGap{{Through: 7, Err: persistence.ErrCorrupt}}
	h := historyOf(p.start())
	res, err := h.GetState(t.Context(), connect.NewRequest(&licensedv1.GetStateRequest{
		CustomerId: "Bayley", At: &licensedv1.GetStateRequest_Sequence{Sequence: 7},
	}))
	if err != nil {
		t.Fatal(err)
	}
	if m := res.Msg.Moment; m.Sequence != 7 || m.ReplayedFrom != 7 || m.ReplayedEvents != 0 || m.EventTime != nil ||
		!m.AsOf.AsTime().Equal(at) || len(res.Msg.State.Licenses) != 1 {
		t.Errorf("%v", res.Msg)
	}
	if _, err := h.GetState(t.Context(), connect.NewRequest(&licensedv1.GetStateRequest{
		CustomerId: "Bayley", At: &licensedv1.GetStateRequest_Sequence{Sequence: 6},
	})); err == nil {
		t.Error("a state in the gap")
	}
}

// TestBrokenSnapshot: a snapshot that cannot be restored only takes longer.
func TestBrokenSnapshot(t *testing.T) {
	p := newPast(t).life()
	p.roots["Bayley"] = []persistence.Root{{Base: 10, Mapper: "LicenseSnapshot/1", Snapshot: []byte{99}}}
	r := p.start()
	res, err := historyOf(r).GetState(t.Context(),
		connect.NewRequest(&licensedv1.GetStateRequest{CustomerId: "Bayley"}))
	if err != nil || res.Msg.Moment.ReplayedFrom != 0 || res.Msg.Moment.ReplayedEvents != 15 {
		t.Errorf("%v, %v", res, err)
	}
	if !strings.Contains(r.logged(), "snapshot not restored") {
		t.Errorf("log %s", r.logged())
	}
}

func TestTryAt(t *testing.T) {
	p := newPast(t).life()
	h := historyOf(p.start())
	try := func(sequence uint64, c *licensedv1.Command) *licensedv1.TryAtResponse {
		t.Helper()
		m := &licensedv1.TryAtRequest{CustomerId: "Bayley", Command: c}
		if sequence > 0 {
			m.At = &licensedv1.TryAtRequest_Sequence{Sequence: sequence}
		}
		res, err := h.TryAt(t.Context(), connect.NewRequest(m))
		if err != nil {
			t.Fatal(err)
		}
		return res.Msg
	}
	// What was refused at 7 would have been allowed before the release at 6.
	if res := try(5, renews("iphone", "a")); res.Refusal != nil || res.License.Renewals != 2 || len(res.Events) != 1 ||
		res.Events[0].Event != "LicenseRenewed" {
		t.Errorf("at 5: %v", res)
	}
	res := try(6, renews("iphone", "a"))
	if res.Refusal.GetRule() != licensedv1.Rule_RULE_RELEASED || res.Events[0].Committed ||
		res.Events[0].Sequence != 7 || res.Events[0].RowId != "" {
		t.Errorf("at 6: %v", res)
	}
	// What a recorded refusal said, it says again.
	if res := try(14, acquires("tv", "a")); res.Refusal.GetRule() != licensedv1.Rule_RULE_STUDIO_LIMIT {
		t.Errorf("at 14: %v", res)
	}
	if res := try(0, &licensedv1.Command{
		Command: &licensedv1.Command_DeactivateDevice{DeactivateDevice: &licensedv1.DeactivateDevice{DeviceId: "ipad"}},
	}); !slices.Equal(res.ReleasedTitleIds, []string{"a", "b"}) {
		t.Errorf("deactivate: %v", res)
	}
	if res := try(0, &licensedv1.Command{
		Command: &licensedv1.Command_ChangePlan{ChangePlan: &licensedv1.ChangePlan{PlanId: "one"}},
	}); res.PlanId != "one" || res.DeviceLimit != 1 {
		t.Errorf("plan: %v", res)
	}
	// After exceptions, of which one may be refused.
	grant := func(l *licensedv1.OtherLimit, until time.Time) *licensedv1.Command {
		g := &licensedv1.GrantException{
			Reason: "tried", UntilMs: until.UnixMilli(), Kind: &licensedv1.GrantException_Limit{Limit: l},
		}
		return &licensedv1.Command{Command: &licensedv1.Command_GrantException{GrantException: g}}
	}
	more := &licensedv1.OtherLimit{
		Kind: licensedv1.LimitKind_LIMIT_KIND_STUDIO, StudioId: "any", Limit: proto.Uint32(9),
	}
	first := &licensedv1.TryAtRequest{
		CustomerId: "Bayley", Command: acquires("tv", "a"), At: &licensedv1.TryAtRequest_Sequence{Sequence: 14},
		First: []*licensedv1.Command{grant(more, noon.AddDate(10, 0, 0))},
	}
	after, err := h.TryAt(t.Context(), connect.NewRequest(first))
	if err != nil || after.Msg.License == nil || after.Msg.RefusedFirst != 0 ||
		after.Msg.Events[0].Sequence != 16 || after.Msg.Events[0].Event != "DeviceActivated" {
		t.Errorf("after an exception: %v, %v", after, err)
	}
	first.First = append(first.First, grant(more, time.UnixMilli(1)))
	after, err = h.TryAt(t.Context(), connect.NewRequest(first))
	if err != nil || after.Msg.Refusal.GetRule() != licensedv1.Rule_RULE_DATE_PASSED || after.Msg.RefusedFirst != 2 {
		t.Errorf("after an exception that would be refused: %v, %v", after, err)
	}
	first.First = []*licensedv1.Command{{}}
	if _, err = h.TryAt(t.Context(), connect.NewRequest(first)); !strings.Contains(fmt.Sprint(err), "first[0]") {
		t.Errorf("after no command: %v", err)
	}
	first.First = slices.Repeat([]*licensedv1.Command{acquires("tv", "a")}, 11)
	if _, err = h.TryAt(t.Context(), connect.NewRequest(first)); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("after 11 commands: %v", err)
	}
	// A licence acquired at the end of time would expire after it.
	late := &licensedv1.TryAtRequest{
		CustomerId: "Bayley",
		Command:    acquires("tv", "z"),
		At:         &licensedv1.TryAtRequest_Time{Time: timestamppb.New(time.Date(9999, 12, 20, 0, 0, 0, 0, time.UTC))},
	}
	if res, err := h.TryAt(t.Context(), connect.NewRequest(late)); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("at the end of time: %v, %v", res, err)
	}
	if n := len(p.records["Bayley"]); n != 15 {
		t.Errorf("%d events are recorded", n)
	}
	for name, c := range map[string]*licensedv1.Command{
		"none": nil, "empty": {}, "no title": acquires("iphone", ""), "slash": renews("a/b", "c"),
	} {
		_, err := h.TryAt(t.Context(), connect.NewRequest(&licensedv1.TryAtRequest{CustomerId: "Bayley", Command: c}))
		if connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), "command") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Somebody new may be asked about.
	if res, err := h.TryAt(
		t.Context(), connect.NewRequest(&licensedv1.TryAtRequest{CustomerId: "Nobody", Command: acquires("a", "b")}),
	); err != nil || len(res.Msg.Events) != 4 {
		t.Errorf("nobody: %v, %v", res, err)
	}
}

func TestWhy(t *testing.T) {
	p := newPast(t).life()
	h := historyOf(p.start())
	res, err := h.Why(t.Context(),
		connect.NewRequest(&licensedv1.WhyRequest{CustomerId: "Bayley", DeviceId: "iphone", TitleId: "a"}))
	if err != nil {
		t.Fatal(err)
	}
	w := res.Msg
	if !strings.HasPrefix(w.Verdict, "Not active: it was released at 2026-03-01 15:00:00 UTC (event 6).") ||
		w.License.GetActive() || len(w.Steps) != 5 ||
		w.Steps[4].Effect != licensedv1.WhyEffect_WHY_EFFECT_REFUSED ||
		w.Steps[4].Sequence != 7 || w.Steps[4].CommandId != "c7" || w.Moment.HeadSequence != 15 {
		t.Errorf("%v", w)
	}
	if _, err := h.Why(
		t.Context(), connect.NewRequest(&licensedv1.WhyRequest{CustomerId: "Bayley", DeviceId: "iphone"}),
	); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("no title: %v", err)
	}
	if _, err := h.Why(
		t.Context(), connect.NewRequest(&licensedv1.WhyRequest{CustomerId: "Nobody", DeviceId: "a", TitleId: "b"}),
	); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("nobody: %v", err)
	}
}

// TestOtherAnswer: an owner of another release that answers something else does no harm.
func TestOtherAnswer(t *testing.T) {
	p, f := newPast(t).life(), failing(nil)
	p.gaps = []*persistence.HistoryGap{expired}
	f.answer = func(*licensedv1.Query) (actors.Answer, error) {
		return actors.Answer{Value: &licensedv1.ListDevicesResponse{}, Head: persistence.Head{
			Partition: persistence.Partition{RootKey: persistence.RootKey{Aggregate: "Bayley", Epoch: 1, Version: 1}},
			Sequence:  3,
		}}, nil
	}
	r := start(t, f, func(c *gateway.Config) {
		c.HistoryReader, c.Kind, c.PolicyVersion = p, p.kind, func() string { return "p" }
	})
	_, err := historyOf(r).Why(t.Context(),
		connect.NewRequest(&licensedv1.WhyRequest{CustomerId: "Bayley", DeviceId: "iphone", TitleId: "a"}))
	if connect.CodeOf(err) != connect.CodeInternal || !strings.Contains(r.logged(), "another question") {
		t.Errorf("%v", err)
	}
}

// TestImporting: a customer that is being imported takes no commands.
func TestImporting(t *testing.T) {
	p := newPast(t)
	r := p.start()
	_, err := licensedv1connect.NewLicenseServiceClient(http.DefaultClient, r.url).AcquireLicense(t.Context(),
		connect.NewRequest(&licensedv1.AcquireLicenseRequest{
			CustomerId: "Bayley", DeviceId: "iphone", TitleId: "a", CommandId: "c",
		}))
	if connect.CodeOf(err) != connect.CodeUnavailable || reasonOf(err) != licensedv1.ReasonImporting {
		t.Errorf("%v (%s)", err, reasonOf(err))
	}
}
