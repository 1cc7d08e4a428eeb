package license

import (
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"licensed/actors"
	"licensed/actors/license/policy"
	"licensed/messages/licensedv1"
	"licensed/persistence"
)

// TestReload puts another policy in force under a live aggregate.
func TestReload(t *testing.T) {
	k := NewKind(policy.Default())
	a := k.New(customerID)
	now := epoch
	for _, device := range []string{"iphone", "ipad"} {
		for _, e := range evolve(a, now, acquire(device, "GlowS01E01")).Events {
			if e.Header != (persistence.Header{PolicyVersion: "default-1"}) {
				t.Errorf("header %+v does not name the policy", e.Header)
			}
		}
	}
	if d := a.Decide(now, acquire("laptop", "GlowS01E01")); !d.Refused {
		t.Error("a third device on plan standard")
	}
	k.SetPolicy(roomy)
	d := a.Decide(now, acquire("laptop", "GlowS01E01"))
	if d.Refused || d.Events[0].Header.PolicyVersion != roomy.Version() {
		t.Errorf("the new policy is not in force: %s", describe(d))
	}
	if got := a.Snapshot(now).Header.PolicyVersion; got != roomy.Version() {
		t.Errorf("a snapshot under policy %s", got)
	}
}

func TestDecodeEventErrors(t *testing.T) {
	k := NewKind(roomy)
	for name, err := range map[string]error{
		"mapper": second(k.DecodeEvent("LicenseAcquired/9", persistence.Header{}, nil)),
		"codec":  second(k.DecodeEvent("LicenseAcquired/1", persistence.Header{Codec: 3}, nil)),
		"data":   second(k.DecodeEvent("LicenseAcquired/1", persistence.Header{}, []byte{0xff})),
	} {
		if !errors.Is(err, persistence.ErrCorrupt) {
			t.Errorf("%s: %v, want ErrCorrupt", name, err)
		}
	}
}

func second(_ any, err error) error { return err }

// TestPanics wants a clear message for what no gateway lets through.
func TestPanics(t *testing.T) {
	a := NewKind(roomy).New(customerID)
	for want, command := range map[string]any{
		"no command, but string":    "acquire",
		"no command, but <nil>":     &licensedv1.Command{},
		`device "" is no id`:        acquire("", "t"),
		`title "a/b" is no id`:      acquire("d", "a/b"),
		`title "\xff" is no id`:     renew("d", "\xff"),
		`device "d/e" is no id`:     deactivate("d/e"),
		`plan "" is no id`:          changePlan(""),
		`device "/" is no id`:       play("/", "t"),
		`device "\xfe" is no id`:    release("\xfe", "t"),
		"no command, but *licensed": acquire("d", "t").GetAcquireLicense(),
	} {
		func() {
			defer func() {
				if got, _ := recover().(string); !strings.Contains(got, want) {
					t.Errorf("panic %q, want %q", got, want)
				}
			}()
			a.Decide(epoch, command)
		}()
	}
	for _, query := range []any{"devices", &licensedv1.Query{}, nil} {
		if _, err := a.Query(epoch, query); err == nil {
			t.Errorf("query %v was answered", query)
		}
	}
}

// TestEvolveNeverFails feeds events that no decision of today makes, as another release may have.
func TestEvolveNeverFails(t *testing.T) {
	values := []proto.Message{
		&licensedv1.LicenseCreated{}, &licensedv1.LicenseAcquired{}, &licensedv1.LicenseRenewed{},
		&licensedv1.LicenseReleased{}, &licensedv1.TitleDownloaded{}, &licensedv1.TitlePlayed{Counted: true},
		&licensedv1.DeviceActivated{}, &licensedv1.DeviceDeactivated{}, &licensedv1.PlanChanged{},
		&licensedv1.CommandAccepted{}, &licensedv1.CommandRefused{}, &licensedv1.License{}, nil,
	}
	for i, first := range values {
		for j, next := range values {
			a := NewKind(roomy).New(customerID).(*aggregate)
			for n, v := range []proto.Message{first, next, first} {
				for _, id := range []string{"d/t", "d", "", "/", "d/t/u"} {
					a.Evolve(actors.Event{AggregateID: id, Time: epoch.Add(time.Duration(-n) * time.Hour), Value: v})
				}
			}
			if _, err := decode(a.state.encode()); err != nil {
				t.Fatalf("after %T and %T: %v", first, next, err)
			}
			if d := a.Decide(epoch, renew("d", "t")); len(d.Events) != 1 {
				t.Fatalf("%d, %d: %s", i, j, describe(d))
			}
		}
	}
}

// TestAnswersAreCopies keeps the state out of the hands of the callers.
func TestAnswersAreCopies(t *testing.T) {
	r := busy(t)
	for _, q := range []*licensedv1.Query{
		{Query: &licensedv1.Query_ListLicenses{ListLicenses: &licensedv1.ListLicenses{IncludeInactive: true}}},
		{Query: &licensedv1.Query_ListDevices{ListDevices: &licensedv1.ListDevices{}}},
		{Query: &licensedv1.Query_ListDownloads{ListDownloads: &licensedv1.ListDownloads{TitleId: "x"}}},
	} {
		before := r.query(q)
		kept, ok := before.(proto.Message)
		if d, isDownloads := before.(*Downloads); isDownloads {
			kept, ok = d.Response, true
		}
		if !ok {
			t.Fatalf("%T is no message", before)
		}
		want := proto.Clone(kept)
		r.execute(download("ipad", "x"))
		r.execute(deactivate("iphone"))
		if !proto.Equal(kept, want) {
			t.Errorf("an answer changed with the state: %v, was %v", kept, want)
		}
	}
}

func TestDownloadsFromHistoryError(t *testing.T) {
	broken := errors.New("broken")
	_, err := DownloadsFromHistory("x", epoch,
		func(yield func(actors.Event, error) bool) { yield(actors.Event{}, broken) })
	if !errors.Is(err, broken) {
		t.Errorf("error %v, want that of the iteration", err)
	}
}

// TestManyDevices uses more devices than the rules keep room for without allocating.
func TestManyDevices(t *testing.T) {
	p := must(policy.Parse("p", []byte("default_plan: p\nplans: {p: {devices: 40}}\n")))
	r := newTrial(t, p, epoch)
	for i := range 40 {
		if d := r.execute(acquire(strings.Repeat("d", i+1), "x")); d.Refused {
			t.Fatal(describe(d))
		}
	}
	if d := r.execute(acquire("another", "x")); !d.Refused {
		t.Error("a device above the limit")
	}
	if d := r.execute(acquire("d", "y")); d.Refused {
		t.Error(describe(d))
	}
}
