package gateway_test

import (
	"context"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/actors"
	"licensed/actors/license"
	"licensed/actors/license/policy"
	"licensed/gateway"
	"licensed/gateway/fallback"
	"licensed/licensetoken"
	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
	"licensed/persistence"
)

// distant is a domain whose owner cannot be reached while err is set, and whose store cannot while noStore is.
type distant struct {
	*domain
	err     atomic.Pointer[error]
	noStore atomic.Bool
	queries atomic.Int64
}

func (d *distant) Query(ctx context.Context, id string, q any) (actors.Answer, error) {
	d.queries.Add(1)
	if err := d.err.Load(); err != nil {
		return actors.Answer{}, *err
	}
	return d.domain.Query(ctx, id, q)
}

// StoredHead is for gateway.Config.
func (d *distant) StoredHead(_ context.Context, id string) (persistence.Head, error) {
	if d.noStore.Load() {
		return persistence.Head{}, persistence.ErrUnavailable
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return persistence.Head{
		Partition: persistence.Partition{RootKey: persistence.RootKey{Aggregate: id}},
		Sequence:  uint64(len(d.events[id])),
	}, nil
}

// SnapshotBefore implements gateway.HistoryReader.
func (d *distant) SnapshotBefore(context.Context, persistence.Head, uint64) (persistence.Root, bool, error) {
	return persistence.Root{}, false, nil
}

func (d *distant) Execute(ctx context.Context, id string, c actors.Command) (actors.Reply, error) {
	if err := d.err.Load(); err != nil {
		return actors.Reply{}, *err
	}
	return d.domain.Execute(ctx, id, c)
}

// fail has all requests fail, comeBack none.
func (d *distant) fail(err error) { d.err.Store(&err) }
func (d *distant) comeBack()      { d.err.Store(nil) }

// startFallback starts a gateway with signed licences and fallbacks.
func (d *distant) startFallback(change ...func(*fallback.Config)) *rig {
	journal, _, err := fallback.OpenJournal(d.t.TempDir(), 1<<20)
	if err != nil {
		d.t.Fatal(err)
	}
	c := fallback.Config{
		Journal: journal, Execute: d.Execute, Query: d.Query, FormerBytes: 1 << 20,
		Owner:    func(string) (one persistence.Incarnation) { return one },
		Terms:    func(string) fallback.Terms { return fallback.Terms{Renewals: 2, For: 60 * 24 * time.Hour} },
		Patience: time.Minute, Timeout: time.Minute, Now: func() time.Time { return noon },
		Registry: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler),
	}
	for _, f := range change {
		f(&c)
	}
	f := fallback.New(c)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { f.Run(ctx) })
	d.t.Cleanup(func() {
		cancel()
		running.Wait()
		if err := journal.Close(); err != nil {
			d.t.Error(err)
		}
	})
	return start(d.t, d, func(c *gateway.Config) {
		c.HistoryReader, c.LicenseIssuer, c.Fallback = d, "licensed", f
		c.RenewAfterPlay = func() bool { return d.kind.Policy().RenewAfterPlay() }
		c.StoredHead, c.Kind, c.Now = d.StoredHead, d.kind, func() time.Time { return noon }
		c.SigningKeys = &testKeys{keys: []licensetoken.SigningKey{signingKey("a")}}
	})
}

// TestProvisional: while the owner cannot be reached, a device that shows its licence has it renewed for some time, and
// may release it. Both are executed later, under the ids of the device, and then their repeats have the outcome.
func TestProvisional(t *testing.T) {
	d := &distant{domain: newDomain(t)}
	g := d.startFallback()
	ctx := t.Context()
	for name, client := range protocols(t, g.url) {
		d.comeBack()
		who := strings.ReplaceAll(name, "/", " over ")
		a := acquire()
		a.CustomerId, a.Signed = who, true
		acquired, err := untilServed(func() (*connect.Response[licensedv1.AcquireLicenseResponse], error) {
			return client.AcquireLicense(ctx, connect.NewRequest(a))
		})
		if err != nil {
			t.Fatal(name, err)
		}
		d.fail(actors.ErrUnknownOutcome)
		renew := &licensedv1.RenewLicenseRequest{
			CustomerId: who, DeviceId: "iphone", TitleId: "GlowS01E01", CommandId: "renew", Signed: true,
		}
		unavailable := func(what string, r *licensedv1.RenewLicenseRequest) {
			t.Helper()
			res, err := client.RenewLicense(ctx, connect.NewRequest(r))
			if connect.CodeOf(err) != connect.CodeUnavailable {
				t.Errorf("%s: %s got %v, %v", name, what, res, err)
			}
		}
		unavailable("a renewal without a signed licence", renew)
		renew.SignedLicense = acquired.Msg.SignedLicense
		until := noon.Add(60 * 24 * time.Hour).Truncate(time.Millisecond)
		for range 2 { // Also a repeat.
			res, err := client.RenewLicense(ctx, connect.NewRequest(renew))
			if err != nil {
				t.Fatal(name, err)
			}
			l := verified(t, res.Msg.SignedLicense, g.publicKeys(t))
			at := res.Msg.Provisional.GetAcceptedAt().AsTime()
			if res.Msg.Provisional == nil || !at.Equal(noon.Truncate(time.Millisecond)) ||
				res.Msg.Sequence != 0 || res.Msg.Duplicate || !res.Msg.License.ExpiresAt.AsTime().Equal(until) ||
				!l.ExpiresAt.Equal(until.Truncate(time.Second)) ||
				!l.AcquiredAt.Equal(acquired.Msg.License.AcquiredAt.AsTime()) {
				t.Errorf("%s: the renewal got %v with %+v", name, res.Msg, l)
			}
		}
		release := &licensedv1.ReleaseLicenseRequest{
			CustomerId: who, DeviceId: "iphone", TitleId: "GlowS01E01", CommandId: "release",
			SignedLicense: acquired.Msg.SignedLicense,
		}
		released, err := client.ReleaseLicense(ctx, connect.NewRequest(release))
		if err != nil || released.Msg.Provisional == nil || released.Msg.Sequence != 0 ||
			!released.Msg.License.Released {
			t.Errorf("%s: the release got %v, %v", name, released, err)
		}
		late := &licensedv1.RenewLicenseRequest{
			CustomerId: who, DeviceId: "iphone", TitleId: "GlowS01E01", CommandId: "late",
			SignedLicense: acquired.Msg.SignedLicense,
		}
		if res, err := client.RenewLicense(ctx, connect.NewRequest(late)); err != nil || res.Msg.Provisional == nil {
			t.Errorf("%s: the second renewal got %v, %v", name, res, err)
		}
		late.CommandId = "too many"
		unavailable("the third renewal", late)
		late.ValidateOnly, late.CommandId = true, ""
		unavailable("a question", late)
		d.comeBack()
		renewed, err := untilServed(func() (*connect.Response[licensedv1.RenewLicenseResponse], error) {
			res, err := client.RenewLicense(ctx, connect.NewRequest(renew))
			if err == nil && res.Msg.Provisional != nil {
				err = connect.NewError(connect.CodeUnavailable, nil)
			}
			return res, err
		})
		if err != nil || !renewed.Msg.Duplicate || renewed.Msg.Sequence != acquired.Msg.Sequence+1 {
			t.Errorf("%s: after the outage the renewal has %v, %v", name, renewed, err)
		}
		// The renewal that came after the release was refused, and the reason is on record.
		late.ValidateOnly, late.CommandId = false, "late"
		_, err = client.RenewLicense(ctx, connect.NewRequest(late))
		refusal, ok := detail[*licensedv1.Refusal](t, err)
		if !ok || refusal.Rule != licensedv1.Rule_RULE_RELEASED || !refusal.Duplicate {
			t.Errorf("%s: the renewal after the release has %v", name, err)
		}
	}
}

// TestProvisionalHours: a provisional renewal leaves the hours after the first playback as they are. A playback that is
// reported during the outage ends it, and the token has neither more hours nor a later time from which they count.
func TestProvisionalHours(t *testing.T) {
	d := &distant{domain: newDomain(t)}
	hours, now := atomic.Uint32{}, atomic.Int64{}
	clock := func() time.Time { return time.UnixMilli(now.Load()) }
	set := func(at time.Time) { now.Store(at.UnixMilli()) }
	g := d.startFallback(func(c *fallback.Config) {
		c.Now = clock
		c.Terms = func(string) fallback.Terms {
			return fallback.Terms{Renewals: 2, For: 60 * 24 * time.Hour, PlayHours: hours.Load()}
		}
	})
	p, err := policy.Parse("hours", []byte(
		"default_plan: two\nplans: {two: {devices: 2}}\ndefaults: {hours_after_first_play: 48}\n"+
			"renew_after_play: true\n"))
	if err != nil {
		t.Fatal(err)
	}
	d.kind.SetPolicy(p)
	ctx, client := t.Context(), protocols(t, g.url)["grpc"]
	for name, test := range map[string]struct {
		ofPolicy, want uint32
	}{
		"as before":              {48, 48},
		"the policy has fewer":   {24, 24},
		"the policy has more":    {72, 48},
		"the policy has no more": {0, 48},
	} {
		t.Run(name, func(t *testing.T) {
			d.comeBack()
			set(noon)
			hours.Store(test.ofPolicy)
			a := acquire()
			a.CustomerId, a.Signed = name, true
			acquired, err := untilServed(func() (*connect.Response[licensedv1.AcquireLicenseResponse], error) {
				return client.AcquireLicense(ctx, connect.NewRequest(a))
			})
			if err != nil {
				t.Fatal(err)
			}
			d.fail(actors.ErrUnavailable)
			set(noon.Add(10 * time.Hour))
			renewal := func(id string) (*licensedv1.RenewLicenseResponse, *licensetoken.License, error) {
				res, err := client.RenewLicense(ctx, connect.NewRequest(&licensedv1.RenewLicenseRequest{
					CustomerId: name, DeviceId: "iphone", TitleId: "GlowS01E01", CommandId: id, Signed: true,
					SignedLicense: acquired.Msg.SignedLicense,
				}))
				if err != nil {
					return nil, nil, err
				}
				return res.Msg, verified(t, res.Msg.SignedLicense, g.publicKeys(t)), nil
			}
			renewed, l, err := renewal("unplayed")
			if err != nil || renewed.Provisional == nil || renewed.License.GetPlayHours() != test.want ||
				l.PlayHours != test.want || !l.ExpiresAt.Equal(noon.Add((10+60*24)*time.Hour).Truncate(time.Second)) {
				t.Fatalf("without a playback: %v, %+v, %v", renewed, l, err)
			}
			// The device has played it since it got the licence: for the new token as for the old one.
			firstPlayed := noon.Add(9 * time.Hour)
			if firstPlayed.Before(l.IssuedAt) {
				t.Errorf("the token is of %v: the playback of %v does not count", l.IssuedAt, firstPlayed)
			}
			if _, err := client.SyncDevice(ctx, connect.NewRequest(&licensedv1.SyncDeviceRequest{
				CustomerId: name, DeviceId: "iphone", CommandId: "facts", Facts: []*licensedv1.Fact{{
					Number: 1, Kind: licensedv1.FactKind_FACT_KIND_PLAYED, TitleId: "GlowS01E01",
					At: timestamppb.New(firstPlayed),
				}},
			})); err != nil {
				t.Fatal(err)
			}
			end := firstPlayed.Add(time.Duration(test.want) * time.Hour)
			if renewed, l, err = renewal("played"); err != nil || !l.ExpiresAt.Equal(end.Truncate(time.Second)) {
				t.Errorf("after a playback: %v, %+v, %v; want the end at %v", renewed, l, err, end)
			}
			set(end)
			if renewed, _, err = renewal("after"); connect.CodeOf(err) != connect.CodeUnavailable {
				t.Errorf("after the hours: %v, %v", renewed, err)
			}
		})
	}
}

// TestCallerGaveUp: a caller whose time passed while its renewal was written is not told that nothing was executed. The
// renewal is kept once; a repeat gets the same grant, and the outcome after the outage.
func TestCallerGaveUp(t *testing.T) {
	d := &distant{domain: newDomain(t)}
	var late atomic.Pointer[time.Time] // the deadline of the renewal
	var now atomic.Int64
	now.Store(noon.UnixMilli())
	g := d.startFallback(func(c *fallback.Config) {
		c.Now = func() time.Time { return time.UnixMilli(now.Load()) }
		c.Terms = func(string) fallback.Terms {
			if end := late.Load(); end != nil { // So that the write begins after it.
				time.Sleep(time.Until(*end))
			}
			return fallback.Terms{Renewals: 2, For: 60 * 24 * time.Hour}
		}
	})
	ctx := t.Context()
	client := protocols(t, g.url)["connect/h2"]
	a := acquire()
	a.Signed = true
	acquired, err := client.AcquireLicense(ctx, connect.NewRequest(a))
	if err != nil {
		t.Fatal(err)
	}
	d.fail(actors.ErrUnavailable)
	renew := &licensedv1.RenewLicenseRequest{
		CustomerId: "Bayley", DeviceId: "iphone", TitleId: "GlowS01E01", CommandId: "renew",
		SignedLicense: acquired.Msg.SignedLicense,
	}
	const timeout = 200 * time.Millisecond
	r := connect.NewRequest(renew)
	r.Header().Set("Connect-Timeout-Ms", strconv.FormatInt(timeout.Milliseconds(), 10))
	end := time.Now().Add(timeout + 50*time.Millisecond)
	late.Store(&end)
	_, err = client.RenewLicense(ctx, r)
	late.Store(nil)
	info, _ := detail[*errdetails.ErrorInfo](t, err)
	if connect.CodeOf(err) != connect.CodeDeadlineExceeded || info.GetReason() != licensedv1.ReasonOutcomeUnknown {
		t.Fatalf("the caller who gave up got %v", err)
	}
	now.Add(time.Hour.Milliseconds())
	var sequence uint64
	for range 2 {
		repeat, err := client.RenewLicense(ctx, connect.NewRequest(renew))
		if err != nil || !repeat.Msg.Provisional.GetAcceptedAt().AsTime().Equal(noon.Truncate(time.Millisecond)) ||
			!repeat.Msg.License.ExpiresAt.AsTime().Equal(noon.Add(60*24*time.Hour).Truncate(time.Millisecond)) {
			t.Fatalf("the repeat got %v, %v", repeat, err)
		}
	}
	d.comeBack()
	renewed, err := untilServed(func() (*connect.Response[licensedv1.RenewLicenseResponse], error) {
		res, err := client.RenewLicense(ctx, connect.NewRequest(renew))
		if err == nil && res.Msg.Provisional != nil {
			err = connect.NewError(connect.CodeUnavailable, nil)
		}
		return res, err
	})
	if err != nil || !renewed.Msg.Duplicate {
		t.Fatalf("after the outage %v, %v", renewed, err)
	}
	if sequence = acquired.Msg.Sequence + 1; renewed.Msg.Sequence != sequence || renewed.Msg.License.Renewals != 1 {
		t.Errorf("after the outage %v, want it at %d", renewed.Msg, sequence)
	}
}

// TestDeferredFacts: facts of a device are accepted without a signed licence while the owner cannot be reached. The
// device keeps them until they are recorded, dated by when the gateway received them.
func TestDeferredFacts(t *testing.T) {
	d := &distant{domain: newDomain(t)}
	g := d.startFallback()
	ctx, sent := t.Context(), noon.Add(24*time.Hour)
	for name, client := range protocols(t, g.url) {
		d.comeBack()
		who := strings.ReplaceAll(name, "/", " over ")
		a := acquire()
		a.CustomerId = who
		if _, err := untilServed(func() (*connect.Response[licensedv1.AcquireLicenseResponse], error) {
			return client.AcquireLicense(ctx, connect.NewRequest(a))
		}); err != nil {
			t.Fatal(name, err)
		}
		r := &licensedv1.SyncDeviceRequest{
			CustomerId: who, DeviceId: "iphone", CommandId: "sync", SentAt: timestamppb.New(sent),
			Facts: []*licensedv1.Fact{{
				Number: 1, Kind: licensedv1.FactKind_FACT_KIND_PLAYED, TitleId: "GlowS01E01", At: timestamppb.New(sent),
			}},
		}
		sync := func() (*connect.Response[licensedv1.SyncDeviceResponse], error) {
			return client.SyncDevice(ctx, connect.NewRequest(r))
		}
		d.fail(actors.ErrUnavailable)
		for range 2 { // Also a repeat.
			res, err := sync()
			check(t, name, res, err, &licensedv1.SyncDeviceResponse{
				CustomerId: who, DeviceId: "iphone",
				Provisional: &licensedv1.Provisional{AcceptedAt: timestamppb.New(noon.Truncate(time.Millisecond))},
			})
		}
		r.ValidateOnly, r.CommandId = true, ""
		if res, err := sync(); connect.CodeOf(err) != connect.CodeUnavailable {
			t.Errorf("%s: a question got %v, %v", name, res, err)
		}
		r.ValidateOnly, r.CommandId = false, "sync"
		d.mu.Lock()
		d.now = noon.Add(3 * time.Hour)
		d.mu.Unlock()
		d.comeBack()
		res, err := untilServed(func() (*connect.Response[licensedv1.SyncDeviceResponse], error) {
			res, err := sync()
			if err == nil && res.Msg.Provisional != nil {
				err = connect.NewError(connect.CodeUnavailable, nil)
			}
			return res, err
		})
		if err != nil || !res.Msg.Duplicate || res.Msg.HighestNumber != 1 || res.Msg.Recorded != 1 {
			t.Errorf("%s: after the outage %v, %v", name, res, err)
		}
		d.mu.Lock()
		events := d.events[who]
		if at := license.OccurredAt(events[len(events)-1]); !at.Equal(noon.Truncate(time.Millisecond)) {
			t.Errorf("%s: the fact occurred at %v, want %v", name, at, noon)
		}
		d.now = noon
		d.mu.Unlock()
	}
}

// TestStaleAnswers: while the owner cannot be reached, questions that allow it are answered from the store, and without
// a store as before; each such answer is marked, and has all that was acknowledged before its time. Others get none.
func TestStaleAnswers(t *testing.T) {
	d := &distant{domain: newDomain(t)}
	g := d.startFallback()
	ctx, asOf, clients := t.Context(), timestamppb.New(noon), protocols(t, g.url)
	// unasked asks all questions without an allowed age.
	unasked := func(name string) {
		t.Helper()
		who, client := strings.ReplaceAll(name, "/", " over "), clients[name]
		_, licenses := client.ListLicenses(ctx, connect.NewRequest(&licensedv1.ListLicensesRequest{CustomerId: who}))
		_, devices := client.ListDevices(ctx, connect.NewRequest(&licensedv1.ListDevicesRequest{CustomerId: who}))
		_, downloads := client.ListDownloads(ctx, connect.NewRequest(&licensedv1.ListDownloadsRequest{CustomerId: who}))
		_, customer := client.GetCustomer(ctx, connect.NewRequest(&licensedv1.GetCustomerRequest{CustomerId: who}))
		for i, err := range []error{licenses, devices, downloads, customer} {
			if connect.CodeOf(err) != connect.CodeUnavailable {
				t.Errorf("%s: question %d allows no stale answer, and got %v", name, i, err)
			}
		}
	}
	for name, client := range clients {
		d.comeBack()
		d.noStore.Store(false)
		who, age := strings.ReplaceAll(name, "/", " over "), durationpb.New(time.Hour)
		// ask asks all questions, and checks that each answer is marked with the source, and has the sequence; source
		// STALE_SOURCE_UNSPECIFIED is for current answers.
		ask := func(source licensedv1.StaleSource, sequence uint64) {
			t.Helper()
			check := func(what string, err error, stale *licensedv1.Stale, got uint64) {
				t.Helper()
				var want *licensedv1.Stale
				if source != 0 {
					want = &licensedv1.Stale{AsOf: asOf, Source: source}
				}
				if err != nil || !proto.Equal(stale, want) || got != sequence {
					t.Errorf("%s: %s: stale %v at %d (%v), want %v at %d",
						name, what, stale, got, err, want, sequence)
				}
			}
			licenses, err := client.ListLicenses(ctx, connect.NewRequest(&licensedv1.ListLicensesRequest{
				CustomerId: who, MaxStaleness: age,
			}))
			if err != nil {
				t.Fatalf("%s: licences: %v", name, err)
			}
			check("licences", err, licenses.Msg.Stale, licenses.Msg.Sequence)
			if len(licenses.Msg.Licenses) != 1 {
				t.Errorf("%s: %v", name, licenses.Msg)
			}
			devices, err := client.ListDevices(ctx, connect.NewRequest(&licensedv1.ListDevicesRequest{
				CustomerId: who, MaxStaleness: age,
			}))
			if err != nil {
				t.Fatalf("%s: devices: %v", name, err)
			}
			check("devices", err, devices.Msg.Stale, devices.Msg.Sequence)
			downloads, err := client.ListDownloads(ctx, connect.NewRequest(&licensedv1.ListDownloadsRequest{
				CustomerId: who, TitleId: "GlowS01E01", MaxStaleness: age,
			}))
			if err != nil {
				t.Fatalf("%s: downloads: %v", name, err)
			}
			check("downloads", err, downloads.Msg.Stale, downloads.Msg.Sequence)
			customer, err := client.GetCustomer(ctx, connect.NewRequest(&licensedv1.GetCustomerRequest{
				CustomerId: who, MaxStaleness: age,
			}))
			if err != nil {
				t.Fatalf("%s: customer: %v", name, err)
			}
			check("customer", err, customer.Msg.Stale, customer.Msg.Sequence)
		}
		served := func(call func() error) {
			t.Helper()
			if _, err := untilServed(func() (any, error) { return nil, call() }); err != nil {
				t.Fatal(name, err)
			}
		}
		served(func() error {
			a := acquire()
			a.CustomerId = who
			_, err := client.AcquireLicense(ctx, connect.NewRequest(a))
			return err
		})
		// from waits until a question of the background has found the source.
		from := func(source licensedv1.StaleSource) {
			waitUntil(func() bool {
				res, err := client.ListLicenses(ctx, connect.NewRequest(&licensedv1.ListLicensesRequest{
					CustomerId: who, MaxStaleness: age,
				}))
				if err == nil && source != 0 && res.Msg.Stale == nil {
					t.Errorf("%s: an answer is marked as current while the owner is unavailable", name)
					return true
				}
				return err == nil && res.Msg.Stale.GetSource() == source
			})
		}
		from(licensedv1.StaleSource_STALE_SOURCE_UNSPECIFIED)
		ask(0, 4)
		d.fail(actors.ErrUnavailable)
		from(licensedv1.StaleSource_STALE_SOURCE_STORE)
		for range 5 { // Also with an open breaker.
			ask(licensedv1.StaleSource_STALE_SOURCE_STORE, 4)
		}
		unasked(name)
		d.noStore.Store(true)
		d.comeBack()
		// The owner continues; this gateway does not hear of it.
		d.mu.Lock()
		d.events[who] = append(d.events[who], d.events[who][3])
		d.mu.Unlock()
		d.fail(actors.ErrUnknownOutcome)
		for range 20 {
			ask(licensedv1.StaleSource_STALE_SOURCE_FORMER_ANSWER, 4)
		}
		unasked(name)
		_, err := client.ListLicenses(ctx, connect.NewRequest(&licensedv1.ListLicensesRequest{
			CustomerId: who + "2", MaxStaleness: age,
		}))
		if connect.CodeOf(err) != connect.CodeUnavailable {
			t.Errorf("%s: a question that was never answered: %v", name, err)
		}
		d.mu.Lock()
		d.events[who] = d.events[who][:4]
		d.mu.Unlock()
	}
}

// waitUntil returns when a condition holds.
func waitUntil(holds func() bool) {
	for !holds() {
		time.Sleep(time.Millisecond)
	}
}

// untilServed repeats a call while it gets UNAVAILABLE: the breaker is open.
func untilServed[R any](call func() (R, error)) (R, error) {
	for {
		res, err := call()
		if connect.CodeOf(err) != connect.CodeUnavailable {
			return res, err
		}
		time.Sleep(time.Millisecond)
	}
}

// TestOwnerUnavailable: a command that cannot be deferred is refused at once, with a time to retry, once others have
// failed.
func TestOwnerUnavailable(t *testing.T) {
	d := &distant{domain: newDomain(t)}
	g := d.startFallback()
	d.fail(actors.ErrUnavailable)
	client := protocols(t, g.url)["grpc"]
	for range 1000 {
		_, err := client.AcquireLicense(t.Context(), connect.NewRequest(acquire()))
		if connect.CodeOf(err) != connect.CodeUnavailable {
			t.Fatal(err)
		}
		info, _ := detail[*errdetails.ErrorInfo](t, err)
		if info.GetReason() != licensedv1.ReasonNotExecuted {
			t.Fatal(err)
		}
		if retry, ok := detail[*errdetails.RetryInfo](t, err); ok {
			if got := retry.RetryDelay.AsDuration(); got != fallback.RetryAfter {
				t.Errorf("retry after %v", got)
			}
			return
		}
	}
	t.Error("1,000 requests to an owner that is unavailable had their time")
}

// TestAllowance: a device borrows downloads, and has one granted while the owner cannot be reached. It is executed
// later, and then the repeat has a licence for the full period.
func TestAllowance(t *testing.T) {
	d := &distant{domain: newDomain(t)}
	p, err := policy.Parse("lending", []byte(`
default_plan: two
plans: {two: {devices: 2, allowances: {downloads: 4, at_a_time: 2, hours: 48}}}
`))
	if err != nil {
		t.Fatal(err)
	}
	d.kind.SetPolicy(p)
	g, other := d.startFallback(), d.startFallback()
	ctx := t.Context()
	elsewhere := protocols(t, other.url)
	for name, client := range protocols(t, g.url) {
		d.comeBack()
		who := strings.ReplaceAll(name, "/", " over ")
		a := acquire()
		a.CustomerId = who
		if _, err := untilServed(func() (*connect.Response[licensedv1.AcquireLicenseResponse], error) {
			return client.AcquireLicense(ctx, connect.NewRequest(a))
		}); err != nil {
			t.Fatal(name, err)
		}
		lend := &licensedv1.LendAllowanceRequest{
			CustomerId: who, DeviceId: "iphone", TitleIds: []string{"x", "y"}, CommandId: "lend",
		}
		lent, err := untilServed(func() (*connect.Response[licensedv1.LendAllowanceResponse], error) {
			return client.LendAllowance(ctx, connect.NewRequest(lend))
		})
		if err != nil || len(lent.Msg.Allowance.GetTitleIds()) != 2 || lent.Msg.SignedAllowance == "" {
			t.Fatal(name, lent, err)
		}
		d.fail(actors.ErrUnavailable)
		want := &licensedv1.AcquireLicenseRequest{
			CustomerId: who, DeviceId: "iphone", TitleId: "x", CommandId: "x", Signed: true,
		}
		refused := func(what string, r *licensedv1.AcquireLicenseRequest, by licensedv1connect.LicenseServiceClient) {
			t.Helper()
			res, err := by.AcquireLicense(ctx, connect.NewRequest(r))
			if connect.CodeOf(err) != connect.CodeUnavailable {
				t.Errorf("%s: %s got %v, %v", name, what, res, err)
			}
		}
		refused("without the allowance", want, client)
		want.SignedAllowance = lent.Msg.SignedAllowance
		refused("at another gateway", want, elsewhere[name])
		until := lent.Msg.Allowance.ExpiresAt.AsTime().Add(-license.AllowanceMargin)
		for range 2 { // Also a repeat.
			res, err := client.AcquireLicense(ctx, connect.NewRequest(want))
			if err != nil {
				t.Fatal(name, err)
			}
			l := verified(t, res.Msg.SignedLicense, g.publicKeys(t))
			if res.Msg.Provisional.GetAllowance() != lent.Msg.Allowance.Number || res.Msg.Sequence != 0 ||
				!res.Msg.License.ExpiresAt.AsTime().Equal(until) || !l.ExpiresAt.Equal(until.Truncate(time.Second)) {
				t.Errorf("%s: within the allowance got %v with %+v", name, res.Msg, l)
			}
		}
		again := proto.CloneOf(want)
		again.CommandId = "again"
		refused("the same title once more", again, client)
		again.TitleId = "z"
		refused("a title that is not lent", again, client)
		returned, err := client.ReturnAllowance(ctx, connect.NewRequest(&licensedv1.ReturnAllowanceRequest{
			CustomerId: who, DeviceId: "iphone", SignedAllowance: lent.Msg.SignedAllowance,
		}))
		if err != nil || !slices.Equal(returned.Msg.TitleIds, []string{"y"}) {
			t.Errorf("%s: returned %v, %v", name, returned, err)
		}
		again.TitleId = "y"
		refused("a title that was returned", again, client)
		d.comeBack()
		acquired, err := untilServed(func() (*connect.Response[licensedv1.AcquireLicenseResponse], error) {
			res, err := client.AcquireLicense(ctx, connect.NewRequest(want))
			if err == nil && res.Msg.Provisional != nil {
				err = connect.NewError(connect.CodeUnavailable, nil)
			}
			return res, err
		})
		if err != nil || !acquired.Msg.License.ExpiresAt.AsTime().After(until.Add(20*24*time.Hour)) {
			t.Errorf("%s: after the outage %v, %v", name, acquired, err)
		}
		left, err := untilServed(func() (*connect.Response[licensedv1.GetCustomerResponse], error) {
			res, err := client.GetCustomer(ctx, connect.NewRequest(&licensedv1.GetCustomerRequest{CustomerId: who}))
			if err == nil && len(res.Msg.Allowances) > 0 {
				err = connect.NewError(connect.CodeUnavailable, nil)
			}
			return res, err
		})
		if err != nil || len(left.Msg.Licenses) != 2 {
			t.Errorf("%s: in the end %v, %v", name, left, err)
		}
	}
}
