package e2e_test

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
)

// TestCurl is the request of the README, byte for byte.
func TestCurl(t *testing.T) {
	d := start(t, filepath.Join(t.TempDir(), "data"))
	const body = `{"customerId":"Bayley","deviceId":"iphone","titleId":"GlowS01E01","commandId":"c1"}`
	var first, second struct {
		License struct {
			CustomerID string    `json:"customerId"`
			TitleID    string    `json:"titleId"`
			AcquiredAt time.Time `json:"acquiredAt"`
			ExpiresAt  time.Time `json:"expiresAt"`
		}
		Sequence  string
		Duplicate bool
	}
	for _, into := range []any{&first, &second} {
		status, reply := d.post("AcquireLicense", body)
		if err := json.Unmarshal([]byte(reply), into); err != nil || status != http.StatusOK {
			t.Fatalf("%d %s: %v", status, reply, err)
		}
	}
	if l := first.License; l.CustomerID != "Bayley" || l.TitleID != "GlowS01E01" ||
		l.ExpiresAt.Sub(l.AcquiredAt) != 30*24*time.Hour {
		t.Errorf("licence %+v", l)
	}
	if first.Duplicate || !second.Duplicate || first.License != second.License || first.Sequence != second.Sequence {
		t.Errorf("sent twice: %+v, then %+v", first, second)
	}
}

// tour makes calls of one customer, each by another protocol than the one before.
type tour struct {
	t       *testing.T
	clients []licensedv1connect.LicenseServiceClient
	calls   int
}

func (r *tour) client() licensedv1connect.LicenseServiceClient {
	r.calls++
	return r.clients[r.calls%len(r.clients)]
}

func (r *tour) acquire(
	id, device, title string, change ...func(*licensedv1.AcquireLicenseRequest),
) (*licensedv1.AcquireLicenseResponse, error) {
	q := &licensedv1.AcquireLicenseRequest{CustomerId: "Matt", CommandId: id, DeviceId: device, TitleId: title}
	for _, f := range change {
		f(q)
	}
	return call(r, licensedv1connect.LicenseServiceClient.AcquireLicense, q)
}

// call calls a method by the next protocol, and waits as long as it is told to when the customer was
// refused too often in a second.
func call[Q, A any](
	r *tour, method func(
		licensedv1connect.LicenseServiceClient, context.Context, *connect.Request[Q],
	) (*connect.Response[A], error), q *Q,
) (*A, error) {
	for {
		res, err := method(r.client(), r.t.Context(), connect.NewRequest(q))
		if err == nil {
			return res.Msg, nil
		}
		after := detail[*errdetails.RetryInfo](err).GetRetryDelay().AsDuration() // 0 without one
		if after == 0 {
			return nil, err
		}
		time.Sleep(after)
	}
}

// accepted fails the test if the call failed.
func (r *tour) accepted(what string, err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatalf("%s: %v", what, err)
	}
}

// refused checks the rule that refused a call, and its numbers.
func (r *tour) refused(
	what string, err error, code connect.Code, rule licensedv1.Rule, limit, current uint32,
) *licensedv1.Refusal {
	r.t.Helper()
	f := detail[*licensedv1.Refusal](err)
	if connect.CodeOf(err) != code || f.GetRule() != rule || f.GetLimit() != limit || f.GetCurrent() != current ||
		f.GetMessage() == "" {
		r.t.Fatalf("%s: %v with %v, want %v with %v, limit %d, current %d", what, err, f, code, rule, limit, current)
	}
	return f
}

func newDownload(q *licensedv1.AcquireLicenseRequest)  { q.NewDownload = true }
func validateOnly(q *licensedv1.AcquireLicenseRequest) { q.ValidateOnly = true }

func TestLimits(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	d := start(t, data, "--policy", "testdata/limits.yaml")
	r := &tour{t: t, clients: d.clients()}
	limited := connect.CodeFailedPrecondition

	first, err := r.acquire("1", "iphone", "ExMachina")
	r.accepted("first licence", err)
	_, err = r.acquire("2", "ipad", "Lamb")
	r.accepted("second device", err)

	_, err = r.acquire("3", "tv", "GlowS01E01")
	refused := r.refused("third device", err, limited, licensedv1.Rule_RULE_DEVICE_LIMIT, 2, 2)
	_, err = r.acquire("3", "tv", "GlowS01E01")
	again := r.refused("third device, sent again", err, limited, licensedv1.Rule_RULE_DEVICE_LIMIT, 2, 2)
	if again.Duplicate != true || refused.Duplicate != false || again.Sequence != refused.Sequence ||
		refused.Sequence == 0 {
		t.Errorf("a refusal and its repeat: %v, %v", refused, again)
	}

	_, err = r.acquire("4", "iphone", "Moonlight")
	r.refused("third licence of the studio", err, limited, licensedv1.Rule_RULE_STUDIO_LIMIT, 2, 2)

	_, err = r.acquire("5", "iphone", "ExMachina", newDownload)
	r.accepted("second download", err)
	_, err = r.acquire("6", "iphone", "ExMachina", newDownload)
	refused = r.refused("third download", err, limited, licensedv1.Rule_RULE_YEARLY_LIMIT, 2, 2)
	if got, want := refused.NextAllowedAt.AsTime(),
		first.License.AcquiredAt.AsTime().Add(365*24*time.Hour); !got.Equal(want) {
		t.Errorf("another download is allowed at %v, want a year after the first, %v", got, want)
	}

	r.validation(first)
	r.identity()
	r.devices()
	r.plans()

	before := r.lists()
	if code := d.Stop(); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	d = start(t, data, "--policy", "testdata/limits.yaml")
	r.clients = d.clients()
	for i, after := range r.lists() {
		if !proto.Equal(before[i], after) {
			t.Errorf("before the restart\n%v\nafter it\n%v", before[i], after)
		}
	}
}

// validation asks without changing anything.
func (r *tour) validation(first *licensedv1.AcquireLicenseResponse) {
	before := r.sequence()
	_, err := r.acquire("", "tv", "GlowS01E01", validateOnly)
	f := r.refused("ask for a third device", err, connect.CodeFailedPrecondition,
		licensedv1.Rule_RULE_DEVICE_LIMIT, 2, 2)
	res, err := r.acquire("ask", "iphone", "ExMachina", validateOnly)
	r.accepted("ask for a licence that is active", err)
	if f.Sequence != 0 || res.Sequence != 0 || !proto.Equal(res.License, first.License) {
		r.t.Errorf("answers to questions: %v, %v", f, res)
	}
	if after := r.sequence(); after != before {
		r.t.Errorf("questions moved the history from %d to %d", before, after)
	}
}

// identity misuses command ids and issue times.
func (r *tour) identity() {
	_, err := r.acquire("1", "iphone", "Lamb")
	if connect.CodeOf(err) != connect.CodeAlreadyExists {
		r.t.Errorf("an id with other content: %v", err)
	}
	_, err = r.acquire("1", "iphone", "ExMachina", func(q *licensedv1.AcquireLicenseRequest) {
		q.IssuedAt = timestamppb.New(time.Now().Add(-25 * time.Hour))
	})
	if connect.CodeOf(err) != connect.CodeAlreadyExists {
		r.t.Errorf("the id of a command of today, issued yesterday: %v", err)
	}
	_, err = r.acquire("early", "iphone", "ExMachina", func(q *licensedv1.AcquireLicenseRequest) {
		q.IssuedAt = timestamppb.New(time.Now().Add(time.Hour))
	})
	if connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), "server's time") {
		r.t.Errorf("a command of the future: %v", err)
	}
}

func (r *tour) devices() {
	deactivate := func(id, device string) (*licensedv1.DeactivateDeviceResponse, error) {
		return call(r, licensedv1connect.LicenseServiceClient.DeactivateDevice, &licensedv1.DeactivateDeviceRequest{
			CustomerId: "Matt", DeviceId: device, CommandId: id,
		})
	}
	_, err := deactivate("d1", "toaster")
	r.refused("unknown device", err, connect.CodeNotFound, licensedv1.Rule_RULE_UNKNOWN_DEVICE, 0, 0)
	res, err := deactivate("d2", "ipad")
	r.accepted("remove a device", err)
	if len(res.ReleasedTitleIds) != 1 || res.ReleasedTitleIds[0] != "Lamb" {
		r.t.Errorf("removing the device released %v", res.ReleasedTitleIds)
	}
	_, err = deactivate("d3", "iphone")
	r.refused("second removal in a year", err, connect.CodeFailedPrecondition,
		licensedv1.Rule_RULE_DEACTIVATION_LIMIT, 1, 1)
	_, err = call(r, licensedv1connect.LicenseServiceClient.RenewLicense, &licensedv1.RenewLicenseRequest{
		CustomerId: "Matt", DeviceId: "iphone", TitleId: "Moonlight", CommandId: "r1",
	})
	r.refused("renew what was never held", err, connect.CodeNotFound, licensedv1.Rule_RULE_NO_LICENSE, 0, 0)
	renewed, err := call(r, licensedv1connect.LicenseServiceClient.RenewLicense, &licensedv1.RenewLicenseRequest{
		CustomerId: "Matt", DeviceId: "iphone", TitleId: "ExMachina", CommandId: "r2",
	})
	r.accepted("renew", err)
	if renewed.License.Renewals != 1 {
		r.t.Errorf("renewed: %v", renewed)
	}
	_, err = call(r, licensedv1connect.LicenseServiceClient.RecordPlayback, &licensedv1.RecordPlaybackRequest{
		CustomerId: "Matt", DeviceId: "iphone", TitleId: "ExMachina", CommandId: "p1",
	})
	r.accepted("play", err)
}

func (r *tour) plans() {
	change := func(id, plan string) (*licensedv1.ChangePlanResponse, error) {
		return call(r, licensedv1connect.LicenseServiceClient.ChangePlan, &licensedv1.ChangePlanRequest{
			CustomerId: "Matt", PlanId: plan, CommandId: id,
		})
	}
	_, err := change("l1", "platinum")
	r.refused("unknown plan", err, connect.CodeNotFound, licensedv1.Rule_RULE_UNKNOWN_PLAN, 0, 0)
	res, err := change("l2", "premium")
	r.accepted("larger plan", err)
	if res.PlanId != "premium" || res.DeviceLimit != 4 {
		r.t.Errorf("changed to premium: %v", res)
	}
	for id, device := range map[string]string{"a1": "tv", "a2": "laptop", "a3": "tablet"} {
		_, err := r.acquire(id, device, "GlowS01E01")
		r.accepted("more devices on a larger plan", err)
	}
	_, err = r.acquire("a4", "watch", "GlowS01E01")
	r.refused("fifth device on premium", err, connect.CodeFailedPrecondition, licensedv1.Rule_RULE_DEVICE_LIMIT, 4, 4)
}

func (r *tour) sequence() uint64 {
	res, err := call(r, licensedv1connect.LicenseServiceClient.ListDevices,
		&licensedv1.ListDevicesRequest{CustomerId: "Matt"})
	r.accepted("list devices", err)
	return res.Sequence
}

// lists returns what there is to know of the customer.
func (r *tour) lists() []proto.Message {
	devices, err := call(r, licensedv1connect.LicenseServiceClient.ListDevices,
		&licensedv1.ListDevicesRequest{CustomerId: "Matt"})
	r.accepted("list devices", err)
	licenses, err := call(r, licensedv1connect.LicenseServiceClient.ListLicenses,
		&licensedv1.ListLicensesRequest{CustomerId: "Matt", IncludeInactive: true})
	r.accepted("list licences", err)
	downloads := func(since *timestamppb.Timestamp) *licensedv1.ListDownloadsResponse {
		res, err := call(r, licensedv1connect.LicenseServiceClient.ListDownloads, &licensedv1.ListDownloadsRequest{
			CustomerId: "Matt", TitleId: "ExMachina", Since: since,
		})
		r.accepted("list downloads", err)
		return res
	}
	recent, ever := downloads(nil), downloads(timestamppb.New(time.Unix(0, 0)))
	if len(recent.Downloads) != 2 || recent.Allowed || recent.GetLimit() != 2 || recent.NextAllowedAt == nil {
		r.t.Errorf("downloads: %v", recent)
	}
	if !proto.Equal(recent, ever) {
		r.t.Errorf("downloads of the state\n%v\nand of the history\n%v", recent, ever)
	}
	if len(devices.Devices) != 5 || devices.DeviceLimit != 4 || devices.PlanId != "premium" ||
		len(licenses.Licenses) != 5 {
		r.t.Errorf("devices %v, licences %v", devices, licenses)
	}
	return []proto.Message{devices, licenses, recent}
}

// TestPolicyReload changes the policy under a running daemon, by file change and by SIGHUP.
func TestPolicyReload(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "policy.yaml")
	write := func(devices, version string) {
		t.Helper()
		content := "version: " + version + "\ndefault_plan: p\nplans:\n  p: {devices: " + devices + "}\n"
		if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	write("1", "v1")
	d := start(t, filepath.Join(dir, "data"), "--policy", path)
	limit := func() uint32 {
		res, err := d.clients()[0].ListDevices(t.Context(),
			connect.NewRequest(&licensedv1.ListDevicesRequest{CustomerId: "Matt"}))
		if err != nil {
			t.Fatal(err)
		}
		return res.Msg.DeviceLimit
	}
	if got := limit(); got != 1 {
		t.Fatalf("limit %d, want 1", got)
	}
	write("2", "v2")
	d.Until(func() bool { return limit() == 2 })
	write("nonsense", "v3")
	d.Until(func() bool { return strings.Contains(d.Log.String(), "policy.yaml:4") })
	if got := limit(); got != 2 {
		t.Errorf("limit %d after a file with mistakes, want 2 as before", got)
	}
	write("3", "v4")
	d.Signal(syscall.SIGHUP)
	d.Until(func() bool { return limit() == 3 })
}
