package license

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/actors"
	"licensed/actors/license/policy"
	"licensed/messages/licensedv1"
)

// TestExplanations runs testdata/why/*: what TestTranscripts has, and
//
//	repeat N DIRECTIVE                   so often, a day apart
//	lost                                 the events so far cannot be read any more
//	imported renewed DEVICE TITLE TIME   an event from elsewhere: a renewal until that time
//	state                                the whole state
//	why DEVICE TITLE                     the explanation
func TestExplanations(t *testing.T) {
	datadriven.Walk(t, "testdata/why", func(t *testing.T, path string) {
		x := &explained{trial: newTrial(t, policy.Default(), time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			x.t = t
			return x.directive(d)
		})
	})
}

// explained is a trial whose events are kept as they are recorded.
type explained struct {
	*trial
	recorded []Recorded
	commands int
	lost     int
}

func (x *explained) directive(d *datadriven.TestData) string {
	switch d.Cmd {
	case "repeat":
		var n int
		if _, err := fmt.Sscan(d.CmdArgs[0].Key, &n); err != nil {
			x.t.Fatal(err)
		}
		inner := *d
		inner.Cmd, inner.CmdArgs = d.CmdArgs[1].Key, d.CmdArgs[2:]
		for range n {
			x.directive(&inner)
			x.now = x.now.Add(24 * time.Hour)
		}
		return fmt.Sprintf("%d times\n", n)
	case "lost":
		x.lost = len(x.recorded)
		return fmt.Sprintf("%d events\n", x.lost)
	case "imported":
		return x.imported(d)
	case "state":
		var b bytes.Buffer // protojson varies its spacing on purpose.
		if err := json.Indent(&b, []byte(protojson.Format(x.state())), "", "  "); err != nil {
			x.t.Fatal(err)
		}
		return strings.ReplaceAll(b.String(), ":  ", ": ") + "\n"
	case "why":
		return x.why(d.CmdArgs[0].Key, d.CmdArgs[1].Key)
	}
	from := len(x.history)
	out := x.trial.directive(d)
	x.keep(from)
	return out
}

func (x *explained) keep(from int) {
	if len(x.history) > from {
		x.commands++
	}
	for i, e := range x.history[from:] {
		x.recorded = append(x.recorded, Recorded{
			Event: e, Sequence: uint64(from+i) + 1, CommandID: fmt.Sprint("c", x.commands),
		})
	}
}

func (x *explained) imported(d *datadriven.TestData) string {
	until := parseTime(x.t, d.CmdArgs[3].Key)
	e := actors.Event{AggregateID: d.CmdArgs[1].Key + "/" + d.CmdArgs[2].Key, Order: 99, Time: x.now,
		Value: &licensedv1.LicenseRenewed{
			License: &licensedv1.LicenseTerms{ExpiresAtMs: until.UnixMilli(), Renewals: 1, Released: true},
		}}
	for _, a := range []actors.Aggregate{x.live, x.replayed, x.packed} {
		a.Evolve(e)
	}
	x.history = append(x.history, e)
	x.keep(len(x.history) - 1)
	return "recorded"
}

func (x *explained) state() *licensedv1.CustomerState {
	return x.query(
		&licensedv1.Query{Query: &licensedv1.Query_DescribeState{DescribeState: &licensedv1.DescribeState{}}},
	).(*licensedv1.CustomerState)
}

func (x *explained) explain(device, title string) *licensedv1.WhyResponse {
	e := NewExplainer(device, title, x.kind.Policy())
	if x.lost > 0 {
		e.Missing(1, uint64(x.lost), fmt.Sprintf("events 1 to %d expired before 2026-01-01", x.lost))
	}
	for _, r := range x.recorded[x.lost:] {
		e.Add(r)
	}
	return e.Why(x.now, x.state())
}

func (x *explained) why(device, title string) string {
	res := x.explain(device, title)
	var b strings.Builder
	fmt.Fprintf(&b, "= %s\n", res.Verdict)
	for _, s := range res.Steps {
		at := "                   "
		if s.Time != nil {
			at = s.Time.AsTime().Format(time.DateTime)
		}
		place := ""
		switch {
		case s.Sequence == 0:
		case s.Sequence == s.ToSequence:
			place = fmt.Sprint("#", s.Sequence)
		default:
			place = fmt.Sprintf("#%d-%d", s.Sequence, s.ToSequence)
		}
		fmt.Fprintf(&b, "%s %-8s %-9s %s\n", at, place, strings.TrimPrefix(s.Effect.String(), "WHY_EFFECT_"), s.Text)
	}
	return b.String()
}

// TestVerdictMatchesState explains licences of random histories: the verdict is about the state, and
// no step is lost or out of order.
func TestVerdictMatchesState(t *testing.T) {
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 77))
		x := &explained{trial: newTrial(t, somePolicies[seed%uint64(len(somePolicies))], epoch)}
		for range rng.IntN(150) {
			x.wait(rng)
			from := len(x.history)
			x.execute(someCommand(rng))
			x.keep(from)
		}
		for _, l := range x.state().Licenses {
			res := x.explain(l.DeviceId, l.TitleId)
			want := "Not active"
			if l.Active {
				want = "Active until " + clockOf(l.ExpiresAt.AsTime().UnixMilli())
			}
			if !strings.HasPrefix(res.Verdict, want) {
				t.Errorf("seed %d: %v: %s", seed, l, res.Verdict)
			}
			if len(res.Steps) == 0 || len(res.Steps) > screen+1 {
				t.Errorf("seed %d: %d steps", seed, len(res.Steps))
			}
			var last *timestamppb.Timestamp
			for _, s := range res.Steps {
				if last != nil && s.Time.AsTime().Before(last.AsTime()) {
					t.Errorf("seed %d: %v after %v", seed, s, last)
				}
				last = s.Time
				if s.Effect == licensedv1.WhyEffect_WHY_EFFECT_STRANGE {
					t.Errorf("seed %d: strange: %v", seed, s)
				}
			}
		}
	}
}

// TestDescribeAgrees holds DescribeState against the lists.
func TestDescribeAgrees(t *testing.T) {
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 78))
		r := newTrial(t, somePolicies[seed%uint64(len(somePolicies))], epoch)
		for range rng.IntN(150) {
			r.wait(rng)
			r.execute(someCommand(rng))
		}
		s := (&explained{trial: r}).state()
		list := r.query(&licensedv1.Query{Query: &licensedv1.Query_ListLicenses{
			ListLicenses: &licensedv1.ListLicenses{IncludeInactive: true},
		}}).(*licensedv1.ListLicensesResponse).Licenses
		if len(list) != len(s.Licenses) {
			t.Fatalf("seed %d: %d licences described of %d", seed, len(s.Licenses), len(list))
		}
		active := uint32(0)
		for i, l := range list {
			d := s.Licenses[i]
			if d.DeviceId != l.DeviceId || d.TitleId != l.TitleId || d.StudioId != l.StudioId ||
				(d.ReleasedAt != nil) != l.Released ||
				!d.ExpiresAt.AsTime().Equal(l.ExpiresAt.AsTime()) || d.Renewals != l.Renewals {
				t.Errorf("seed %d: %v\nlisted %v", seed, d, l)
			}
			if d.Active {
				active++
			}
		}
		devices := r.query(
			&licensedv1.Query{Query: &licensedv1.Query_ListDevices{ListDevices: &licensedv1.ListDevices{}}},
		).(*licensedv1.ListDevicesResponse)
		inUse := uint32(0)
		for i, d := range devices.Devices {
			if got := s.Devices[i]; got.DeviceId != d.DeviceId || got.Active != d.Active ||
				got.ActiveLicenses != d.ActiveLicenses {
				t.Errorf("seed %d: %v\nlisted %v", seed, got, d)
			}
			if d.ActiveLicenses > 0 {
				inUse++
			}
		}
		if s.ActiveLicenses != active || s.DevicesInUse != inUse || s.DeviceLimit != devices.DeviceLimit ||
			s.PlanId != devices.PlanId ||
			s.CustomerId != customerID {
			t.Errorf("seed %d: %v", seed, s)
		}
	}
}
