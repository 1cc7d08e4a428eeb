package gateway

import (
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Limits of the ids in requests, in bytes.
const (
	MaxIDBytes        = 128
	MaxCommandIDBytes = 64
)

// violations collects what is wrong with a request, so that the client learns all of it at once. The
// zero value is ready to use and costs nothing while everything is right.
type violations []*errdetails.BadRequest_FieldViolation

func (v *violations) add(field, description string) {
	*v = append(*v, &errdetails.BadRequest_FieldViolation{Field: field, Description: description})
}

// id checks a required id.
func (v *violations) id(field, value string) { v.idUpTo(MaxIDBytes, field, value) }

// commandID checks a command id, which a request that only validates may leave out: nothing is
// recorded under it.
func (v *violations) commandID(value string, validateOnly bool) {
	if value == "" && validateOnly {
		return
	}
	v.idUpTo(MaxCommandIDBytes, "command_id", value)
}

func (v *violations) idUpTo(limit int, field, value string) {
	switch {
	case value == "":
		v.add(field, "is required")
	case len(value) > limit:
		v.add(field, "has "+strconv.Itoa(len(value))+" bytes, at most "+strconv.Itoa(limit)+" are allowed")
	default:
		if what := forbidden(value); what != "" {
			v.add(field, "must not contain "+what)
		}
	}
}

// forbidden names what an id must not contain and does, or returns "".
func forbidden(id string) string {
	for i := 0; i < len(id); i++ {
		switch c := id[i]; {
		case c == ':' || c == '/':
			return "'" + string(c) + "'"
		case c < ' ' || c == 0x7f:
			return "control characters"
		case c >= utf8.RuneSelf:
			return forbiddenRune(id[i:])
		}
	}
	return ""
}

func forbiddenRune(id string) string {
	if !utf8.ValidString(id) {
		return "bytes that are not UTF-8"
	}
	for _, r := range id {
		switch {
		case r == ':' || r == '/':
			return "'" + string(r) + "'"
		case unicode.IsControl(r):
			return "control characters"
		}
	}
	return ""
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
