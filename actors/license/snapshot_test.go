package license

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"licensed/actors"
	"licensed/actors/license/policy"
	"licensed/messages/licensedv1"
	"licensed/persistence"
)

var writeGoldenFiles = flag.Bool("write-golden", false,
	"write golden files that are missing; never change one that was released")

// golden returns the stored bytes of a golden file, which has them in hexadecimal in its first line
// and a description below.
func golden(t *testing.T, name string, data []byte, description string) (stored []byte, described string) {
	t.Helper()
	file := filepath.Join("testdata", "golden", name)
	if _, err := os.Stat(file); err != nil && *writeGoldenFiles {
		if err := os.WriteFile(file, []byte(hex.EncodeToString(data)+"\n"+description), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("stored bytes without a golden file (go test ./actors/license -write-golden makes it): %v", err)
	}
	digits, described, _ := strings.Cut(string(text), "\n")
	if stored, err = hex.DecodeString(digits); err != nil {
		t.Fatal(err)
	}
	return stored, described
}

// busyPolicy has the limits that every release knows.
var busyPolicy = must(policy.Parse("busy", []byte(`
default_plan: one
yearly_counts: both
deactivations_per_year: 1
plans: {one: {devices: 1}, two: {devices: 2}, three: {devices: 3}}
studios: {a: {downloads: 2}, b: {downloads: 1}}
titles:
  a1: {studio: a, yearly_limit: 2}
  a2: {studio: a, yearly_limit: 4, available_until: 2026-05-01}
  a3: {studio: a}
  b1: {studio: b, yearly_limit: 1}
  b2: {studio: b, yearly_limit: 0}
`)))

// busy is a customer with a bit of everything.
func busy(t testing.TB) *trial {
	r := newTrial(t, busyPolicy, epoch)
	for _, c := range []*licensedv1.Command{
		changePlan("three"), acquire("iphone", "a1"), play("iphone", "a1"), acquire("ipad", "a2"),
		acquire("ipad", "x"), download("ipad", "x"), renew("ipad", "a2"), release("iphone", "a1"),
		acquire("laptop", "b1"), deactivate("laptop"), renew("tv", "x"),
	} {
		r.execute(c)
		r.now = r.now.Add(36*time.Hour + time.Millisecond)
	}
	return r
}

// dump writes a state for comparison by eye.
func dump(s *State) string {
	var b strings.Builder
	fmt.Fprintf(&b, "plan %s%s, order %d, last %s\n", s.plan, chosen(s.choice), s.order, clock(time.UnixMilli(s.last)))
	if s.bound || s.chosen {
		fmt.Fprintf(&b, "selection bound %v, chosen %v\n", s.bound, s.chosen)
	}
	for i := range s.devices {
		d := &s.devices[i]
		fmt.Fprintf(&b, "device %s, order %d, deactivated %v, seen %s, downloaded %s%s",
			d.id, d.order, d.deactivated, clock(time.UnixMilli(d.seen)), clock(time.UnixMilli(d.downloaded)),
			chosen(d.activation))
		if d.synced > 0 {
			fmt.Fprintf(&b, ", highest number %d", d.synced)
		}
		if d.selected {
			b.WriteString(", selected to stay")
		}
		if d.name != "" || d.kind != 0 {
			fmt.Fprintf(&b, ", called %q (%s)", d.name, d.kind.Words())
		}
		fmt.Fprintln(&b)
	}
	for i := range s.licenses {
		l := &s.licenses[i]
		fmt.Fprintf(&b, "licence %s/%s of %s, order %d, acquired %s, expires %s, released %s, renewals %d\n",
			s.devices[l.device].id, s.titles[l.title], s.studioOf(l), l.order, clock(time.UnixMilli(l.acquired)),
			clock(time.UnixMilli(l.expires)), clock(time.UnixMilli(l.released)), l.renewals)
		if l.since != l.acquired || l.meant != l.acquired {
			fmt.Fprintf(&b, "  active since %s, meant at %s\n", clock(time.UnixMilli(l.since)),
				clock(time.UnixMilli(l.meant)))
		}
		if l.playHours > 0 {
			fmt.Fprintf(&b, "  %d hours after the first playback, granted %s, played %s\n", l.playHours,
				clock(time.UnixMilli(l.granted)), clock(time.UnixMilli(l.played)))
		}
		for _, s := range l.spans {
			fmt.Fprintf(&b, "  active from %s to %s\n", clock(time.UnixMilli(s.from)), clock(time.UnixMilli(s.to)))
		}
		for _, u := range l.uses {
			fmt.Fprintf(&b, "  use %s, playback %v\n", clock(time.UnixMilli(u.at())), u.playback())
		}
	}
	if s.grace != 0 {
		fmt.Fprintf(&b, "grace until %s\n", clock(time.UnixMilli(s.grace)))
	}
	if s.rare != nil {
		fmt.Fprintf(&b, "exceptions granted %d\n", s.rare.granted)
		for _, e := range s.rare.exceptions {
			fmt.Fprintf(&b, "exception%s\n", fieldsOf(e))
		}
	}
	for _, at := range s.deactivations {
		fmt.Fprintf(&b, "deactivation %s\n", clock(time.UnixMilli(at)))
	}
	return b.String()
}

// chosen writes when something was chosen, and when the client meant it; nothing if that is unknown.
func chosen(i intent) string {
	if i.at == 0 {
		return ""
	}
	return fmt.Sprintf(", since %s (meant at %s)", clock(time.UnixMilli(i.at)), clock(time.UnixMilli(i.meant)))
}

// TestFormerSnapshots reads what earlier releases wrote, under its mapper.
func TestFormerSnapshots(t *testing.T) {
	stored, described := golden(t, "LicenseSnapshot.2.golden", nil, "")
	a, err := NewKind(roomy).Restore(customerID, actors.Snapshot{Mapper: "LicenseSnapshot/2", Data: stored})
	if err != nil {
		t.Fatal(err)
	}
	if got := dump(a.(*aggregate).state); got != described {
		t.Errorf("read\n%swant\n%s", got, described)
	}
}

func TestSnapshotGolden(t *testing.T) {
	r := busy(t)
	for _, c := range []*licensedv1.Command{
		issuedAt(r.now.Add(-time.Second), changePlan("two")), release("ipad", "x"),
		issuedAt(r.now.Add(71*time.Hour), acquire("ipad", "x")),
		sync("ipad", fact(3, played, "a2", r.now.Add(-24*time.Hour)), fact(9, deleted, "x", r.now)),
		sync("unknown", fact(1, played, "a1", r.now)),
	} {
		r.execute(c)
		r.now = r.now.Add(36*time.Hour + time.Millisecond)
	}
	r.now = r.now.Add(40 * 24 * time.Hour)
	r.execute(renew("ipad", "a2"))
	s := r.live.(*aggregate).state
	stored, described := golden(t, "LicenseSnapshot.3.golden", s.encode(), dump(s))
	read, err := decode(stored)
	if err != nil {
		t.Fatal(err)
	}
	if got := dump(read); got != described {
		t.Errorf("read\n%swant\n%s", got, described)
	}
	if got := s.encode(); !bytes.Equal(got, stored) {
		t.Errorf("written %x\nwant    %x", got, stored)
	}
}

// TestSnapshotOfSelection is what version 3 has more than version 2.
func TestSnapshotOfSelection(t *testing.T) {
	r := busy(t)
	r.execute(selectDevices("ipad"))
	r.execute(acquire("iphone", "x"))
	r.execute(changePlan("one"))
	r.execute(selectDevices("iphone"))
	s := r.live.(*aggregate).state
	stored, described := golden(t, "LicenseSnapshot.3-selection.golden", s.encode(), dump(s))
	restored := restore(t, r.kind, actors.Snapshot{Mapper: "LicenseSnapshot/3", Data: stored}).(*aggregate).state
	if got := dump(restored); got != described || !strings.Contains(got, "bound true, chosen true") {
		t.Errorf("read\n%swant\n%s", got, described)
	}
}

// TestSnapshotOfHoursAndGrace is what version 4 has more than version 3. Without these, version 3 is written, which the
// release before reads.
func TestSnapshotOfHoursAndGrace(t *testing.T) {
	r := busy(t)
	if got := r.live.Snapshot(r.now).Mapper; got != "LicenseSnapshot/3" {
		t.Errorf("a state that version 3 holds is stored as %s", got)
	}
	r.kind.SetPolicy(must(policy.Parse("p", []byte(`
default_plan: one
plans: {one: {devices: 1}, three: {devices: 3, grace_days: 7}}
defaults: {hours_after_first_play: 48}
`))))
	for _, c := range []*licensedv1.Command{
		acquire("iphone", "x"), renew("iphone", "x"), play("iphone", "x"), acquire("ipad", "a3"), changePlan("one"),
	} {
		r.execute(c)
		r.now = r.now.Add(time.Hour)
	}
	snapshot := r.live.Snapshot(r.now)
	s := r.live.(*aggregate).state
	stored, described := golden(t, "LicenseSnapshot.4.golden", snapshot.Data, dump(s))
	if !bytes.Equal(snapshot.Data, stored) || snapshot.Mapper != "LicenseSnapshot/4" {
		t.Errorf("written %s %x\nwant    %x", snapshot.Mapper, snapshot.Data, stored)
	}
	restored := restore(t, r.kind, actors.Snapshot{Mapper: "LicenseSnapshot/4", Data: stored}).(*aggregate).state
	if got := dump(restored); got != described {
		t.Errorf("read\n%swant\n%s", got, described)
	}
	// Both are forgotten: the grace when it has passed, the hours with their licence.
	r.now = r.now.AddDate(2, 0, 0)
	if got := r.live.Snapshot(r.now).Mapper; got != "LicenseSnapshot/3" {
		t.Errorf("years later the state is stored as %s", got)
	}
}

// TestSnapshotOfLabels is written as version 4 while a device has a name.
func TestSnapshotOfLabels(t *testing.T) {
	r := busy(t)
	r.execute(labelled(acquire("ipad", "x"), "Anna's iPad", licensedv1.DeviceType_DEVICE_TYPE_TABLET))
	r.execute(labelled(renew("ipad", "x"), "", licensedv1.DeviceType_DEVICE_TYPE_OTHER))
	s := r.live.(*aggregate).state
	stored, described := golden(t, "LicenseSnapshot.4-labels.golden", s.encode(), dump(s))
	restored := restore(t, r.kind, actors.Snapshot{Mapper: s.mapper(), Data: stored}).(*aggregate).state
	if got := dump(restored); got != described || !strings.Contains(got, `called "Anna's iPad" (device)`) ||
		s.mapper() != "LicenseSnapshot/4" || !bytes.Equal(s.encode(), stored) {
		t.Errorf("read of %s\n%swant\n%s", s.mapper(), got, described)
	}
	s.devices[0].name = "two\nlines"
	if _, err := decode(s.encode()); !errors.Is(err, errMalformed) {
		t.Errorf("a name that no command can give: %v", err)
	}
	r.now = r.now.AddDate(2, 0, 0)
	if got := r.live.Snapshot(r.now).Mapper; got != "LicenseSnapshot/3" {
		t.Errorf("years later the state is stored as %s", got)
	}
}

// TestFormerSnapshot restores what the release before stored.
func TestFormerSnapshot(t *testing.T) {
	r := busy(t)
	stored, described := golden(t, "LicenseSnapshot.2.golden", nil, "")
	s := restore(t, r.kind, actors.Snapshot{Mapper: "LicenseSnapshot/2", Data: stored}).(*aggregate).state
	if got := dump(s); got != described {
		t.Errorf("read\n%swant\n%s", got, described)
	}
}

// TestFormerEvents replays the plan change and the deactivation of the release before: the first selects no device, the
// second counts as a removal. The first renewal in the plan that is exceeded makes a selection.
func TestFormerEvents(t *testing.T) {
	p := must(policy.Parse("p", []byte(
		"default_plan: two\nplans: {one: {devices: 1}, two: {devices: 2}}\ndeactivations_per_year: 1\n")))
	k := NewKind(p)
	a := k.New(customerID).(*aggregate)
	now := epoch
	step := func(c *licensedv1.Command) actors.Decision {
		now = now.Add(time.Hour)
		return evolve(a, now, c)
	}
	former := func(about, mapper string, data []byte) {
		value, err := k.DecodeEvent(mapper, persistence.Header{}, data)
		if err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Hour)
		a.Evolve(actors.Event{AggregateID: about, Order: a.state.order, Time: now, Value: value})
	}
	step(acquire("iphone", "a"))
	step(acquire("ipad", "a"))
	before := dump(a.state)
	former(customer, "PlanChanged/1", []byte("\n\x03one\x10\x01"))
	_, before, _ = strings.Cut(before, "\n") // The first line has the plan.
	if got := dump(a.state); !strings.HasSuffix(got, before) || a.state.plan != "one" || a.state.bound {
		t.Errorf("after a plan change of the release before:\n%sbefore\n%s", got, before)
	}
	if d := step(renew("iphone", "a")); !d.Refused {
		t.Errorf("the device used before the last was not refused: %s", describe(d))
	}
	// Used last, it stays; and from then on nothing that the other one plays changes that.
	step(play("iphone", "a"))
	if d := step(renew("iphone", "a")); d.Refused || len(d.Events) != 2 {
		t.Errorf("the device used last: %s", describe(d))
	}
	step(play("ipad", "a"))
	if d := step(renew("ipad", "a")); !d.Refused {
		t.Errorf("the other device: %s", describe(d))
	}
	former("ipad", "DeviceDeactivated/1", nil)
	if n := len(a.state.deactivations); n != 1 {
		t.Errorf("%d removals after the deactivation of the release before, want 1", n)
	}
}

func TestSnapshotRoundTrip(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 2))
		r := newTrial(t, somePolicies[0], epoch)
		for range rng.IntN(200) {
			r.wait(rng)
			r.execute(someCommand(rng))
		}
		s := r.live.(*aggregate).state
		read, err := decode(s.encode())
		if err != nil {
			t.Fatal(err)
		}
		if dump(read) != dump(s) {
			t.Fatalf("seed %d: read\n%swant\n%s", seed, dump(read), dump(s))
		}
	}
}

// TestSnapshotSize holds the packed state of a household against what idle customers may cost.
func TestSnapshotSize(t *testing.T) {
	if n := len(household(NewKind(roomy), 10).Snapshot(epoch).Data); n > 328 {
		t.Errorf("10 licences take %d bytes, want at most 320", n)
	}
	if n := len(NewKind(roomy).New(customerID).Snapshot(epoch).Data); n > 8 {
		t.Errorf("an unknown customer takes %d bytes", n)
	}
}

// TestSnapshotIsACopy keeps what happens later out of a snapshot.
func TestSnapshotIsACopy(t *testing.T) {
	r := busy(t)
	s := r.live.Snapshot(r.now)
	want := bytes.Clone(s.Data)
	restored := restore(t, r.kind, s)
	for _, c := range []*licensedv1.Command{download("ipad", "x"), acquire("tv", "a1")} {
		evolve(r.live, r.now, c)
		evolve(restored, r.now, c)
	}
	if !bytes.Equal(s.Data, want) {
		t.Error("the snapshot changed")
	}
}

func TestRestoreErrors(t *testing.T) {
	k := NewKind(roomy)
	good := busy(t).live.Snapshot(epoch)
	for name, change := range map[string]func(s *actors.Snapshot){
		"mapper":      func(s *actors.Snapshot) { s.Mapper = "LicenseSnapshot/1" },
		"codec":       func(s *actors.Snapshot) { s.Header.Codec = 1 },
		"compression": func(s *actors.Snapshot) { s.Header.Compression = 1 },
		"key":         func(s *actors.Snapshot) { s.Header.KeyID = "k" },
		"cut":         func(s *actors.Snapshot) { s.Data = s.Data[:len(s.Data)-1] },
		"time":        func(s *actors.Snapshot) { s.Data = append(bytes.Clone(s.Data), 0x10, 1) },
		"device":      func(s *actors.Snapshot) { s.Data = append(bytes.Clone(s.Data), 0x3a, 2, 8, 99) },
	} {
		s := good
		change(&s)
		if _, err := k.Restore(customerID, s); !errors.Is(err, persistence.ErrCorrupt) {
			t.Errorf("%s: %v, want ErrCorrupt", name, err)
		}
	}
	for n := range good.Data {
		if _, err := decode(good.Data[:n]); err == nil {
			// A cut between fields can be a smaller state, but never one that refers to what is missing.
			s, _ := decode(good.Data[:n])
			if len(s.licenses) > 0 && len(s.titles) == 0 {
				t.Errorf("%d bytes of %d were read", n, len(good.Data))
			}
		}
	}
}

// FuzzRestore reads arbitrary bytes. What is read is written and read back alike, and can be used.
func FuzzRestore(f *testing.F) {
	f.Add([]byte{}, int64(0))
	f.Add(busy(f).live.Snapshot(epoch).Data, epoch.UnixMilli())
	f.Add(household(NewKind(roomy), 3).Snapshot(epoch).Data, epoch.UnixMilli())
	f.Fuzz(func(t *testing.T, data []byte, now int64) {
		s, err := decode(data)
		if err != nil {
			return
		}
		again, err := decode(s.encode())
		if err != nil || !reflect.DeepEqual(dump(s), dump(again)) {
			t.Fatalf("read\n%sread back\n%s%v", dump(s), dump(again), err)
		}
		at := time.UnixMilli(max(s.last, min(now, maxTime)))
		for _, p := range somePolicies {
			for _, c := range []*licensedv1.Command{
				acquire("iphone", "a1"), download("iphone", "a1"), renew("ipad", "a2"), play("ipad", "x"),
				release("ipad", "x"), deactivate("ipad"), changePlan("one"), merge("ipad", "iphone"), withdraw(1),
			} {
				d := Decide(at, p, s, c)
				for _, e := range d.Events {
					e.Time = at
					Evolve(s, e)
				}
			}
			s.prune(at.UnixMilli())
		}
	})
}

// TestForgottenDevice: a device that is activated after it was forgotten has nothing of before, whether or not a
// snapshot dropped it.
func TestForgottenDevice(t *testing.T) {
	r := newTrial(t, somePolicies[0], epoch)
	r.execute(acquire("iphone", "x"))
	r.now = r.now.Add(3 * 365 * 24 * time.Hour)
	r.execute(sync("ipad", fact(1, played, "x", r.now)))
	r.execute(merge("ipad", "iphone"))
	r.checkCustomer()
}
