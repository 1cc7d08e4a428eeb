package gateway

import (
	"context"
	"fmt"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/actors/license"
	"licensed/licensetoken"
	"licensed/messages/licensedv1"
)

// SyncDevice implements licensedv1connect.LicenseServiceHandler.
func (s *service) SyncDevice(
	ctx context.Context, r *connect.Request[licensedv1.SyncDeviceRequest],
) (*connect.Response[licensedv1.SyncDeviceResponse], error) {
	m := r.Msg
	var v violations
	v.id("device_id", m.DeviceId)
	c := &licensedv1.SyncDevice{
		DeviceId: m.DeviceId, SentAtMs: v.millis("sent_at", m.SentAt), AfterNumber: m.AfterNumber,
	}
	switch n := len(m.Facts); {
	case n == 0 && !m.ValidateOnly:
		v.add("facts", "are required")
	case n > license.MaxFacts:
		v.add("facts", fmt.Sprintf("has %d entries, the limit is %d", n, license.MaxFacts))
	default:
		c.Facts = v.facts(m.Facts)
	}
	res, err := s.execute(ctx, m, v, &licensedv1.Command{Command: &licensedv1.Command_SyncDevice{SyncDevice: c}})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&licensedv1.SyncDeviceResponse{
		CustomerId: m.CustomerId, DeviceId: m.DeviceId, HighestNumber: res.Sync.HighestNumber,
		Recorded: res.Sync.Recorded, Unlicensed: res.Sync.Unlicensed, Sequence: res.sequence, Duplicate: res.duplicate,
		Provisional: res.provisional,
	}), nil
}

// maxFaultyFacts is the number of facts with violations that an error names.
const maxFaultyFacts = 10

// facts checks facts and returns them as the aggregate takes them.
func (v *violations) facts(from []*licensedv1.Fact) []*licensedv1.SyncDevice_Fact {
	facts := make([]*licensedv1.SyncDevice_Fact, 0, len(from))
	faulty := 0
	for i, f := range from {
		before := len(*v)
		field := fmt.Sprintf("facts[%d].", i)
		if f.Number == 0 || f.Number > license.MaxNumber {
			v.add(field+"number", fmt.Sprintf("is not between 1 and %d", uint64(license.MaxNumber)))
		}
		if _, known := licensedv1.FactKind_name[int32(f.Kind)]; !known || f.Kind == 0 {
			v.add(field+"kind", "is not a kind that this release knows")
		}
		v.id(field+"title_id", f.TitleId)
		if f.At == nil {
			v.add(field+"at", "is required")
		}
		facts = append(facts, &licensedv1.SyncDevice_Fact{
			Number: f.Number, Kind: f.Kind, TitleId: f.TitleId, AtMs: v.millis(field+"at", f.At),
		})
		if len(*v) > before {
			if faulty++; faulty == maxFaultyFacts {
				break
			}
		}
	}
	return facts
}

// millis checks an optional time that is recorded, and returns it in Unix milliseconds; 0 if it is absent or wrong.
func (v *violations) millis(field string, ts *timestamppb.Timestamp) int64 {
	at := v.timestamp(field, ts)
	if at.IsZero() {
		return 0
	}
	ms := at.UnixMilli()
	if ms < 1 {
		v.add(field, "is before 1970")
		return 0
	}
	return ms
}

// acquired returns the acquisition that a command means, by its time or by the signed licence that it shows, in Unix
// milliseconds; 0 for none.
func (v *violations) acquired(at *timestamppb.Timestamp, shown *licensetoken.License) int64 {
	ms := v.millis("acquired_at", at)
	if shown == nil {
		return ms
	}
	if ms != 0 && ms != shown.Number() {
		v.add("acquired_at", "is not that of signed_license")
	}
	return shown.Number()
}
