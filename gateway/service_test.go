package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/actors"
	"licensed/actors/license"
	"licensed/actors/license/policy"
	"licensed/gateway"
	"licensed/internal/harness"
	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
	"licensed/persistence"
)

// domain is the real license aggregates without a runtime: what they decide holds at once. It is also
// their history.
type domain struct {
	gateway.HistoryReader // Only Read is called.

	t    testing.TB
	kind *license.Kind

	mu         sync.Mutex
	now        time.Time
	aggregates map[string]actors.Aggregate
	events     map[string][]actors.Event
	replies    map[string]actors.Reply
	broken     error // of the history
}

// rules are small, so that every limit is near.
const rules = `
version: test
default_plan: standard
deactivations_per_year: 1
plans:
  standard: {devices: 1}
  premium: {devices: 4}
titles:
  GlowS01E01: {studio: netflix, yearly_limit: 2}
`

func newDomain(t testing.TB) *domain {
	t.Helper()
	p, err := policy.Parse("rules", []byte(rules))
	if err != nil {
		t.Fatal(err)
	}
	return &domain{
		t: t, kind: license.NewKind(p), now: noon,
		aggregates: make(map[string]actors.Aggregate),
		events:     make(map[string][]actors.Event),
		replies:    make(map[string]actors.Reply),
	}
}

func (d *domain) aggregate(id string) actors.Aggregate {
	if d.aggregates[id] == nil {
		d.aggregates[id] = d.kind.New(id)
	}
	return d.aggregates[id]
}

func (d *domain) Execute(_ context.Context, id string, c actors.Command) (actors.Reply, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r, ok := d.replies[id+c.ID]; ok && !c.ValidateOnly {
		r.Duplicate = true
		return r, nil
	}
	now := d.now.Truncate(time.Millisecond)
	decision := d.aggregate(id).Decide(now, c.Payload)
	r := actors.Reply{Outcome: d.kind.Outcome(decision.Events), Time: now}
	if c.ValidateOnly {
		return r, nil
	}
	for _, e := range decision.Events {
		d.aggregates[id].Evolve(e)
		d.events[id] = append(d.events[id], e)
	}
	r.Sequence = uint64(len(d.events[id]))
	d.replies[id+c.ID] = r
	return r, nil
}

func (d *domain) Query(_ context.Context, id string, q any) (actors.Answer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	value, err := d.aggregate(id).Query(d.now, q)
	return actors.Answer{Value: value, Head: persistence.Head{
		Partition: persistence.Partition{RootKey: persistence.RootKey{Aggregate: id}},
		Sequence:  uint64(len(d.events[id])),
	}}, err
}

// Read implements gateway.HistoryReader.
func (d *domain) Read(
	_ context.Context, h persistence.Head, _ persistence.HistoryRange, yield func(*persistence.HistoryItem) error,
) error {
	d.mu.Lock()
	events := slices.Clone(d.events[h.Partition.Aggregate][:h.Sequence])
	d.mu.Unlock()
	for i, e := range events {
		if err := yield(&persistence.HistoryItem{Record: persistence.Record{
			Sequence: uint64(i) + 1, AggregateID: e.AggregateID, Order: e.Order, Time: e.Time,
			Mapper: e.Mapper, Header: e.Header, Data: e.Data,
		}}); err != nil {
			return err
		}
	}
	return d.broken
}

func (d *domain) start() *rig {
	return start(d.t, d, func(c *gateway.Config) { c.HistoryReader, c.Kind = d, d.kind })
}

// check fails the test unless the call succeeded with that reply.
func check[A any, P interface {
	*A
	proto.Message
}](t *testing.T, what string, res *connect.Response[A], err error, want P) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if !proto.Equal(P(res.Msg), want) {
		t.Errorf("%s: got\n%v\nwant\n%v", what, P(res.Msg), want)
	}
}

// TestEveryMethod makes each call, in each protocol, for a customer of its own.
func TestEveryMethod(t *testing.T) {
	d := newDomain(t)
	g := d.start()
	ctx := t.Context()
	at := timestamppb.New(noon.Truncate(time.Millisecond))
	until := timestamppb.New(at.AsTime().Add(30 * 24 * time.Hour))
	for name, client := range protocols(t, g.url) {
		who := "Zoë of " + strings.ReplaceAll(name, "/", " over ")
		held := func(renewals uint32, released bool) *licensedv1.License {
			return &licensedv1.License{
				CustomerId: who, DeviceId: "iphone", TitleId: "GlowS01E01", StudioId: "netflix",
				AcquiredAt: at, ExpiresAt: until, Renewals: renewals, Released: released,
			}
		}
		a := &licensedv1.AcquireLicenseRequest{
			CustomerId: who, DeviceId: "iphone", TitleId: "GlowS01E01", CommandId: "1",
		}
		acquired, err := client.AcquireLicense(ctx, connect.NewRequest(a))
		check(t, name, acquired, err, &licensedv1.AcquireLicenseResponse{License: held(0, false), Sequence: 4})
		acquired, err = client.AcquireLicense(ctx, connect.NewRequest(a))
		check(t, name, acquired, err,
			&licensedv1.AcquireLicenseResponse{License: held(0, false), Sequence: 4, Duplicate: true})
		a.CommandId, a.ValidateOnly = "", true
		acquired, err = client.AcquireLicense(ctx, connect.NewRequest(a))
		check(t, name, acquired, err, &licensedv1.AcquireLicenseResponse{License: held(0, false)})
		a.CommandId, a.ValidateOnly, a.NewDownload = "2", false, true
		acquired, err = client.AcquireLicense(ctx, connect.NewRequest(a))
		check(t, name, acquired, err, &licensedv1.AcquireLicenseResponse{License: held(0, false), Sequence: 5})

		renewed, err := client.RenewLicense(ctx, connect.NewRequest(&licensedv1.RenewLicenseRequest{
			CustomerId: who, DeviceId: "iphone", TitleId: "GlowS01E01", CommandId: "3",
		}))
		check(t, name, renewed, err, &licensedv1.RenewLicenseResponse{License: held(1, false), Sequence: 6})
		played, err := client.RecordPlayback(ctx, connect.NewRequest(&licensedv1.RecordPlaybackRequest{
			CustomerId: who, DeviceId: "iphone", TitleId: "GlowS01E01", CommandId: "4",
		}))
		check(t, name, played, err, &licensedv1.RecordPlaybackResponse{License: held(1, false), Sequence: 7})
		planned, err := client.ChangePlan(ctx, connect.NewRequest(&licensedv1.ChangePlanRequest{
			CustomerId: who, PlanId: "premium", CommandId: "5",
		}))
		check(t, name, planned, err,
			&licensedv1.ChangePlanResponse{
				CustomerId: who, PlanId: "premium", DeviceLimit: 4, Sequence: 8, PlanChangedAt: at,
			})

		downloads, err := client.ListDownloads(ctx,
			connect.NewRequest(&licensedv1.ListDownloadsRequest{CustomerId: who, TitleId: "GlowS01E01"}))
		check(t, name, downloads, err, &licensedv1.ListDownloadsResponse{
			CustomerId: who, TitleId: "GlowS01E01", Limit: proto.Uint32(2), Sequence: 8,
			Downloads: []*licensedv1.Download{
				{DeviceId: "iphone", TitleId: "GlowS01E01", At: at},
				{DeviceId: "iphone", TitleId: "GlowS01E01", At: at},
			},
			NextAllowedAt: timestamppb.New(at.AsTime().Add(365 * 24 * time.Hour)),
		})
		ofAll, err := client.ListDownloads(ctx, connect.NewRequest(&licensedv1.ListDownloadsRequest{CustomerId: who}))
		check(t, name, ofAll, err, &licensedv1.ListDownloadsResponse{
			CustomerId: who, Downloads: downloads.Msg.Downloads, Sequence: 8,
		})
		devices, err := client.ListDevices(ctx, connect.NewRequest(&licensedv1.ListDevicesRequest{CustomerId: who}))
		check(t, name, devices, err, &licensedv1.ListDevicesResponse{
			Devices: []*licensedv1.Device{
				{DeviceId: "iphone", Active: true, ActiveLicenses: 1, LastDownloadAt: at, ActivatedAt: at},
			},
			PlanChangedAt: at,
			DeviceLimit:   4, PlanId: "premium", Sequence: 8,
		})
		quota := func(limit, used uint32, next *timestamppb.Timestamp) *licensedv1.Quota {
			return &licensedv1.Quota{Limit: &limit, Used: used, Left: proto.Uint32(limit - used), NextAt: next}
		}
		devices.Msg.Devices[0].Licenses = &licensedv1.Quota{Used: 1}
		all, err := client.GetCustomer(ctx, connect.NewRequest(&licensedv1.GetCustomerRequest{CustomerId: who}))
		check(t, name, all, err, &licensedv1.GetCustomerResponse{
			CustomerId: who, AsOf: at, PlanId: "premium", PlanChangedAt: at, Sequence: 8,
			DevicesInUse: quota(4, 1, nil), Deactivations: quota(1, 0, nil), Devices: devices.Msg.Devices,
			MonthlyDownloads: &licensedv1.Quota{Used: 2},
			Licenses: []*licensedv1.CustomerLicense{
				{License: held(1, false), Status: licensedv1.LicenseStatus_LICENSE_STATUS_ACTIVE},
			},
			Titles: []*licensedv1.CustomerTitle{{
				TitleId: "GlowS01E01", StudioId: "netflix", Downloads: 2,
				Yearly: quota(2, 2, downloads.Msg.NextAllowedAt),
			}},
			Studios: []*licensedv1.CustomerStudio{{StudioId: "netflix", Licenses: &licensedv1.Quota{Used: 1}}},
		})
		released, err := client.ReleaseLicense(ctx, connect.NewRequest(&licensedv1.ReleaseLicenseRequest{
			CustomerId: who, DeviceId: "iphone", TitleId: "GlowS01E01", CommandId: "6",
		}))
		check(t, name, released, err, &licensedv1.ReleaseLicenseResponse{License: held(1, true), Sequence: 9})
		licenses, err := client.ListLicenses(ctx, connect.NewRequest(&licensedv1.ListLicensesRequest{CustomerId: who}))
		check(t, name, licenses, err, &licensedv1.ListLicensesResponse{Sequence: 9})
		licenses, err = client.ListLicenses(ctx,
			connect.NewRequest(&licensedv1.ListLicensesRequest{CustomerId: who, IncludeInactive: true}))
		check(t, name, licenses, err,
			&licensedv1.ListLicensesResponse{Licenses: []*licensedv1.License{held(1, true)}, Sequence: 9})

		a = &licensedv1.AcquireLicenseRequest{CustomerId: who, DeviceId: "iphone", TitleId: "Dark", CommandId: "7"}
		if _, err := client.AcquireLicense(ctx, connect.NewRequest(a)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		removed, err := client.DeactivateDevice(ctx, connect.NewRequest(&licensedv1.DeactivateDeviceRequest{
			CustomerId: who, DeviceId: "iphone", CommandId: "8",
		}))
		check(t, name, removed, err, &licensedv1.DeactivateDeviceResponse{
			CustomerId: who, DeviceId: "iphone", ReleasedTitleIds: []string{"Dark"}, Sequence: 14,
			Removal: &licensedv1.Removal{Counted: true, Removals: 1, Limit: proto.Uint32(1), DeviceLimit: 4},
		})
	}
	if got := g.metric(t, `licensed_gateway_duplicate_commands_total{method="AcquireLicense"}`); got != "8" {
		t.Errorf("duplicates counted: %s, want one for each protocol", got)
	}
}

// TestRefusals come with their code and detail, and again for a repeat.
func TestRefusals(t *testing.T) {
	d := newDomain(t)
	g := d.start()
	for name, client := range protocols(t, g.url) {
		ctx := t.Context()
		r := acquire()
		r.CustomerId = strings.ReplaceAll(name, "/", " over ")
		if _, err := client.AcquireLicense(ctx, connect.NewRequest(r)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		r.CommandId, r.DeviceId = "c2", "ipad"
		for _, duplicate := range []bool{false, true} {
			_, err := client.AcquireLicense(ctx, connect.NewRequest(r))
			checkError(t, name, err, connect.CodeFailedPrecondition, licensedv1.ReasonRefused, "plan standard")
			f, _ := detail[*licensedv1.Refusal](t, err)
			if f.GetRule() != licensedv1.Rule_RULE_DEVICE_LIMIT || f.Limit != 1 || f.Current != 1 || f.Sequence != 5 ||
				f.Duplicate != duplicate {
				t.Errorf("%s: refusal %v", name, f)
			}
		}
		r.CommandId, r.ValidateOnly = "", true
		_, err := client.AcquireLicense(ctx, connect.NewRequest(r))
		if f, _ := detail[*licensedv1.Refusal](t, err); f.GetRule() != licensedv1.Rule_RULE_DEVICE_LIMIT ||
			f.Sequence != 0 {
			t.Errorf("%s: only asked, refusal %v", name, f)
		}
		_, err = client.RenewLicense(ctx, connect.NewRequest(&licensedv1.RenewLicenseRequest{
			CustomerId: r.CustomerId, DeviceId: "tv", TitleId: "Dark", CommandId: "c3",
		}))
		checkError(t, name, err, connect.CodeNotFound, licensedv1.ReasonRefused, "has no licence")
	}
	for series, want := range map[string]string{
		`licensed_gateway_refusals_total{rule="RULE_DEVICE_LIMIT"}`: "24",
		`licensed_gateway_refusals_total{rule="RULE_NO_LICENSE"}`:   "8",
	} {
		if got := g.metric(t, series); got != want {
			t.Errorf("%s is %s, want %s", series, got, want)
		}
	}
}

func TestDownloadsOfFormerYears(t *testing.T) {
	d := newDomain(t)
	client := protocols(t, d.start().url)["grpc"]
	at := d.now
	for i := range 3 {
		r := acquire()
		r.CommandId, r.NewDownload = fmt.Sprint(i), true
		if _, err := client.AcquireLicense(t.Context(), connect.NewRequest(r)); err != nil {
			t.Fatal(err)
		}
		d.now = d.now.AddDate(1, 0, 1)
	}
	ask := func(since time.Time) (*connect.Response[licensedv1.ListDownloadsResponse], error) {
		return client.ListDownloads(t.Context(), connect.NewRequest(&licensedv1.ListDownloadsRequest{
			CustomerId: "Bayley", TitleId: "GlowS01E01", Since: timestamppb.New(since),
		}))
	}
	for since, want := range map[time.Time]int{
		at.AddDate(-1, 0, 0): 3, at.AddDate(0, 1, 0): 2, at.AddDate(1, 1, 0): 1, at.AddDate(2, 2, 0): 0,
	} {
		res, err := ask(since)
		if err != nil || len(res.Msg.Downloads) != want || !res.Msg.Allowed || res.Msg.Sequence == 0 {
			t.Errorf("since %v: %v, %v, want %d downloads", since, res, err, want)
		}
	}
	d.broken = fmt.Errorf("record 3: %w", actors.ErrCorrupt)
	if _, err := ask(at); connect.CodeOf(err) != connect.CodeDataLoss {
		t.Errorf("a history with a gap is shown: %v", err)
	}
}

func TestCorruptOutcome(t *testing.T) {
	f := failing(nil)
	f.execute = func(context.Context, string, actors.Command) (actors.Reply, error) {
		return actors.Reply{Outcome: []byte("nonsense"), Sequence: 1}, nil
	}
	f.answer = func(*licensedv1.Query) (actors.Answer, error) { return actors.Answer{Value: errors.New("what?")}, nil }
	client := protocols(t, start(t, f).url)["grpc"]
	_, err := client.AcquireLicense(t.Context(), connect.NewRequest(acquire()))
	checkError(t, "grpc", err, connect.CodeDataLoss, licensedv1.ReasonOutcomeUnknown, "executed, but")
	_, err = client.AcquireLicense(t.Context(), connect.NewRequest(&licensedv1.AcquireLicenseRequest{
		CustomerId: "Bayley", DeviceId: "iphone", TitleId: "GlowS01E01", ValidateOnly: true,
	}))
	checkError(t, "grpc", err, connect.CodeDataLoss, licensedv1.ReasonCorrupt, "not executed")
	_, err = client.ListDevices(t.Context(), connect.NewRequest(&licensedv1.ListDevicesRequest{CustomerId: "Bayley"}))
	checkError(t, "grpc", err, connect.CodeInternal, licensedv1.ReasonBug, "")
}

// TestQueriesTakeGET: calls without side effects are those marked so in the .proto files; commands take POST alone.
func TestQueriesTakeGET(t *testing.T) {
	r := start(t, failing(actors.ErrUnavailable))
	for method, want := range map[string]int{
		"ListLicenses":   http.StatusServiceUnavailable,
		"ListDownloads":  http.StatusServiceUnavailable,
		"ListDevices":    http.StatusServiceUnavailable,
		"GetCustomer":    http.StatusServiceUnavailable,
		"AcquireLicense": http.StatusMethodNotAllowed,
	} {
		query := url.Values{"encoding": {"json"}, "message": {`{"customerId":"Bayley","titleId":"GlowS01E01"}`}}
		status, _ := harness.Get(t, r.url+"/"+licensedv1connect.LicenseServiceName+"/"+method+"?"+query.Encode())
		if status != want {
			t.Errorf("GET %s: %d, want %d", method, status, want)
		}
	}
	for _, method := range []protoreflect.Name{"GetState", "TryAt", "Why"} {
		m := licensedv1.File_licensed_v1_history_service_proto.Services().ByName("HistoryService").Methods().
			ByName(method)
		const free = descriptorpb.MethodOptions_NO_SIDE_EFFECTS
		if o := m.Options().(*descriptorpb.MethodOptions); o.GetIdempotencyLevel() != free {
			t.Errorf("%s is not marked as free of side effects", method)
		}
	}
}
