package fallback

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/actors"
	"licensed/actors/license"
	"licensed/actors/license/policy"
	"licensed/internal/caller"
	"licensed/messages/licensedv1"
	"licensed/persistence"
)

const lendingCustomer = "c1"

var lendingPolicy = func() *policy.Policy {
	p, err := policy.Parse("lending", []byte(`
default_plan: two
licence_days: 3
plans:
  two: {devices: 2, titles_per_device: 3, allowances: {downloads: 3, at_a_time: 3, hours: 24}}
studios: {a: {downloads: 3}}
titles:
  a1: {studio: a, yearly_limit: 1}
  a2: {studio: a, yearly_limit: 2}
  b1: {studio: b, yearly_limit: 2}
`))
	if err != nil {
		panic(err)
	}
	return p
}()

// world is one customer of a cluster whose owner is unavailable at times, two gateways, and devices, with clocks that
// are wrong by up to half of the margin. It is not safe for concurrent use.
type world struct {
	t         *testing.T
	rng       *rand.Rand
	now       time.Time // true
	down      [2]bool   // the owner, for a gateway
	lost      bool      // the owner executes and the answer is lost
	kind      *license.Kind
	aggregate actors.Aggregate
	last      time.Time // of the aggregate, which never goes back
	offset    map[string]time.Duration
	executed  map[string]actors.Reply
	at        map[string]time.Time // when those were executed
	redeemed  map[string]bool      // settled units: number and title
	ordinary  map[string]bool      // ids of acquisitions that succeeded without their allowance
	downloads []granted            // that the owner counted
	licenses  map[string]time.Time // by device and title: until when, by the owner
	gateways  []*place
	grants    []granted
	lent      []*licensedv1.Allowance
}

// granted is a download.
type granted struct {
	unit, id, device, title string
	at, until               time.Time // true time; until when the device plays
}

func (w *world) clock(of string) time.Time { return w.now.Add(w.offset[of]).Truncate(time.Millisecond) }

// execute is the owner, as a gateway reaches it.
func (w *world) execute(gateway int, c actors.Command) (actors.Reply, error) {
	if w.down[gateway] {
		return actors.Reply{}, actors.ErrUnavailable
	}
	if c.IssuedAt.Before(w.clock("owner").Add(-24*time.Hour)) && !c.Stamped {
		return actors.Reply{}, actors.ErrTooOld
	}
	if r, ok := w.executed[c.ID]; ok && w.now.Sub(w.at[c.ID]) < 24*time.Hour {
		r.Duplicate = true
		return r, nil
	}
	if w.clock("owner").After(w.last) {
		w.last = w.clock("owner")
	}
	d := w.aggregate.Decide(w.last, c.Payload)
	for _, e := range d.Events {
		w.aggregate.Evolve(e)
		w.hear(e, c)
	}
	r := actors.Reply{Outcome: w.kind.Outcome(d.Events), Time: w.last}
	w.executed[c.ID], w.at[c.ID] = r, w.now
	if w.lost {
		return actors.Reply{}, actors.ErrUnknownOutcome
	}
	return r, nil
}

// hear keeps what happened, as the rules count it.
func (w *world) hear(e actors.Event, c actors.Command) {
	switch v := e.Value.(type) {
	case *licensedv1.LicenseAcquired:
		w.licenses[e.AggregateID] = time.UnixMilli(v.ExpiresAtMs)
		w.ordinary[c.ID] = true
	case *licensedv1.LicenseRenewed:
		w.licenses[e.AggregateID] = time.UnixMilli(v.License.ExpiresAtMs)
	case *licensedv1.LicenseReleased:
		delete(w.licenses, e.AggregateID)
	case *licensedv1.TitleDownloaded:
		a := c.Payload.(*licensedv1.Command).GetAcquireLicense()
		w.downloads = append(w.downloads, granted{title: a.TitleId, at: w.last})
	case *licensedv1.CommandAccepted:
		w.ordinary[c.ID] = true
	case *licensedv1.AllowanceRedeemed:
		a := c.Payload.(*licensedv1.Command).GetAcquireLicense()
		w.redeemed[unitOf(v.Number, a.TitleId)] = true
		w.downloads = append(w.downloads, granted{title: a.TitleId, at: time.UnixMilli(v.RedeemedAtMs)})
		w.licenses[e.AggregateID] = time.UnixMilli(v.License.ExpiresAtMs)
	}
}

func unitOf(number uint64, title string) string { return fmt.Sprint(number, " ", title) }

// start opens the directory of a gateway, after a crash or at first.
func (w *world) start(g *place, n int) {
	name := fmt.Sprint("g", n)
	g.Fallback = New(Config{
		Journal:  openJournal(w.t, g.dir, 1<<20),
		Execute:  func(_ context.Context, _ string, c actors.Command) (actors.Reply, error) { return w.execute(n, c) },
		Owner:    func(string) (one persistence.Incarnation) { return one },
		Terms:    func(string) Terms { return Terms{} },
		Patience: time.Minute, Timeout: time.Minute, Now: func() time.Time { return w.clock(name) },
		Registry: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler),
	})
}

// acquire is what a gateway does with AcquireLicense that shows an allowance, or none.
func (w *world) acquire(g *place, id, device, title string, shown *licensedv1.Allowance) {
	m := &licensedv1.AcquireLicense{DeviceId: device, TitleId: title}
	c := actors.Command{
		ID: id, Fingerprint: 1, IssuedAt: w.clock("owner"),
		Payload: &licensedv1.Command{Command: &licensedv1.Command_AcquireLicense{AcquireLicense: m}},
	}
	var accepted Command
	if shown != nil {
		within := c
		within.Payload = &licensedv1.Command{Command: &licensedv1.Command_AcquireLicense{
			AcquireLicense: &licensedv1.AcquireLicense{
				DeviceId: device, TitleId: title, Allowance: shown.Number, GatewayId: g.GatewayID(),
			},
		}}
		var err error
		accepted, err = g.Redeem(w.t.Context(), lendingCustomer, within, shown.ExpiresAt.AsTime())
		if err != nil && !errors.Is(err, ErrNotLent) && !errors.Is(err, ErrOtherContent) {
			w.t.Fatal(err)
		}
		if err == nil {
			c.Payload = accepted.Command
		} else {
			shown = nil
		}
	}
	_, err := g.Execute(w.t.Context(), lendingCustomer, c, true)
	if err != nil && shown != nil {
		until := accepted.GrantedUntil().Add(-w.offset[device])
		if until.After(w.now) {
			w.grants = append(w.grants, granted{unitOf(shown.Number, title), id, device, title, w.now, until})
		}
	}
}

// lend is what a gateway does with LendAllowance.
func (w *world) lend(g *place, id, device string, titles []string) {
	payload := &licensedv1.Command{Command: &licensedv1.Command_LendAllowance{LendAllowance: &licensedv1.LendAllowance{
		DeviceId: device, TitleIds: titles, GatewayId: g.GatewayID(),
	}}}
	r, err := g.Execute(w.t.Context(), lendingCustomer,
		actors.Command{ID: id, Fingerprint: 1, IssuedAt: w.clock("owner"), Payload: payload}, false)
	if err != nil {
		return
	}
	o, err := license.DecodeOutcome(lendingCustomer, payload, r.Time, r.Outcome)
	if err != nil {
		w.t.Fatal(err)
	}
	if o.Refusal != nil || w.rng.IntN(10) == 0 { // The gateway crashed before it wrote the ledger.
		return
	}
	if err := g.Keep(w.t.Context(), lendingCustomer, o.Allowance); err != nil && !errors.Is(err, ErrNotLent) {
		w.t.Fatal(err)
	}
	w.lent = append(w.lent, o.Allowance)
}

// check holds what is recorded and what devices have against the limits, at this moment of true time.
func (w *world) check() {
	w.t.Helper()
	studio, devices := 0, map[string]bool{}
	year := w.now.Add(-policy.Window)
	count := map[string]int{}
	active := func(device, title string) {
		devices[device] = true
		if w.kind.Policy().Title(title).Studio == "a" {
			studio++
		}
	}
	held := map[string]bool{}
	for _, device := range []string{"d1", "d2", "d3"} {
		for _, title := range []string{"a1", "a2", "a3", "b1", "x"} {
			if until, ok := w.licenses[device+"/"+title]; ok && w.clock("owner").Before(until) {
				active(device, title)
				held[device+"/"+title] = true
			}
		}
	}
	for _, d := range w.downloads {
		if d.at.After(year) {
			count[d.title]++
		}
	}
	for i, g := range w.grants {
		repeated := slices.ContainsFunc(w.grants[:i], func(o granted) bool { return o.unit == g.unit })
		if w.now.Before(g.until) && !held[g.device+"/"+g.title] {
			active(g.device, g.title)
			held[g.device+"/"+g.title] = true
		}
		if g.at.After(year) && !repeated && !w.redeemed[g.unit] && !w.ordinary[g.id] {
			count[g.title]++
		}
	}
	if studio > 3 {
		w.t.Fatalf("%d licences of studio a", studio)
	}
	if len(devices) > 2 {
		w.t.Fatalf("devices in use: %v", devices)
	}
	for title, n := range count {
		if limit := w.kind.Policy().Title(title).YearlyLimit; limit.Met(n - 1) {
			w.t.Fatalf("%d downloads of %s, the limit is %v", n, title, limit)
		}
	}
}

// TestAllowanceSeeds: whatever fails, and with clocks that are wrong, no limit is exceeded by what is recorded and what
// devices were granted, and each grant is counted in the end.
func TestAllowanceSeeds(t *testing.T) {
	seeds := 40
	if testing.Short() {
		seeds = 8
	}
	granted := 0
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			granted += runAllowances(t, rand.New(rand.NewPCG(uint64(seed), 9)))
		})
	}
	if granted < seeds/4 {
		t.Errorf("%d provisional grants in %d runs", granted, seeds)
	}
}

func runAllowances(t *testing.T, rng *rand.Rand) int {
	w := &world{
		t: t, rng: rng, now: someTime, kind: license.NewKind(lendingPolicy), executed: map[string]actors.Reply{},
		at: map[string]time.Time{}, redeemed: map[string]bool{}, ordinary: map[string]bool{},
		licenses: map[string]time.Time{}, offset: map[string]time.Duration{},
	}
	w.aggregate = w.kind.New(lendingCustomer)
	const wrong = int64(license.AllowanceMargin / 2)
	for _, of := range []string{"owner", "g0", "g1", "d1", "d2", "d3"} {
		w.offset[of] = time.Duration(rng.Int64N(2*wrong+1) - wrong)
	}
	for i := range 2 {
		g := &place{dir: t.TempDir()}
		w.gateways = append(w.gateways, g)
		w.start(g, i)
	}
	titles := []string{"a1", "a2", "a3", "b1", "x"}
	some := func(from []string) string { return from[rng.IntN(len(from))] }
	for step := range 120 {
		w.now = w.now.Add(time.Duration(rng.Int64N(int64(time.Hour))))
		if w.down[0] != w.down[1] && rng.IntN(6) == 0 { // An outage that outlasts an allowance, at one gateway.
			w.now = w.now.Add(26 * time.Hour)
		}
		if rng.IntN(80) == 0 { // A long one, or a long rest.
			w.now = w.now.Add(time.Duration(rng.Int64N(int64(60 * 24 * time.Hour))))
		}
		n := rng.IntN(2)
		g, device, id := w.gateways[n], some([]string{"d1", "d2", "d3"}), fmt.Sprint("c", step)
		if rng.IntN(8) == 0 {
			id = fmt.Sprint("c", rng.IntN(step+1))
		}
		switch rng.IntN(20) {
		case 0, 1:
			// Both lose the owner, or one of them.
			away := !w.down[n]
			w.down[n], w.lost = away, rng.IntN(4) == 0
			if rng.IntN(2) == 0 {
				w.down[1-n] = away
			}
		case 3: // kill -9, and a new process
			if err := g.config.Journal.Close(); err != nil {
				t.Fatal(err)
			}
			w.start(g, n)
		case 4, 5, 17, 18:
			w.lend(g, "lend"+id, device, []string{some(titles), some(titles), some(titles)})
		case 6, 7, 8, 14, 15, 16: // The device shows an allowance at either gateway, for one of its titles or another.
			if len(w.lent) > 0 {
				a := w.lent[len(w.lent)-1-rng.IntN(min(3, len(w.lent)))]
				title := some(a.TitleIds)
				if rng.IntN(6) == 0 {
					title = some(titles)
				}
				w.acquire(g, id, a.DeviceId, title, a)
			}
		case 2, 9, 10:
			w.acquire(g, id, device, some(titles), nil)
		case 11:
			if len(w.lent) > 0 && rng.IntN(3) == 0 {
				a := w.lent[rng.IntN(len(w.lent))]
				if _, err := g.Close(lendingCustomer, a.Number); err != nil && !errors.Is(err, ErrNotLent) {
					t.Fatal(err)
				}
			}
		case 12:
			g.closeEnded()
			g.settleAll(t.Context())
		case 13:
			if rng.IntN(3) > 0 {
				break
			}
			c := &licensedv1.Command{Command: &licensedv1.Command_DeactivateDevice{
				DeactivateDevice: &licensedv1.DeactivateDevice{DeviceId: device},
			}}
			_, _ = g.Execute(t.Context(), lendingCustomer,
				actors.Command{ID: "off" + id, Fingerprint: 1, IssuedAt: w.clock("owner"), Payload: c}, false)
		}
		w.check()
	}
	w.down, w.lost = [2]bool{}, false
	for _, g := range w.gateways {
		until(func() bool { // The pause of an open breaker.
			g.settleAll(t.Context())
			return g.config.Journal.Usage().Commands == 0
		})
	}
	for _, g := range w.grants {
		if !w.redeemed[g.unit] && !w.ordinary[g.id] {
			t.Errorf("the grant of %s to %s by %s was never counted", g.title, g.device, g.id)
		}
	}
	return len(w.grants)
}

// TestLedgerCallers: what a gateway returns on its own is returned for the caller that had it lent, also after a
// restart, and a unit that the owner denies to its caller is settled for that one before.
func TestLedgerCallers(t *testing.T) {
	o, dir := &owner{unavailable: actors.ErrUnavailable}, t.TempDir()
	f := newFallback(t, o, dir)
	lent := &licensedv1.Allowance{
		Number: 7, DeviceId: "iphone", TitleIds: []string{"a1", "a2"}, GatewayId: f.GatewayID(),
		LentAt: timestamppb.New(someTime), ExpiresAt: timestamppb.New(someTime.Add(time.Hour)),
	}
	shop := &caller.Caller{Principal: "tokens:shop", Roles: 4, Method: "/s/LendAllowance"}
	if err := f.Keep(caller.NewContext(t.Context(), shop), "c1", lent); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Redeem(t.Context(), "c1", actors.Command{
		ID: "1", Fingerprint: 7, IssuedAt: someTime,
		Payload: &licensedv1.Command{Command: &licensedv1.Command_AcquireLicense{
			AcquireLicense: &licensedv1.AcquireLicense{
				DeviceId: "iphone", TitleId: "a1", Allowance: 7, GatewayId: f.GatewayID(),
			},
		}},
	}, lent.ExpiresAt.AsTime()); err != nil {
		t.Fatal(err)
	}
	if err := f.config.Journal.Close(); err != nil {
		t.Fatal(err)
	}
	f = newFallback(t, o, dir)
	f.config.Now = func() time.Time { return someTime.Add(time.Hour) }
	f.config.Execute = func(ctx context.Context, customer string, c actors.Command) (actors.Reply, error) {
		if caller.FromContext(ctx) == nil {
			return actors.Reply{}, &actors.DeniedError{Text: "for nobody"}
		}
		return o.Execute(ctx, customer, c)
	}
	o.set(func() { o.unavailable = nil })
	f.settleAll(t.Context())
	f.closeEnded()
	f.settleAll(t.Context())
	by := fmt.Sprint(*shop, "tokens:shop", "")
	if len(o.order) != 2 || o.order[0] != "c1 1" || !slices.Equal(o.callers, []string{by, by}) ||
		f.config.Journal.Usage().Commands != 0 {
		t.Errorf("%v for %v, want %v", o.order, o.callers, by)
	}
}

// TestRepeatAfterSettlement: once the owner settled a unit, a repeat of its command is not granted while the owner
// cannot be reached: the licence may have been released, and its place taken.
func TestRepeatAfterSettlement(t *testing.T) {
	f := newFallback(t, &owner{}, t.TempDir())
	until := someTime.Add(48 * time.Hour)
	if err := f.Keep(t.Context(), "c1", &licensedv1.Allowance{
		Number: 7, DeviceId: "iphone", TitleIds: []string{"a1"}, GatewayId: f.GatewayID(),
		LentAt: timestamppb.New(someTime), ExpiresAt: timestamppb.New(until),
	}); err != nil {
		t.Fatal(err)
	}
	c := actors.Command{ID: "1", Fingerprint: 7, IssuedAt: someTime,
		Payload: &licensedv1.Command{Command: &licensedv1.Command_AcquireLicense{
			AcquireLicense: &licensedv1.AcquireLicense{
				DeviceId: "iphone", TitleId: "a1", Allowance: 7, GatewayId: f.GatewayID(),
			},
		}}}
	for range 2 { // The second is a repeat before the settlement.
		if _, err := f.Redeem(t.Context(), "c1", c, until); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.settle(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	if d, err := f.Redeem(t.Context(), "c1", c, until); !errors.Is(err, ErrNotLent) {
		t.Errorf("granted again: %v, %v", d.DeferredCommand, err)
	}
}

// TestLedger: an allowance is redeemed by its gateway alone, each title once, and not after it was closed.
func TestLedger(t *testing.T) {
	o := &owner{unavailable: actors.ErrUnavailable}
	dir := t.TempDir()
	f, other := newFallback(t, o, dir), newFallback(t, o, t.TempDir())
	lent := &licensedv1.Allowance{
		Number: 7, DeviceId: "iphone", TitleIds: []string{"a1", "a2", "a3"}, GatewayId: f.GatewayID(),
		LentAt: timestamppb.New(someTime), ExpiresAt: timestamppb.New(someTime.Add(time.Hour)),
	}
	redeem := func(g *Fallback, id, device, title string) error {
		_, err := g.Redeem(t.Context(), "c1", actors.Command{
			ID: id, Fingerprint: 7, IssuedAt: someTime,
			Payload: &licensedv1.Command{Command: &licensedv1.Command_AcquireLicense{
				AcquireLicense: &licensedv1.AcquireLicense{
					DeviceId: device, TitleId: title, Allowance: 7, GatewayId: g.GatewayID(),
				},
			}},
		}, lent.ExpiresAt.AsTime())
		return err
	}
	want := func(what string, got, want error) {
		t.Helper()
		if !errors.Is(got, want) || want == nil && got != nil {
			t.Fatalf("%s: %v, want %v", what, got, want)
		}
	}
	want("not kept", redeem(f, "1", "iphone", "a1"), ErrNotLent)
	want("keep", f.Keep(t.Context(), "c1", lent), nil)
	want("keep at another gateway", other.Keep(t.Context(), "c1", lent), ErrNotLent)
	want("redeem", redeem(f, "1", "iphone", "a1"), nil)
	want("repeat", redeem(f, "1", "iphone", "a1"), nil)
	want("again", redeem(f, "2", "iphone", "a1"), ErrNotLent)
	want("another device", redeem(f, "3", "ipad", "a2"), ErrNotLent)
	want("another title", redeem(f, "4", "iphone", "b1"), ErrNotLent)
	want("another gateway", redeem(other, "5", "iphone", "a2"), ErrNotLent)
	want("close the journal", f.config.Journal.Close(), nil)
	f = newFallback(t, o, dir)
	want("after a restart", redeem(f, "6", "iphone", "a1"), ErrNotLent)
	want("another title after a restart", redeem(f, "7", "iphone", "a2"), nil)
	left, err := f.Close("c1", 7)
	if want("close", err, nil); !slices.Equal(left, []string{"a3"}) {
		t.Fatalf("returned %v", left)
	}
	want("after its close", redeem(f, "8", "iphone", "a3"), ErrNotLent)
	want("keep again", f.Keep(t.Context(), "c1", lent), nil)
	want("after it was kept again", redeem(f, "9", "iphone", "a3"), ErrNotLent)
	if got := idsOf(t, f.config.Journal, "c1"); len(got) != 3 || got[0] != "1" || got[1] != "7" {
		t.Errorf("in the journal: %v", got)
	}
	// A copy of the file is another gateway.
	data, err := os.ReadFile(filepath.Join(dir, "deferred.db"))
	want("read", err, nil)
	copied := t.TempDir()
	want("write", os.WriteFile(filepath.Join(copied, "deferred.db"), data, 0o600), nil)
	if c := newFallback(t, o, copied); c.GatewayID() == f.GatewayID() || c.config.Journal.Allowances() != 0 ||
		len(idsOf(t, c.config.Journal, "c1")) != 3 {
		t.Error("a copy of the file is taken for the gateway, or lost its commands")
	}
}

// TestLedgerIsBounded: allowances take room of the journal, half of it at most, until they are forgotten; also after a
// restart.
func TestLedgerIsBounded(t *testing.T) {
	dir := t.TempDir()
	open := func() *Fallback {
		j, _, err := OpenJournal(dir, 64<<10)
		if err != nil {
			t.Fatal(err)
		}
		return &Fallback{config: Config{Journal: j, Now: func() time.Time { return someTime }}}
	}
	f := open()
	kept := 0
	for ; f.Lends(); kept++ {
		err := f.Keep(t.Context(), fmt.Sprint("customer-", kept), &licensedv1.Allowance{
			DeviceId: "d", Number: 1, TitleIds: []string{"a1"}, GatewayId: f.GatewayID(),
			ExpiresAt: timestamppb.New(someTime.Add(time.Hour)),
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if used := f.config.Journal.Usage().Bytes; kept == 0 || used < 32<<10 || used > 40<<10 {
		t.Errorf("%d allowances in %d bytes", kept, used)
	}
	if err := f.config.Journal.Close(); err != nil {
		t.Fatal(err)
	}
	f = open()
	defer f.config.Journal.Close()
	if f.Lends() {
		t.Error("there is room after a restart")
	}
	for i := range kept {
		if _, err := f.config.Journal.CloseAllowance(fmt.Sprint("customer-", i), 1, someTime); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range f.config.Journal.Customers() {
		commands, err := f.config.Journal.Commands(c)
		if err != nil {
			t.Fatal(err)
		}
		for _, command := range commands {
			if err := f.config.Journal.Remove(command); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := f.config.Journal.ended(someTime.Add(time.Hour + keepClosed)); err != nil {
		t.Fatal(err)
	}
	if used := f.config.Journal.Usage().Bytes; used != 0 || !f.Lends() {
		t.Errorf("%d bytes of allowances that are forgotten", used)
	}
}
