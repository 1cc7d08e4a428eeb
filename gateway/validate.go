package gateway

import (
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/actors/license"
	"licensed/actors/license/ids"
	"licensed/messages/licensedv1"
)

// violations collects what is wrong with a request, so that the client learns all of it at once. The
// zero value is ready to use and costs nothing while everything is right.
type violations []*errdetails.BadRequest_FieldViolation

// add adds what is wrong with a field: "is required".
func (v *violations) add(field, description string) {
	*v = append(*v, &errdetails.BadRequest_FieldViolation{Field: field, Description: description})
}

// id checks a required id.
func (v *violations) id(field, value string) { v.idUpTo(ids.MaxBytes, field, value) }

// commandID checks a command id, which a request that only validates may leave out: nothing is
// recorded under it.
func (v *violations) commandID(value string, validateOnly bool) {
	if value == "" && validateOnly {
		return
	}
	v.idUpTo(ids.MaxCommandBytes, "command_id", value)
}

// idUpTo checks an id of up to limit bytes.
func (v *violations) idUpTo(limit int, field, value string) {
	if fault := ids.Fault(value, limit); fault != "" {
		v.add(field, fault)
	}
}

// label checks the name and the type that a request gives a device, if it has such fields, and returns them. They are
// no part of the fingerprint: a person may rename the device between two attempts.
func (v *violations) label(request any) (name string, kind licensedv1.DeviceType) {
	l, ok := request.(interface {
		GetDeviceName() string
		GetDeviceType() licensedv1.DeviceType
	})
	if !ok {
		return "", 0
	}
	name, kind = strings.TrimSpace(l.GetDeviceName()), l.GetDeviceType()
	if fault := license.CheckDeviceName(name); fault != "" {
		v.add("device_name", fault)
	}
	if _, known := licensedv1.DeviceType_name[int32(kind)]; !known {
		v.add("device_type", "is not a type that this release knows")
	}
	return name, kind
}

// age checks an optional age and returns it; zero if it is absent or wrong.
func (v *violations) age(field string, d *durationpb.Duration) time.Duration {
	if d == nil {
		return 0
	}
	if d.CheckValid() != nil || d.AsDuration() < 0 {
		v.add(field, "is not a duration from 0 s on")
		return 0
	}
	return d.AsDuration()
}

// timestamp checks an optional time and returns it; zero if it is absent or wrong.
func (v *violations) timestamp(field string, ts *timestamppb.Timestamp) time.Time {
	if ts == nil {
		return time.Time{}
	}
	if err := ts.CheckValid(); err != nil {
		v.add(field, "is not a time between the years 1 and 9999")
		return time.Time{}
	}
	return ts.AsTime()
}
