package actors_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"licensed/actors"
	"licensed/actors/actorstest"
	"licensed/persistence"
)

// TestMachine runs the transcripts in testdata: each line is an input, below it what the machine asks
// for. Rewrite them with go test ./actors -run TestMachine -rewrite.
func TestMachine(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var s session
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string { return s.run(t, d) })
	})
}

// session is a machine in a transcript, and what it was given.
type session struct {
	env      actors.Environment
	machine  *actors.Machine
	now      time.Time
	held     bool
	requests map[*actors.Request]string
	putRoot  *persistence.Root
	append   *persistence.Mutation
	roots    []persistence.Root                             // written and durable, for recovery
	rows     map[persistence.Partition][]persistence.Record // landed
	reading  persistence.Partition                          // asked for last
}

var machineEpoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func (s *session) run(t *testing.T, d *datadriven.TestData) string {
	t.Helper()
	in := actors.Input{}
	switch d.Cmd {
	case "new":
		return s.start(t, d)
	case "clock":
		var ms int
		d.ScanArgs(t, "ms", &ms)
		s.now = machineEpoch.Add(time.Duration(ms) * time.Millisecond)
		return ""
	case "lease":
		s.held = d.HasArg("held")
		return ""
	case "add", "total":
		in.Kind, in.Request = actors.InputRequest, s.request(t, d)
	case "import":
		in.Kind, in.Request = actors.InputRequest, s.imports(t, d)
	case "tick":
		in.Kind = actors.InputTick
	case "top":
		in.Kind = actors.InputTop
		in.Root, in.Err = s.top(d)
	case "rows":
		in.Kind = actors.InputRows
		in.Records, in.Err = s.take(t, d), fault(d)
	case "root-written":
		in.Kind, in.Err = actors.InputRootWritten, fault(d)
		if in.Err == nil {
			s.roots = append(s.roots, *s.putRoot)
		}
	case "appended":
		in.Kind, in.Err = actors.InputAppended, fault(d)
		landed := 0 // of a mutation with unknown outcome
		d.MaybeScanArgs(t, "landed", &landed)
		if in.Err == nil {
			landed = len(s.append.Records)
		}
		p := s.append.Partition
		s.rows[p] = append(s.rows[p], s.append.Records[:landed]...)
	case "pack":
		return fmt.Sprintf("packed: %t\n", s.machine.Pack())
	case "quiescent":
		return fmt.Sprintf("%t\n", s.machine.Quiescent())
	default:
		t.Fatalf("unknown command %s", d.Cmd)
	}
	in.Now, in.Steady, in.Held = s.now, s.now, s.held
	return s.print(s.machine.Step(in))
}

func (s *session) start(t *testing.T, d *datadriven.TestData) string {
	var epoch, floor, every, limit uint64 = 1, 0, 3, 0
	d.MaybeScanArgs(t, "epoch", &epoch)
	d.MaybeScanArgs(t, "floor", &floor)
	d.MaybeScanArgs(t, "snapshot-every", &every)
	d.MaybeScanArgs(t, "limit", &limit)
	c := actors.DefaultConfig()
	c.SnapshotEvery, c.ReadPage = int(every), 2
	d.MaybeScanArgs(t, "remembered", &c.Window.MaxCommands)
	s.env = actors.Environment{
		Kind: actorstest.Ledger{Limit: limit}, Config: c, Incarnation: persistence.Incarnation{byte(epoch)},
	}
	s.machine = actors.NewMachine(&s.env, "a", epoch, floor)
	s.held, s.requests = true, map[*actors.Request]string{}
	if s.rows == nil {
		s.rows = map[persistence.Partition][]persistence.Record{}
	}
	if s.now.IsZero() {
		s.now = machineEpoch
	}
	return ""
}

func (s *session) request(t *testing.T, d *datadriven.TestData) *actors.Request {
	r := &actors.Request{}
	if d.Cmd == "total" {
		r.Query = actorstest.Total{}
		s.requests[r] = "total"
		return r
	}
	var id string
	var amount, split int
	issued := int(s.now.Sub(machineEpoch).Milliseconds())
	d.ScanArgs(t, "id", &id)
	d.ScanArgs(t, "amount", &amount)
	d.MaybeScanArgs(t, "split", &split)
	d.MaybeScanArgs(t, "issued", &issued)
	var deadline int
	if d.MaybeScanArgs(t, "deadline", &deadline) {
		r.Deadline = machineEpoch.Add(time.Duration(deadline) * time.Millisecond)
	}
	r.Command = actors.Command{
		ID: id, Fingerprint: uint64(amount), IssuedAt: machineEpoch.Add(time.Duration(issued) * time.Millisecond),
		Stamped: d.HasArg("stamped"), ValidateOnly: d.HasArg("validate-only"),
		Payload: actorstest.Add{Amount: uint64(amount), Split: split, Panic: d.HasArg("panic")},
	}
	s.requests[r] = id
	return r
}

func (s *session) top(d *datadriven.TestData) (*persistence.Root, error) {
	if err := fault(d); err != nil {
		return nil, err
	}
	if len(s.roots) == 0 {
		return nil, persistence.ErrNotFound
	}
	return &s.roots[len(s.roots)-1], nil
}

// take returns the rows from one sequence through another that landed in the partition being read.
func (s *session) take(t *testing.T, d *datadriven.TestData) []persistence.Record {
	var from, through uint64
	d.MaybeScanArgs(t, "from", &from)
	d.MaybeScanArgs(t, "through", &through)
	var rows []persistence.Record
	for _, r := range s.rows[s.reading] {
		if r.Sequence >= from && r.Sequence <= through {
			rows = append(rows, r)
		}
	}
	return rows
}

func fault(d *datadriven.TestData) error {
	for name, err := range map[string]error{
		"unknown": persistence.ErrUnknownOutcome, "rejected": persistence.ErrRejected,
		"unavailable": persistence.ErrUnavailable, "corrupt": persistence.ErrCorrupt,
	} {
		if d.HasArg(name) {
			return err
		}
	}
	return nil
}

func (s *session) print(o *actors.Outputs) string {
	var b strings.Builder
	if o.ReadTop {
		fmt.Fprintln(&b, "read the top root")
	}
	if r := o.ReadRows; r != nil {
		s.reading = r.Partition
		fmt.Fprintf(&b, "read rows of %s after %d\n", r.Partition.RootKey, r.After)
	}
	if r := o.PutRoot; r != nil {
		fmt.Fprintf(&b, "write root %s, base %d, parent %s%s\n", r.Key, r.Base, parentOf(r), importing(r))
		s.putRoot = r
	}
	if m := o.Append; m != nil {
		first, last := m.Records[0], m.Records[len(m.Records)-1]
		fmt.Fprintf(&b, "append to %s: %d to %d\n", m.Partition.RootKey, first.Sequence, last.Sequence)
		s.append = m
	}
	for _, r := range o.Replies {
		fmt.Fprintf(&b, "%s: %s\n", s.requests[r], answer(r))
	}
	if !o.Wake.IsZero() {
		fmt.Fprintf(&b, "wake at %d ms\n", o.Wake.Sub(machineEpoch).Milliseconds())
	}
	if o.StaleEpoch != 0 {
		fmt.Fprintf(&b, "stale: epoch %d was found\n", o.StaleEpoch)
	}
	if o.Ended {
		fmt.Fprintf(&b, "ended: %v\n", o.Cause)
	}
	if o.Unresolved != 0 {
		fmt.Fprintf(&b, "version %d is unresolved\n", o.Unresolved)
	}
	if b.Len() == 0 {
		return "nothing to do\n"
	}
	return b.String()
}

func parentOf(r *persistence.Root) string {
	if r.Parent.IsZero() {
		return "none"
	}
	return r.Parent.String()
}

func answer(r *actors.Request) string {
	var limited *actors.RateLimitedError
	switch {
	case errors.Is(r.Err, actors.ErrPanic):
		return "failed: the handler panicked"
	case errors.As(r.Err, &limited):
		return fmt.Sprintf("rate limited: %s", limited.Reason)
	case r.Err != nil:
		return "failed: " + r.Err.Error()
	case r.Import != nil:
		return fmt.Sprintf("imported, at %d", r.Answer.Head.Sequence)
	case r.Query != nil:
		return fmt.Sprintf("%d at %d", r.Answer.Value, r.Answer.Head.Sequence)
	case string(r.Reply.Outcome) == "refused":
		return fmt.Sprintf("refused at %d%s", r.Reply.Sequence, again(r))
	default:
		return fmt.Sprintf("done at %d%s", r.Reply.Sequence, again(r))
	}
}

func again(r *actors.Request) string {
	if r.Reply.Duplicate {
		return ", again"
	}
	return ""
}
