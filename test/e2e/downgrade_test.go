package e2e_test

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
)

// TestDowngrade meets several rules at once, removes a device after asking for its cost, and changes to a smaller plan,
// by all protocols of the gateway.
func TestDowngrade(t *testing.T) {
	d := start(t, filepath.Join(t.TempDir(), "data"), "--policy", "testdata/downgrade.yaml")
	r := &tour{t: t, clients: d.clients()}
	limited := connect.CodeFailedPrecondition
	for i, device := range []string{"iphone", "ipad", "laptop"} {
		res, err := r.acquire("acquire-"+device, device, "Roma")
		r.accepted(device, err)
		// The next device is used in a later millisecond, so that it is the one that was used last.
		for time.Now().UnixMilli() <= res.License.AcquiredAt.AsTime().UnixMilli() {
			time.Sleep(time.Millisecond)
		}
		if i == 0 {
			_, err = r.acquire("once", device, "Moonlight")
			r.accepted("a title with a yearly limit", err)
		}
	}

	// Every rule is named with its own time, and nothing is advised that would be in vain.
	_, err := r.acquire("several", "tv", "Moonlight")
	first := r.refused("a fourth device", err, limited, licensedv1.Rule_RULE_DEVICE_LIMIT, 3, 3)
	rules := make([]licensedv1.Rule, len(first.Violations))
	for i, v := range first.Violations {
		rules[i] = v.Rule
		if v.NextAllowedAt == nil || v.NextAllowedAt.AsTime().After(first.NextAllowedAt.AsTime()) {
			t.Errorf("%v, in all %v", v, first.NextAllowedAt.AsTime())
		}
	}
	if !slices.Equal(rules, []licensedv1.Rule{licensedv1.Rule_RULE_DEVICE_LIMIT, licensedv1.Rule_RULE_YEARLY_LIMIT}) ||
		first.CanBeFreed || !first.Violations[0].NextAllowedAt.AsTime().Before(first.NextAllowedAt.AsTime()) {
		t.Errorf("refused by %v, can be freed: %v", rules, first.CanBeFreed)
	}
	_, err = r.acquire("several", "tv", "Moonlight")
	again := r.refused("the same command", err, limited, licensedv1.Rule_RULE_DEVICE_LIMIT, 3, 3)
	if again.Duplicate = false; !proto.Equal(first, again) {
		t.Errorf("the duplicate is told\n%v\nwant\n%v", again, first)
	}

	// A smaller plan fixes who stays, and the customer may choose otherwise once.
	plan, err := call(r, licensedv1connect.LicenseServiceClient.ChangePlan,
		&licensedv1.ChangePlanRequest{CustomerId: "Matt", PlanId: "small", CommandId: "small"})
	r.accepted("a smaller plan", err)
	if !slices.Equal(plan.StayingDeviceIds, []string{"laptop"}) {
		t.Errorf("%v stay, want laptop, which was used last", plan.StayingDeviceIds)
	}
	renew := func(id, device string) error {
		_, err := call(r, licensedv1connect.LicenseServiceClient.RenewLicense,
			&licensedv1.RenewLicenseRequest{CustomerId: "Matt", DeviceId: device, TitleId: "Roma", CommandId: id})
		return err
	}
	_, err = call(r, licensedv1connect.LicenseServiceClient.RecordPlayback,
		&licensedv1.RecordPlaybackRequest{CustomerId: "Matt", DeviceId: "ipad", TitleId: "Roma", CommandId: "play"})
	r.accepted("a playback of a device that does not stay", err)
	refused := r.refused("renewed after it", renew("renew-ipad", "ipad"), limited,
		licensedv1.Rule_RULE_DEVICE_NOT_SELECTED, 1, 3)
	if v := refused.Violations[0]; !v.Selectable || !slices.Equal(v.StayingDeviceIds, []string{"laptop"}) {
		t.Errorf("told %v", v)
	}
	choose := func(id, device string) error {
		_, err := call(r, licensedv1connect.LicenseServiceClient.SelectDevices,
			&licensedv1.SelectDevicesRequest{CustomerId: "Matt", DeviceIds: []string{device}, CommandId: id})
		return err
	}
	r.accepted("choosing", choose("choose-1", "ipad"))
	r.accepted("renewing what was chosen", renew("renew-ipad-2", "ipad"))
	r.refused("choosing again", choose("choose-2", "iphone"), limited, licensedv1.Rule_RULE_SELECTION_MADE, 1, 3)

	// What a removal costs and frees is said before it is done.
	remove := func(device, id string) *licensedv1.DeactivateDeviceResponse {
		res, err := call(r, licensedv1connect.LicenseServiceClient.DeactivateDevice,
			&licensedv1.DeactivateDeviceRequest{
				CustomerId: "Matt", DeviceId: device, CommandId: id, ValidateOnly: id == "",
			})
		r.accepted("removing "+device, err)
		return res
	}
	want := &licensedv1.Removal{Counted: true, Removals: 1, Limit: proto.Uint32(1), DevicesInUse: 2, DeviceLimit: 1}
	if got := remove("laptop", "").Removal; !proto.Equal(got, want) {
		t.Errorf("before: %v, want %v", got, want)
	}
	if got := remove("laptop", "remove").Removal; !proto.Equal(got, want) {
		t.Errorf("done: %v, want %v", got, want)
	}
	if got := remove("laptop", "remove").Removal; !proto.Equal(got, want) {
		t.Errorf("repeated: %v, want %v", got, want)
	}
	for _, title := range []string{"Roma", "Moonlight"} {
		_, err = call(r, licensedv1connect.LicenseServiceClient.ReleaseLicense, &licensedv1.ReleaseLicenseRequest{
			CustomerId: "Matt", DeviceId: "iphone", TitleId: title, CommandId: "release-" + title,
		})
		r.accepted("releasing "+title, err)
	}
	want = &licensedv1.Removal{Removals: 1, Limit: proto.Uint32(1), DevicesInUse: 1, DeviceLimit: 1}
	if got := remove("iphone", "remove-iphone").Removal; !proto.Equal(got, want) {
		t.Errorf("without downloads: %v, want %v", got, want)
	}
}
