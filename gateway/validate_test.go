package gateway_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/actors"
	"licensed/messages/licensedv1"
)

func TestInvalidFieldsAreNamed(t *testing.T) {
	f := failing(actors.ErrNotOwner)
	client := protocols(t, start(t, f).url)["grpc"]
	for name, test := range map[string]struct {
		change func(*licensedv1.AcquireLicenseRequest)
		fields []string
	}{
		"nothing": {func(r *licensedv1.AcquireLicenseRequest) {
			proto.Reset(r)
		}, []string{"device_id", "title_id", "customer_id", "command_id"}},
		"long customer": {func(r *licensedv1.AcquireLicenseRequest) {
			r.CustomerId = strings.Repeat("x", 129)
		}, []string{"customer_id"}},
		"longest customer": {func(r *licensedv1.AcquireLicenseRequest) {
			r.CustomerId = strings.Repeat("x", 128)
		}, nil},
		"long command": {func(r *licensedv1.AcquireLicenseRequest) {
			r.CommandId = strings.Repeat("x", 65)
		}, []string{"command_id"}},
		"longest command": {func(r *licensedv1.AcquireLicenseRequest) {
			r.CommandId = strings.Repeat("x", 64)
		}, nil},
		"colon": {func(r *licensedv1.AcquireLicenseRequest) {
			r.CustomerId = "a:b"
		}, []string{"customer_id"}},
		"slash":              {func(r *licensedv1.AcquireLicenseRequest) { r.DeviceId = "a/b" }, []string{"device_id"}},
		"slash after umlaut": {func(r *licensedv1.AcquireLicenseRequest) { r.DeviceId = "ä/b" }, []string{"device_id"}},
		"newline":            {func(r *licensedv1.AcquireLicenseRequest) { r.TitleId = "a\nb" }, []string{"title_id"}},
		"delete":             {func(r *licensedv1.AcquireLicenseRequest) { r.TitleId = "a\x7f" }, []string{"title_id"}},
		"next line (C1)": {func(r *licensedv1.AcquireLicenseRequest) {
			r.TitleId = "a\u0085b"
		}, []string{"title_id"}},
		"a misleading name": {func(r *licensedv1.AcquireLicenseRequest) {
			r.DeviceName = "a\u202eb"
		}, []string{"device_name"}},
		"long name": {func(r *licensedv1.AcquireLicenseRequest) {
			r.DeviceName = strings.Repeat("é", 65)
		}, []string{"device_name"}},
		"longest name, with space around it": {func(r *licensedv1.AcquireLicenseRequest) {
			r.DeviceName = " " + strings.Repeat("é", 64) + "\t"
		}, nil},
		"another release's type": {func(r *licensedv1.AcquireLicenseRequest) {
			r.DeviceType = 99
		}, []string{"device_type"}},
		"unicode": {func(r *licensedv1.AcquireLicenseRequest) { r.CustomerId = "Zoë 日本" }, nil},
		"impossible time": {func(r *licensedv1.AcquireLicenseRequest) {
			r.IssuedAt = &timestamppb.Timestamp{Nanos: -1}
		}, []string{"issued_at"}},
		"no id, no command": {func(r *licensedv1.AcquireLicenseRequest) {
			r.CommandId = ""
			r.ValidateOnly = true
		}, nil},
		"id, no command": {func(r *licensedv1.AcquireLicenseRequest) {
			r.CommandId = "a:b"
			r.ValidateOnly = true
		}, []string{"command_id"}},
	} {
		r := acquire()
		test.change(r)
		_, err := client.AcquireLicense(t.Context(), connect.NewRequest(r))
		bad, _ := detail[*errdetails.BadRequest](t, err)
		var fields []string
		for _, v := range bad.GetFieldViolations() {
			fields = append(fields, v.Field)
			if !strings.Contains(err.Error(), v.Field+" "+v.Description) {
				t.Errorf("%s: %v does not name %v", name, err, v)
			}
		}
		if !slices.Equal(fields, test.fields) {
			t.Errorf("%s: violations of %v, want %v (%v)", name, fields, test.fields, err)
		}
		if want := connect.CodeInvalidArgument; test.fields != nil && connect.CodeOf(err) != want {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
}

func TestEveryMethodValidates(t *testing.T) {
	client := protocols(t, start(t, failing(actors.ErrNotOwner)).url)["grpc"]
	ctx := t.Context()
	errs := map[string]error{}
	_, errs["customer_id command_id device_id title_id renew"] = client.RenewLicense(ctx,
		connect.NewRequest(&licensedv1.RenewLicenseRequest{}))
	_, errs["customer_id command_id device_id title_id release"] = client.ReleaseLicense(ctx,
		connect.NewRequest(&licensedv1.ReleaseLicenseRequest{}))
	_, errs["customer_id command_id device_id title_id play"] = client.RecordPlayback(ctx,
		connect.NewRequest(&licensedv1.RecordPlaybackRequest{}))
	_, errs["customer_id command_id device_id deactivate"] = client.DeactivateDevice(ctx,
		connect.NewRequest(&licensedv1.DeactivateDeviceRequest{}))
	_, errs["customer_id command_id plan_id plan"] = client.ChangePlan(ctx,
		connect.NewRequest(&licensedv1.ChangePlanRequest{}))
	_, errs["customer_id licenses"] = client.ListLicenses(ctx, connect.NewRequest(&licensedv1.ListLicensesRequest{}))
	_, errs["customer_id devices"] = client.ListDevices(ctx, connect.NewRequest(&licensedv1.ListDevicesRequest{}))
	_, errs["customer_id page_token customer"] = client.GetCustomer(ctx,
		connect.NewRequest(&licensedv1.GetCustomerRequest{PageToken: "nonsense"}))
	_, errs["customer_id title_id since downloads"] = client.ListDownloads(ctx,
		connect.NewRequest(&licensedv1.ListDownloadsRequest{
			TitleId: "a/b",
			Since:   &timestamppb.Timestamp{Seconds: 1 << 60},
		}))
	for want, err := range errs {
		fields := strings.Fields(want)
		bad, _ := detail[*errdetails.BadRequest](t, err)
		var got []string
		for _, v := range bad.GetFieldViolations() {
			got = append(got, v.Field)
		}
		slices.Sort(got)
		slices.Sort(fields[:len(fields)-1])
		if !slices.Equal(got, fields[:len(fields)-1]) {
			t.Errorf("%s: violations of %v, want %v", fields[len(fields)-1], got, fields[:len(fields)-1])
		}
	}
}

func TestIssueTime(t *testing.T) {
	f := failing(actors.ErrNotOwner)
	client := protocols(t, start(t, f).url)["grpc"]
	for name, test := range map[string]struct {
		given *timestamppb.Timestamp
		want  time.Time
	}{
		"absent": {nil, noon.Truncate(time.Millisecond)},
		"given":  {timestamppb.New(noon.Add(-time.Hour)), noon.Add(-time.Hour).Truncate(time.Millisecond)},
		"epoch":  {&timestamppb.Timestamp{}, time.Unix(0, 0).UTC()},
	} {
		r := acquire()
		r.IssuedAt = test.given
		_, err := client.AcquireLicense(t.Context(), connect.NewRequest(r))
		if connect.CodeOf(err) != connect.CodeUnavailable {
			t.Errorf("%s: %v", name, err)
		}
		if got := f.last(t); !got.IssuedAt.Equal(test.want) || got.Stamped != (test.given == nil) {
			t.Errorf("%s: the aggregate got %v, stamped %t, want %v", name, got.IssuedAt, got.Stamped, test.want)
		}
	}
}

// TestStamp: a stamp that the owner refuses is replaced by the one that it names, for a command whose client gave no
// time. The client notices nothing.
func TestStamp(t *testing.T) {
	ahead := noon.Add(240 * time.Hour).Truncate(time.Millisecond)
	f := &fake{execute: func(_ context.Context, _ string, c actors.Command) (actors.Reply, error) {
		if c.IssuedAt.Before(ahead) {
			return actors.Reply{}, &actors.StampError{At: ahead}
		}
		return actors.Reply{}, actors.ErrNotOwner // It was accepted as far as its time goes.
	}}
	client := protocols(t, start(t, f).url)["grpc"]
	_, err := client.AcquireLicense(t.Context(), connect.NewRequest(acquire()))
	if connect.CodeOf(err) != connect.CodeUnavailable || len(f.commands) != 2 {
		t.Errorf("%d attempts: %v", len(f.commands), err)
	}
	first, second := f.commands[0], f.commands[1]
	if second.IssuedAt = first.IssuedAt; first.ID != second.ID || first.Fingerprint != second.Fingerprint ||
		!second.Stamped {
		t.Errorf("%+v, then %+v", first, second)
	}
	f.execute = func(_ context.Context, _ string, c actors.Command) (actors.Reply, error) {
		return actors.Reply{}, &actors.StampError{At: c.IssuedAt.Add(time.Millisecond)}
	}
	_, err = client.AcquireLicense(t.Context(), connect.NewRequest(acquire()))
	if info, _ := detail[*errdetails.ErrorInfo](t, err); info.GetReason() != licensedv1.ReasonNotExecuted {
		t.Errorf("stamps that are never accepted: %v", err)
	}
}
