package license

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/actors"
	"licensed/actors/license/policy"
	"licensed/messages/licensedv1"
	"licensed/persistence"
)

const customerID = "Bayley"

// trial runs commands on three copies of one customer's aggregate, which must never differ: one that
// continues in memory, one that is replayed from the stored bytes of its events, and one that is put
// through a snapshot before every command.
type trial struct {
	t        testing.TB
	kind     *Kind
	now      time.Time
	live     actors.Aggregate
	replayed actors.Aggregate
	packed   actors.Aggregate
	history  []actors.Event
	advised  int // licences that the advice of refusals would have ended
}

func newTrial(t testing.TB, p *policy.Policy, now time.Time) *trial {
	k := NewKind(p)
	return &trial{
		t: t, kind: k, now: now,
		live: k.New(customerID), replayed: k.New(customerID), packed: k.New(customerID),
	}
}

// repack puts the third copy through a snapshot.
func (r *trial) repack() {
	r.t.Helper()
	r.packed = restore(r.t, r.kind, r.packed.Snapshot(r.now))
}

func restore(t testing.TB, k *Kind, s actors.Snapshot) actors.Aggregate {
	t.Helper()
	a, err := k.Restore(customerID, s)
	if err != nil {
		t.Fatalf("restore %x: %v", s.Data, err)
	}
	return a
}

// decide returns what all copies decide.
func (r *trial) decide(c *licensedv1.Command) actors.Decision {
	r.t.Helper()
	r.repack()
	d := r.live.Decide(r.now, c)
	for name, a := range map[string]actors.Aggregate{"replayed": r.replayed, "restored": r.packed} {
		if other := a.Decide(r.now, c); describe(other) != describe(d) {
			r.t.Fatalf("%v at %v\ndecided live:\n%sdecided %s:\n%s", c, r.now, describe(d), name, describe(other))
		}
	}
	return d
}

// execute decides a command and evolves the copies; the one that is replayed sees stored bytes only.
func (r *trial) execute(c *licensedv1.Command) actors.Decision {
	r.t.Helper()
	d := r.decide(c)
	from := len(r.history)
	for _, e := range d.Events {
		r.live.Evolve(e)
		r.packed.Evolve(e)
		stored := e
		var err error
		if stored.Value, err = r.kind.DecodeEvent(e.Mapper, e.Header, bytes.Clone(e.Data)); err != nil {
			r.t.Fatal(err)
		}
		if !proto.Equal(stored.Value.(proto.Message), e.Value.(proto.Message)) {
			r.t.Fatalf("stored %v, read %v", e.Value, stored.Value)
		}
		if err := r.kind.CheckForeign(&persistence.Record{
			Sequence: uint64(len(r.history)) + 1, Count: 1, CommandID: "c", AggregateID: e.AggregateID, Order: e.Order,
			Time: e.Time, IssuedAt: e.Time, Mapper: e.Mapper, Header: e.Header, Data: e.Data,
		}); err != nil {
			r.t.Fatalf("an import would refuse %v: %v", e, err)
		}
		r.replayed.Evolve(stored)
		r.history = append(r.history, stored)
	}
	if live, stored := r.kind.Outcome(d.Events), r.kind.Outcome(r.history[from:]); !bytes.Equal(live, stored) {
		r.t.Fatalf("%v: outcome %x before and %x after a recovery", c, live, stored)
	}
	return d
}

// outcome packs and unpacks the result of a command.
func (r *trial) outcome(c *licensedv1.Command, d actors.Decision) Outcome {
	r.t.Helper()
	o, err := DecodeOutcome(customerID, c, r.now, r.kind.Outcome(d.Events))
	if err != nil {
		r.t.Fatalf("%v: %v", c, err)
	}
	return o
}

// query returns what all copies answer.
func (r *trial) query(q *licensedv1.Query) any {
	r.t.Helper()
	r.repack()
	var answers []any
	for _, a := range []actors.Aggregate{r.live, r.replayed, r.packed} {
		answer, err := a.Query(r.now, q)
		if err != nil {
			r.t.Fatal(err)
		}
		answers = append(answers, answer)
	}
	for _, other := range answers[1:] {
		if !sameAnswer(answers[0], other) {
			r.t.Fatalf("%v at %v\nanswered %v\nand      %v", q, r.now, answers[0], other)
		}
	}
	return answers[0]
}

func sameAnswer(a, b any) bool {
	if d, ok := a.(*Downloads); ok {
		e := b.(*Downloads)
		return proto.Equal(d.Response, e.Response) && d.Older == e.Older && d.Since.Equal(e.Since)
	}
	return proto.Equal(a.(proto.Message), b.(proto.Message))
}

// describe writes a decision as transcripts show it, an event a line.
func describe(d actors.Decision) string {
	var b strings.Builder
	for _, e := range d.Events {
		name, _, _ := strings.Cut(e.Mapper, "/")
		fmt.Fprintf(&b, "%-20s #%d %s%s\n", e.AggregateID, e.Order, name, fieldsOf(e.Value.(proto.Message)))
	}
	return b.String()
}

// fieldsOf writes the fields of an event in the order of their numbers.
func fieldsOf(m proto.Message) string {
	var b strings.Builder
	r := m.ProtoReflect()
	for i := range r.Descriptor().Fields().Len() {
		f := r.Descriptor().Fields().Get(i)
		if !r.Has(f) {
			continue
		}
		if f.IsList() {
			for i := range r.Get(f).List().Len() {
				if e := r.Get(f).List().Get(i); f.Message() != nil {
					fmt.Fprintf(&b, "\n%23s%s:%s", "", f.Name(), fieldsOf(e.Message().Interface()))
				} else {
					fmt.Fprintf(&b, " %s=%s", f.Name(), e)
				}
			}
			continue
		}
		if f.Message() != nil {
			if t, ok := r.Get(f).Message().Interface().(*timestamppb.Timestamp); ok {
				fmt.Fprintf(&b, " %s=%s", f.Name(), clock(t.AsTime()))
				continue
			}
			b.WriteString(fieldsOf(r.Get(f).Message().Interface()))
			continue
		}
		name := strings.TrimSuffix(string(f.Name()), "_ms")
		fmt.Fprintf(&b, " %s=%s", name, value(f, r.Get(f)))
	}
	return b.String()
}

func value(f protoreflect.FieldDescriptor, v protoreflect.Value) string {
	switch {
	case f.Enum() != nil:
		name := string(f.Enum().Values().ByNumber(v.Enum()).Name())
		for _, prefix := range []string{
			"RULE_", "COMMAND_KIND_", "YEARLY_COUNTS_", "SHORTENED_BY_", "LIMIT_KIND_",
		} {
			name = strings.TrimPrefix(name, prefix)
		}
		return name
	case strings.HasSuffix(string(f.Name()), "_ms"):
		return clock(time.UnixMilli(v.Int()))
	default:
		return v.String()
	}
}

func clock(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.999Z") }

func acquire(device, title string) *licensedv1.Command {
	return &licensedv1.Command{Command: &licensedv1.Command_AcquireLicense{
		AcquireLicense: &licensedv1.AcquireLicense{DeviceId: device, TitleId: title},
	}}
}

func download(device, title string) *licensedv1.Command {
	c := acquire(device, title)
	c.GetAcquireLicense().NewDownload = true
	return c
}

// labelled returns a command with a name and a type of its device.
func labelled(c *licensedv1.Command, name string, kind licensedv1.DeviceType) *licensedv1.Command {
	c.DeviceName, c.DeviceType = name, kind
	return c
}

func renew(device, title string) *licensedv1.Command {
	return &licensedv1.Command{Command: &licensedv1.Command_RenewLicense{
		RenewLicense: &licensedv1.RenewLicense{DeviceId: device, TitleId: title},
	}}
}

func release(device, title string) *licensedv1.Command {
	return &licensedv1.Command{Command: &licensedv1.Command_ReleaseLicense{
		ReleaseLicense: &licensedv1.ReleaseLicense{DeviceId: device, TitleId: title},
	}}
}

func play(device, title string) *licensedv1.Command {
	return &licensedv1.Command{Command: &licensedv1.Command_RecordPlayback{
		RecordPlayback: &licensedv1.RecordPlayback{DeviceId: device, TitleId: title},
	}}
}

func deactivate(device string) *licensedv1.Command {
	return &licensedv1.Command{Command: &licensedv1.Command_DeactivateDevice{
		DeactivateDevice: &licensedv1.DeactivateDevice{DeviceId: device},
	}}
}

const (
	downloaded = licensedv1.FactKind_FACT_KIND_DOWNLOADED
	played     = licensedv1.FactKind_FACT_KIND_PLAYED
	deleted    = licensedv1.FactKind_FACT_KIND_DELETED
)

func fact(number uint64, kind licensedv1.FactKind, title string, at time.Time) *licensedv1.SyncDevice_Fact {
	return &licensedv1.SyncDevice_Fact{Number: number, Kind: kind, TitleId: title, AtMs: at.UnixMilli()}
}

func sync(device string, facts ...*licensedv1.SyncDevice_Fact) *licensedv1.Command {
	return &licensedv1.Command{Command: &licensedv1.Command_SyncDevice{
		SyncDevice: &licensedv1.SyncDevice{DeviceId: device, Facts: facts},
	}}
}

func issuedAt(at time.Time, c *licensedv1.Command) *licensedv1.Command {
	c.IssuedAtMs = at.UnixMilli()
	return c
}

func changePlan(plan string) *licensedv1.Command {
	return &licensedv1.Command{Command: &licensedv1.Command_ChangePlan{
		ChangePlan: &licensedv1.ChangePlan{PlanId: plan},
	}}
}

func selectDevices(devices ...string) *licensedv1.Command {
	return &licensedv1.Command{Command: &licensedv1.Command_SelectDevices{
		SelectDevices: &licensedv1.SelectDevices{DeviceIds: devices},
	}}
}

func lend(device, gateway string, titles ...string) *licensedv1.Command {
	return &licensedv1.Command{Command: &licensedv1.Command_LendAllowance{
		LendAllowance: &licensedv1.LendAllowance{DeviceId: device, GatewayId: gateway, TitleIds: titles},
	}}
}

func redeem(device, title, gateway string, number uint64, at time.Time) *licensedv1.Command {
	c := acquire(device, title)
	a := c.GetAcquireLicense()
	a.Allowance, a.GatewayId, a.RedeemedAtMs = number, gateway, at.UnixMilli()
	return c
}

func giveBack(device, gateway string, number uint64) *licensedv1.Command {
	return &licensedv1.Command{Command: &licensedv1.Command_ReturnAllowance{
		ReturnAllowance: &licensedv1.ReturnAllowance{DeviceId: device, GatewayId: gateway, Number: number},
	}}
}

func grantLimit(until time.Time, limit *licensedv1.OtherLimit) *licensedv1.Command {
	return &licensedv1.Command{Command: &licensedv1.Command_GrantException{GrantException: &licensedv1.GrantException{
		Reason: "ticket 1", UntilMs: until.UnixMilli(), Kind: &licensedv1.GrantException_Limit{Limit: limit},
	}}}
}

// forgiveRemoval is about the latest removal for the zero time.
func forgiveRemoval(at time.Time) *licensedv1.Command {
	r := &licensedv1.ForgivenRemoval{}
	if !at.IsZero() {
		r.RemovedAt = timestamppb.New(at)
	}
	return &licensedv1.Command{Command: &licensedv1.Command_GrantException{GrantException: &licensedv1.GrantException{
		Reason: "ticket 1", Kind: &licensedv1.GrantException_Removal{Removal: r},
	}}}
}

func forgiveUse(use *licensedv1.ForgivenUse) *licensedv1.Command {
	return &licensedv1.Command{Command: &licensedv1.Command_GrantException{GrantException: &licensedv1.GrantException{
		Reason: "ticket 1", Kind: &licensedv1.GrantException_Use{Use: use},
	}}}
}

func merge(from, to string) *licensedv1.Command {
	return &licensedv1.Command{Command: &licensedv1.Command_GrantException{GrantException: &licensedv1.GrantException{
		Reason: "ticket 1", Kind: &licensedv1.GrantException_Merge{
			Merge: &licensedv1.MergedDevice{OldDeviceId: from, NewDeviceId: to},
		},
	}}}
}

func withdraw(number uint64) *licensedv1.Command {
	return &licensedv1.Command{Command: &licensedv1.Command_WithdrawException{
		WithdrawException: &licensedv1.WithdrawException{Reason: "ticket 2", Number: number},
	}}
}

// events iterates over the history.
func (r *trial) events(yield func(actors.Event, error) bool) {
	for _, e := range r.history {
		if !yield(e, nil) {
			return
		}
	}
}
