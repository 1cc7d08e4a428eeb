package payload

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/actors"
	"licensed/actors/license"
	"licensed/internal/protolimit"
	"licensed/messages/licensedv1"
	"licensed/messages/nodev1"
	"licensed/persistence"
)

// travelling are values of all types that travel.
func travelling() map[string]any {
	return map[string]any{
		"licensed.v1.Command": &licensedv1.Command{Command: &licensedv1.Command_ReleaseLicense{
			ReleaseLicense: &licensedv1.ReleaseLicense{DeviceId: "iphone", TitleId: "GlowS01E01"}}},
		"licensed.v1.Query": &licensedv1.Query{
			Query: &licensedv1.Query_ListDevices{ListDevices: &licensedv1.ListDevices{}},
		},
		"licensed.v1.ListLicensesResponse": &licensedv1.ListLicensesResponse{
			Licenses: []*licensedv1.License{{DeviceId: "a"}},
			Sequence: 3,
		},
		"licensed.v1.ListDevicesResponse":     &licensedv1.ListDevicesResponse{PlanId: "standard"},
		"licensed.v1.CustomerState":           &licensedv1.CustomerState{},
		"licensed.v1.GetCustomerResponse":     &licensedv1.GetCustomerResponse{PlanId: "standard"},
		"licensed.v1.NodeStatus":              &licensedv1.NodeStatus{Name: "n1"},
		"licensed.v1.ArchiveCustomerResponse": &licensedv1.ArchiveCustomerResponse{Events: 7},
		"licensed.node.v1.Downloads": &license.Downloads{
			Response: &licensedv1.ListDownloadsResponse{
				TitleId:   "x",
				Downloads: []*licensedv1.Download{{DeviceId: "a", At: timestamppb.New(time.UnixMilli(5))}},
			},
			Older: true, Since: time.UnixMilli(1234567).UTC(),
		},
		"licensed.node.v1.PassivateRequest":  &nodev1.PassivateRequest{},
		"licensed.node.v1.ForgetRequest":     &nodev1.ForgetRequest{},
		"licensed.v1.ForgetCustomerResponse": &licensedv1.ForgetCustomerResponse{Events: 3},
		"licensed.node.v1.PassivateResponse": &nodev1.PassivateResponse{Resident: true},
		"licensed.node.v1.ArchiveRequest":    &nodev1.ArchiveRequest{All: true},
		"licensed.node.v1.ImportRequest": ImportRequest(actors.Import{After: 4, Records: []persistence.Record{{
			Sequence: 5, Count: 1, CommandID: "c", Mapper: "LicenseCreated/1", Time: time.UnixMilli(9).UTC(),
			Data: []byte("x"),
		}}}),
		"licensed.node.v1.ImportResponse": &nodev1.ImportResponse{
			Failure: nodev1.ImportFailure_IMPORT_FAILURE_NOT_CONTINUED,
			Message: "no",
		},
	}
}

func same(a, b any) bool {
	if x, ok := a.(*license.Downloads); ok {
		y, ok := b.(*license.Downloads)
		return ok && x.Older == y.Older && x.Since.Equal(y.Since) && proto.Equal(x.Response, y.Response)
	}
	if x, ok := a.(proto.Message); ok {
		y, ok := b.(proto.Message)
		return ok && proto.Equal(x, y)
	}
	return reflect.DeepEqual(a, b)
}

func TestCodec(t *testing.T) {
	all := travelling()
	for want, value := range all {
		name, data, err := Codec{}.Marshal(value)
		if err != nil || name != want {
			t.Errorf("%T: %q, %v, want the name %q", value, name, err, want)
			continue
		}
		back, err := Codec{}.Unmarshal(name, data)
		if err != nil || !same(value, back) {
			t.Errorf("%s: %v came back as %v, %v", name, value, back, err)
		}
	}
	if known := len(messages); known != len(all) {
		t.Errorf("the codec knows %d types, the test %d", known, len(all))
	}
	for _, value := range []any{nil, 7, "text", &licensedv1.GetNodeRequest{}} {
		if name, _, err := (Codec{}).Marshal(value); !errors.Is(err, errUnknownType) {
			t.Errorf("%T is marshalled as %q, %v", value, name, err)
		}
	}
	if _, err := (Codec{}).Unmarshal("licensed.v1.SomethingNewer", nil); !errors.Is(err, errUnknownType) {
		t.Errorf("a newer release's type: %v", err)
	}
	newer := protowire.AppendBytes(protowire.AppendTag(nil, 99, protowire.BytesType), nil)
	for _, name := range []string{"licensed.v1.Command", "licensed.v1.Query"} {
		if v, err := (Codec{}).Unmarshal(name, newer); !errors.Is(err, errUnknownType) {
			t.Errorf("a newer release's kind of %s: %v, %v", name, v, err)
		}
		_, data, err := Codec{}.Marshal(all[name])
		if err != nil {
			t.Fatal(err)
		}
		if v, err := (Codec{}).Unmarshal(name, append(data, newer...)); err != nil {
			t.Errorf("%s with a newer release's field: %v, %v", name, v, err)
		}
	}
}

// TestUnmarshalRequest: requests are decoded, unless they would take many times their size; answers are not.
func TestUnmarshalRequest(t *testing.T) {
	for name, value := range travelling() {
		_, data, err := Codec{}.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		back, err := Codec{}.UnmarshalRequest(name, data)
		if requests[name] != (err == nil) || err == nil && !same(value, back) {
			t.Errorf("%s came back as %v, %v", name, back, err)
		}
	}
	empty, err := proto.Marshal(&nodev1.ImportRequest{Records: make([][]byte, 1<<20)})
	if err != nil {
		t.Fatal(err)
	}
	_, err = Codec{}.UnmarshalRequest("licensed.node.v1.ImportRequest", empty)
	if !errors.Is(err, protolimit.ErrElements) {
		t.Errorf("an import of empty records: %v", err)
	}
}

// TestImportErrors: the result of an import is the same error on the other side.
func TestImportErrors(t *testing.T) {
	for _, want := range []error{
		fmt.Errorf("the history ends at 4: %w", actors.ErrNotContinued),
		fmt.Errorf("a command is torn: %w", actors.ErrNoHistory), nil,
	} {
		r, ok := ImportResponse(want)
		err := ImportError(r)
		if !ok || (err == nil) != (want == nil) {
			t.Errorf("%v: %v, %t", want, err, ok)
			continue
		}
		for _, is := range []error{actors.ErrNotContinued, actors.ErrNoHistory} {
			if errors.Is(err, is) != errors.Is(want, is) || err != nil && err.Error() != want.Error() {
				t.Errorf("%v came back as %v", want, err)
			}
		}
	}
	if _, ok := ImportResponse(actors.ErrUnavailable); ok {
		t.Error("an owner that is not available answers")
	}
	later := ImportError(&nodev1.ImportResponse{Failure: 99, Message: "x"})
	if later == nil || later.Error() != "x" {
		t.Errorf("a failure of another release: %v", later)
	}
}

func FuzzCodec(f *testing.F) {
	for _, value := range travelling() {
		name, data, err := Codec{}.Marshal(value)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(name, data)
	}
	f.Add("licensed.node.v1.Downloads", []byte{1})
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		value, err := Codec{}.Unmarshal(name, data)
		if err != nil {
			return
		}
		again, b, err := Codec{}.Marshal(value)
		if err != nil || again != name {
			t.Fatalf("%q came in and cannot go out: %q, %v", name, again, err)
		}
		if _, err := (Codec{}).Unmarshal(name, b); err != nil {
			t.Fatalf("%q: %v", name, err)
		}
	})
}
