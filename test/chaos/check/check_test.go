package check_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/actors"
	"licensed/actors/license"
	"licensed/actors/license/policy"
	"licensed/messages/licensedv1"
	"licensed/test/chaos/check"
	"licensed/test/chaos/client"
	"licensed/test/chaos/history"
	"licensed/test/chaos/model"
)

var start = time.UnixMilli(1_790_000_000_000)

// service is a perfect one: it executes on the model, at a moment between call and return. What its events
// say is the product's.
type service struct {
	product actors.Aggregate
	rules   model.Rules
	state   *model.State
	orders  map[string]uint64
	clock   int64
	run
}

// run is what a perfect service leaves, for tests to damage.
type run struct {
	ops      []*history.Op
	recorded history.Customer
}

// perfect returns a run of one customer with 500 requests of three clients, lost answers and repeats.
func perfect(t *testing.T, seed uint64) (*model.Rules, run) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 7))
	s := &service{rules: model.Standard(start), orders: map[string]uint64{}}
	s.state = model.New(&s.rules)
	p, err := policy.Parse("chaos.yaml", []byte(s.rules.YAML()))
	if err != nil {
		t.Fatal(err)
	}
	s.product = license.NewKind(p).New("c")
	s.recorded.ID = "c"
	for i := range 500 {
		in := choose(random, i)
		s.clock += 10
		call, at := s.clock, s.clock+5+random.Int64N(5)
		out := s.execute(t, &in, start.UnixMilli()+at)
		op := &history.Op{
			ID: uint64(i + 1), Client: i % 3, Call: call - random.Int64N(10), Return: at + random.Int64N(10),
			Input: in, Output: out,
		}
		s.ops = append(s.ops, op)
		switch {
		case in.Records() && i%17 == 0: // The answer is lost for good.
			op.Return, op.Output = 0, history.Output{}
		case in.Records() && i%13 == 0: // The answer is lost, and a repeat gets it.
			op.Output = history.Output{Reason: "OUTCOME_UNKNOWN"}
			out.Duplicate = true
			s.ops = append(s.ops,
				&history.Op{ID: op.ID, Client: i % 3, Call: op.Return, Return: op.Return + 1, Input: in, Output: out})
		}
	}
	s.recorded.Head = s.state.Sequence
	for _, q := range []history.Input{{Kind: history.ListLicenses, Inactive: true}, {Kind: history.ListDevices}} {
		s.recorded.Views = append(s.recorded.Views, history.View{Member: "n1", Input: q, Output: s.state.Answer(&q)})
	}
	return &s.rules, s.run
}

func (s *service) execute(t *testing.T, in *history.Input, at int64) history.Output {
	t.Helper()
	if in.Kind.Query() {
		return s.state.Answer(in)
	}
	next, out, events := s.state.Apply(in, at)
	if in.ValidateOnly {
		return out
	}
	decided := s.product.Decide(time.UnixMilli(at), client.Command(in))
	for i, e := range events {
		event := said(t, &decided.Events[i])
		s.product.Evolve(decided.Events[i])
		seq := s.state.Sequence + uint64(i) + 1
		event.Sequence, event.Epoch, event.Row = seq, 1+seq/100, fmt.Sprintf("c:LicenseAggregate:%d", 1+seq/40+seq/100)
		event.Aggregate, event.Name, event.Order = e.Aggregate, e.Name, s.orders[e.Aggregate]
		event.Command, event.Index, event.Count = in.Command, uint32(i), uint32(len(events))
		event.Archived = seq < 50
		s.orders[e.Aggregate]++
		s.recorded.Events = append(s.recorded.Events, event)
	}
	s.state = next
	return out
}

// said is an event as the service lists it.
func said(t *testing.T, e *actors.Event) history.Event {
	t.Helper()
	data, err := anypb.New(e.Value.(proto.Message))
	if err != nil {
		t.Fatal(err)
	}
	out, err := client.Event(&licensedv1.HistoryEvent{
		Event:     string(e.Value.(proto.Message).ProtoReflect().Descriptor().Name()),
		EventTime: timestamppb.New(e.Time),
		Data:      data,
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func choose(r *rand.Rand, i int) history.Input {
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	in := history.Input{
		Customer: "c",
		Device:   pick("d", "e", "f"),
		Title:    pick("A", "B", "C", "D", "E", "F", "G", "H"),
		Command:  fmt.Sprint("c", i),
	}
	switch n := r.IntN(10); {
	case n < 4:
		in.Kind, in.NewDownload = history.Acquire, r.IntN(3) == 0
	case n < 5:
		in.Kind = history.Renew
	case n < 7:
		in.Kind = history.Release
	case n < 8:
		in.Kind = history.Play
	case n < 9:
		return history.Input{Kind: history.ListLicenses, Customer: "c"}
	case r.IntN(10) == 0:
		return history.Input{Kind: history.Deactivate, Customer: "c", Device: in.Device, Command: in.Command}
	default:
		return history.Input{
			Kind: history.ChangePlan, Customer: "c", Plan: pick("one", "two", "three", "none"), Command: in.Command,
		}
	}
	if r.IntN(10) == 0 {
		in.Command, in.ValidateOnly = "", true
	}
	return in
}

func verdict(r *model.Rules, x run) []check.Violation {
	return check.Customer(check.DefaultConfig(start), r, x.ops, &x.recorded)
}

func TestPerfect(t *testing.T) {
	for seed := range uint64(20) {
		r, x := perfect(t, seed)
		if v := verdict(r, x); len(v) > 0 {
			t.Fatalf("seed %d: %v", seed, v)
		}
	}
}

// answered returns the n-th command that was answered so at once.
func (x *run) answered(t *testing.T, outcome history.Outcome, n int) *history.Op {
	t.Helper()
	for _, o := range x.ops {
		if o.Input.Records() && o.Output.Outcome == outcome && !o.Output.Duplicate {
			if n--; n < 0 {
				return o
			}
		}
	}
	t.Fatal("no such command")
	return nil
}

// eventsOf returns where a command is recorded.
func (x *run) eventsOf(id string) (from, to int) {
	of := func(e history.Event) bool { return e.Command == id }
	from = slices.IndexFunc(x.recorded.Events, of)
	for to = from; to < len(x.recorded.Events) && of(x.recorded.Events[to]); to++ {
	}
	return from, to
}

// event returns the first of a name.
func (x *run) event(t *testing.T, name string) *history.Event {
	t.Helper()
	i := slices.IndexFunc(x.recorded.Events, func(e history.Event) bool { return e.Name == name })
	if i < 0 {
		t.Fatalf("no %s", name)
	}
	return &x.recorded.Events[i]
}

// renumber makes a damaged history look whole, as a service that lost or doubled a command would show it.
func (x *run) renumber() {
	orders := map[string]uint64{}
	for i := range x.recorded.Events {
		e := &x.recorded.Events[i]
		e.Sequence, e.Order = uint64(i)+1, orders[e.Aggregate]
		orders[e.Aggregate]++
	}
	x.recorded.Head = uint64(len(x.recorded.Events))
}

// TestNegativeControls damages a perfect run in every way that a check detects.
func TestNegativeControls(t *testing.T) {
	for _, c := range controls {
		t.Run(c.name, func(t *testing.T) {
			for seed := range uint64(3) {
				r, x := perfect(t, seed)
				c.damage(t, &x)
				found := verdict(r, x)
				if len(found) == 0 {
					t.Fatalf("seed %d: not noticed", seed)
				}
				if !slices.ContainsFunc(found, func(v check.Violation) bool {
					return strings.Contains(c.checks, v.Check)
				}) {
					t.Errorf("seed %d: noticed as %v, want %s", seed, found, c.checks)
				}
			}
		})
	}
}

var controls = []struct {
	name   string
	checks string // any of these
	damage func(t *testing.T, x *run)
}{
	{"fake acknowledgement", "acknowledged", func(_ *testing.T, x *run) {
		o := &history.Op{
			ID:     999,
			Call:   1e6,
			Return: 1e6 + 1,
			Input:  history.Input{Kind: history.Release, Customer: "c", Device: "d", Title: "A", Command: "fake"},
		}
		o.Output = history.Output{Outcome: history.Accepted, Sequence: x.recorded.Head + 1}
		x.ops = append(x.ops, o)
	}},
	{"acknowledged at another sequence", "acknowledged", func(t *testing.T, x *run) {
		x.answered(t, history.Accepted, 9).Output.Sequence++
	}},
	{"acknowledged with other content", "acknowledged", func(t *testing.T, x *run) {
		for n := 0; ; n++ {
			if o := x.answered(t, history.Accepted, n); o.Output.License != nil {
				l := *o.Output.License
				l.Expires++
				o.Output.License = &l
				return
			}
		}
	}},
	{"dropped event", "structure", func(_ *testing.T, x *run) {
		x.recorded.Events = slices.Delete(x.recorded.Events, 20, 21)
	}},
	{"dropped command, renumbered", "acknowledged", func(t *testing.T, x *run) {
		from, to := x.eventsOf(x.answered(t, history.Accepted, 5).Input.Command)
		x.recorded.Events = slices.Delete(x.recorded.Events, from, to)
		x.renumber()
	}},
	{"dropped at the end", "acknowledged structure", func(_ *testing.T, x *run) {
		x.recorded.Events = x.recorded.Events[:len(x.recorded.Events)-8]
		x.recorded.Head = uint64(len(x.recorded.Events))
	}},
	{"doubled event", "structure", func(_ *testing.T, x *run) {
		x.recorded.Events = slices.Insert(x.recorded.Events, 20, x.recorded.Events[20])
	}},
	{"doubled command, renumbered", "acknowledged", func(t *testing.T, x *run) {
		from, to := x.eventsOf(x.answered(t, history.Accepted, 5).Input.Command)
		x.recorded.Events = slices.Insert(x.recorded.Events, to+10, slices.Clone(x.recorded.Events[from:to])...)
		x.renumber()
	}},
	{"reordered pair, renumbered", "acknowledged structure", func(_ *testing.T, x *run) {
		e := x.recorded.Events
		for i := 30; ; i++ {
			if e[i].Command != e[i+1].Command && e[i].Count == 1 && e[i+1].Count == 1 {
				e[i], e[i+1] = e[i+1], e[i]
				x.renumber()
				return
			}
		}
	}},
	{"stale read", "linearizable", func(_ *testing.T, x *run) {
		var first *history.Op
		for _, o := range x.ops {
			if o.Input.Kind != history.ListLicenses {
				continue
			}
			if first == nil {
				first = o
			} else if o.Output.Sequence > first.Output.Sequence {
				o.Output = first.Output
				return
			}
		}
	}},
	{"read of what never was", "linearizable", func(_ *testing.T, x *run) {
		for _, o := range slices.Backward(x.ops) {
			if o.Input.Kind == history.ListLicenses {
				o.Output.Licenses = append(slices.Clone(o.Output.Licenses), history.License{Device: "z", Title: "A"})
				return
			}
		}
	}},
	{"refused, then applied", "refused acknowledged", func(t *testing.T, x *run) {
		from, _ := x.eventsOf(x.answered(t, history.Refused, 2).Input.Command)
		x.recorded.Events[from].Name, x.recorded.Events[from].Refusal = "LicenseAcquired", nil
	}},
	{"refused, and applied later", "refused acknowledged", func(t *testing.T, x *run) {
		o := x.answered(t, history.Refused, 2)
		x.recorded.Events = append(x.recorded.Events, history.Event{
			Epoch: 9, Row: "c:LicenseAggregate:99", Aggregate: "d", Name: "DeviceActivated", Time: 1e15,
			Command: o.Input.Command, Count: 1,
		})
		x.renumber()
	}},
	{"not executed, and recorded", "refused", func(t *testing.T, x *run) {
		o := x.answered(t, history.Accepted, 3)
		o.Output = history.Output{Outcome: history.NotExecuted, Reason: "OVERLOADED"}
	}},
	{"nobody sent it", "refused", func(t *testing.T, x *run) {
		id := x.answered(t, history.Accepted, 3).Input.Command
		x.ops = slices.DeleteFunc(x.ops, func(o *history.Op) bool { return o.Input.Command == id })
	}},
	{"two answers to one id", "acknowledged", func(t *testing.T, x *run) {
		o := *x.answered(t, history.Accepted, 3)
		o.Call, o.Return = 1e6, 1e6+1
		o.Output.Duplicate = true
		o.Output.Sequence += 4
		x.ops = append(x.ops, &o)
	}},
	{"executed twice, by its answers", "acknowledged", func(t *testing.T, x *run) {
		o := *x.answered(t, history.Accepted, 3)
		o.Call, o.Return = 1e6, 1e6+1
		x.ops = append(x.ops, &o)
	}},
	{"answered before it was sent", "linearizable", func(t *testing.T, x *run) {
		o := x.answered(t, history.Accepted, 20)
		o.Call, o.Return = -100, -50
	}},
	{"told not executed, and seen before the attempt that is answered", "linearizable", func(_ *testing.T, x *run) {
		// A read that returned before the only attempt that may have executed the command shows its effect.
		for _, o := range x.ops {
			if o.Input.Kind != history.ListLicenses {
				continue
			}
			for _, c := range x.ops {
				if c.Input.Records() && c.Output.Outcome == history.Accepted &&
					!c.Output.Duplicate && c.Output.Sequence == o.Output.Sequence && c.Return < o.Call {
					first := *c
					first.Output = history.Output{Outcome: history.NotExecuted, Reason: "NOT_EXECUTED"}
					c.Call, c.Return, c.Output.Duplicate = o.Return+1, max(c.Return, o.Return+2), true
					x.ops = append(x.ops, &first)
					return
				}
			}
		}
	}},
	{"a validation that tells another time of acquisition", "linearizable", func(_ *testing.T, x *run) {
		for _, o := range x.ops {
			// What is accepted of a licence that is held tells when it was acquired.
			if l := o.Output.License; o.Input.ValidateOnly && l != nil &&
				(o.Input.Kind == history.Renew || l.Acquired < start.UnixMilli()+o.Call-20) {
				other := *l
				other.Acquired -= 5
				o.Output.License = &other
				return
			}
		}
	}},
	{"over a limit", "limits", func(t *testing.T, x *run) {
		for n := 0; ; n++ {
			o := x.answered(t, history.Refused, n)
			if o.Output.Refusal.Rule != model.StudioLimit && o.Output.Refusal.Rule != model.YearlyLimit {
				continue
			}
			from, _ := x.eventsOf(o.Input.Command)
			e := &x.recorded.Events[from]
			*e = history.Event{Sequence: e.Sequence, Epoch: e.Epoch, Row: e.Row,
				Aggregate: o.Input.Device + "/" + o.Input.Title,
				Name:      "LicenseAcquired", Time: e.Time, Command: e.Command, Count: 1, Archived: e.Archived}
			x.renumber()
			o.Output = history.Output{Outcome: history.Accepted, Sequence: o.Output.Sequence}
			return
		}
	}},
	{"an event without its licence", "acknowledged", func(t *testing.T, x *run) {
		x.event(t, "LicenseRenewed").License = nil
	}},
	{"a download that names no licence", "acknowledged", func(t *testing.T, x *run) {
		for i := range x.recorded.Events {
			if e := &x.recorded.Events[i]; e.Name == "TitleDownloaded" && e.License != nil {
				e.License = nil
				return
			}
		}
		t.Fatal("no such event")
	}},
	{"a refusal without its reason", "acknowledged", func(t *testing.T, x *run) {
		x.event(t, "CommandRefused").Refusal = nil
	}},
	{"a refusal that names another command", "acknowledged", func(t *testing.T, x *run) {
		x.event(t, "CommandRefused").Title = "Z"
	}},
	{"a deactivation that ends a licence otherwise", "acknowledged", func(t *testing.T, x *run) {
		for i := range x.recorded.Events {
			if e := &x.recorded.Events[i]; e.Name == "LicenseReleased" && e.Count > 1 {
				e.License.Acquired++
				return
			}
		}
		t.Fatal("no such event")
	}},
	{"a playback that counts otherwise", "acknowledged", func(t *testing.T, x *run) {
		e := x.event(t, "TitlePlayed")
		e.Counted = !e.Counted
	}},
	{"an epoch goes back", "structure", func(_ *testing.T, x *run) { x.recorded.Events[150].Epoch = 1 }},
	{"a partition of two epochs", "structure", func(_ *testing.T, x *run) {
		for i := range x.recorded.Events {
			x.recorded.Events[i].Row = "c:LicenseAggregate:1"
		}
	}},
	{"time goes back", "structure", func(_ *testing.T, x *run) { x.recorded.Events[100].Time = 1 }},
	{"an event that cannot be decoded", "structure", func(_ *testing.T, x *run) {
		x.recorded.Events[100].Problem = "no such mapper"
	}},
	{"a member that remembers otherwise", "structure", func(_ *testing.T, x *run) {
		x.recorded.Views[0].Output.Licenses = slices.Clone(x.recorded.Views[0].Output.Licenses)[1:]
	}},
	{"finding of the verification", "structure", func(_ *testing.T, x *run) {
		x.recorded.Findings = []string{"root 3 has no parent"}
	}},
	{"gap", "archive", func(_ *testing.T, x *run) {
		x.recorded.Gaps = []string{"events 1 to 4: a segment is missing"}
	}},
	{"hot below archived", "archive", func(_ *testing.T, x *run) { x.recorded.Events[20].Archived = false }},
	{"a defect that the service reports", "acknowledged", func(t *testing.T, x *run) {
		x.answered(t, history.Accepted, 3).Output = history.Output{Outcome: history.Broken, Reason: "CORRUPT_HISTORY"}
	}},
}

// TestOutOfTime makes sure that a search that does not end is not taken for a good one.
func TestOutOfTime(t *testing.T) {
	r, x := perfect(t, 1)
	config := check.DefaultConfig(start)
	config.Timeout = time.Nanosecond
	found := check.Customer(config, r, x.ops, &x.recorded)
	if len(found) != 1 || found[0].Check != check.Linearizable || !strings.Contains(found[0].Text, "not decided") {
		t.Errorf("found %v", found)
	}
}
