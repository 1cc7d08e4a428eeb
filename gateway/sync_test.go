package gateway_test

import (
	"context"
	"fmt"
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

func (s *sessionClient) SyncDevice(
	ctx context.Context, r *connect.Request[licensedv1.SyncDeviceRequest],
) (*connect.Response[licensedv1.SyncDeviceResponse], error) {
	return callOver[licensedv1.SyncDeviceRequest, licensedv1.SyncDeviceResponse](ctx, s, r)
}

// TestSyncDevice reports facts in each protocol: once, again under another command id, and out of order.
func TestSyncDevice(t *testing.T) {
	g := newDomain(t).start()
	noon := noon.Truncate(time.Millisecond)
	for name, client := range protocols(t, g.url) {
		who := "Offline by " + strings.ReplaceAll(name, "/", " over ")
		_, err := client.AcquireLicense(t.Context(), connect.NewRequest(&licensedv1.AcquireLicenseRequest{
			CustomerId: who, DeviceId: "iphone", TitleId: "GlowS01E01", CommandId: "acquire",
			IssuedAt: timestamppb.New(noon.Add(-time.Minute)),
		}))
		if err != nil {
			t.Fatal(name, err)
		}
		request := &licensedv1.SyncDeviceRequest{
			CustomerId: who, DeviceId: "iphone", CommandId: "sync",
			Facts: []*licensedv1.Fact{
				{
					Number: 2, Kind: licensedv1.FactKind_FACT_KIND_PLAYED, TitleId: "GlowS01E01",
					At: timestamppb.New(noon.Add(-time.Hour)),
				},
				{
					Number: 1, Kind: licensedv1.FactKind_FACT_KIND_DOWNLOADED, TitleId: "GlowS01E01",
					At: timestamppb.New(noon.Add(24 * time.Hour)),
				},
			},
			SentAt: timestamppb.New(noon.Add(24 * time.Hour)),
		}
		sync := func(number uint64, recorded, unlicensed uint32, sequence uint64, duplicate bool) {
			t.Helper()
			res, err := client.SyncDevice(t.Context(), connect.NewRequest(request))
			check(t, name, res, err, &licensedv1.SyncDeviceResponse{
				CustomerId: who, DeviceId: "iphone", HighestNumber: number, Recorded: recorded, Unlicensed: unlicensed,
				Sequence: sequence, Duplicate: duplicate,
			})
		}
		sync(2, 2, 1, 6, false)
		sync(2, 2, 1, 6, true)
		request.CommandId = "again"
		sync(2, 0, 0, 7, false)
		request.CommandId, request.AfterNumber, request.Facts = "ahead", 3, request.Facts[:1]
		request.Facts[0].Number = 4
		sync(2, 0, 0, 8, false)
		request.ValidateOnly, request.Facts, request.CommandId = true, nil, ""
		sync(2, 0, 0, 0, false)
		downloads, err := client.ListDownloads(t.Context(), connect.NewRequest(&licensedv1.ListDownloadsRequest{
			CustomerId: who, TitleId: "GlowS01E01",
		}))
		if err != nil || len(downloads.Msg.Downloads) != 2 || downloads.Msg.Allowed {
			t.Errorf("%s: downloads %v (%v), want the acquisition and the fact", name, downloads, err)
		}
		// Released before it was acquired, by the client's clock: the command means an earlier licence.
		released, err := client.ReleaseLicense(t.Context(), connect.NewRequest(&licensedv1.ReleaseLicenseRequest{
			CustomerId: who, DeviceId: "iphone", TitleId: "GlowS01E01", CommandId: "release",
			IssuedAt: timestamppb.New(noon.Add(-2 * time.Minute)),
		}))
		if err != nil || !released.Msg.Superseded || released.Msg.License.Released {
			t.Errorf("%s: released %v (%v), want superseded", name, released, err)
		}
	}
}

func TestInvalidFacts(t *testing.T) {
	client := protocols(t, start(t, failing(actors.ErrNotOwner)).url)["grpc"]
	good := &licensedv1.Fact{
		Number: 1, Kind: licensedv1.FactKind_FACT_KIND_PLAYED, TitleId: "x", At: timestamppb.New(noon),
	}
	with := func(change func(*licensedv1.Fact)) []*licensedv1.Fact {
		f := proto.Clone(good).(*licensedv1.Fact)
		change(f)
		return []*licensedv1.Fact{good, f}
	}
	many := slices.Repeat(with(func(f *licensedv1.Fact) { f.Number = 0 })[1:], 100)
	for name, test := range map[string]struct {
		facts []*licensedv1.Fact
		want  []string
	}{
		"none":         {nil, []string{"facts"}},
		"too many":     {slices.Repeat([]*licensedv1.Fact{good}, 501), []string{"facts"}},
		"no number":    {with(func(f *licensedv1.Fact) { f.Number = 0 }), []string{"facts[1].number"}},
		"large number": {with(func(f *licensedv1.Fact) { f.Number = 1<<52 + 1 }), []string{"facts[1].number"}},
		"no kind":      {with(func(f *licensedv1.Fact) { f.Kind = 0 }), []string{"facts[1].kind"}},
		"unknown kind": {with(func(f *licensedv1.Fact) { f.Kind = 99 }), []string{"facts[1].kind"}},
		"no title":     {with(func(f *licensedv1.Fact) { f.TitleId = "" }), []string{"facts[1].title_id"}},
		"no time":      {with(func(f *licensedv1.Fact) { f.At = nil }), []string{"facts[1].at"}},
		"before 1970":  {with(func(f *licensedv1.Fact) { f.At.Seconds = -1 }), []string{"facts[1].at"}},
		"many faults": {many, func() (fields []string) {
			for i := range 10 {
				fields = append(fields, fmt.Sprintf("facts[%d].number", i))
			}
			return fields
		}()},
	} {
		_, err := client.SyncDevice(t.Context(), connect.NewRequest(&licensedv1.SyncDeviceRequest{
			CustomerId: "c", DeviceId: "d", CommandId: "1", Facts: test.facts,
		}))
		bad, _ := detail[*errdetails.BadRequest](t, err)
		var fields []string
		for _, v := range bad.GetFieldViolations() {
			fields = append(fields, v.Field)
		}
		if !slices.Equal(fields, test.want) {
			t.Errorf("%s: violations of %v, want %v (%v)", name, fields, test.want, err)
		}
	}
}
