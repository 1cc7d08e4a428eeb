package messages

import (
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"licensed/messages/licensedv1"
)

// ErrUnknownMapper says that no release so far wrote events under that event mapper.
var ErrUnknownMapper = errors.New("unknown event mapper")

// mappers holds the event mappers of all releases, each with how to read what it wrote as the message
// of today. A former version stays here for as long as there are rows of it, that is forever, and
// translates what it reads.
var mappers = map[string]func(data []byte) (proto.Message, error){
	"LicenseCreated/1":  read[licensedv1.LicenseCreated],
	"LicenseAcquired/1": read[licensedv1.LicenseAcquired],
	"LicenseRenewed/1":  read[licensedv1.LicenseRenewed],
	// Version 2 has hours that a playback begins. Without them, version 1 is written.
	"LicenseAcquired/2":  read[licensedv1.LicenseAcquired],
	"LicenseRenewed/2":   read[licensedv1.LicenseRenewed],
	"LicenseShortened/1": read[licensedv1.LicenseShortened],
	"LicenseReleased/1":  read[licensedv1.LicenseReleased],
	"TitleDownloaded/1":  read[licensedv1.TitleDownloaded],
	"TitlePlayed/1":      read[licensedv1.TitlePlayed],
	"TitleDeleted/1":     read[licensedv1.TitleDeleted],
	"DeviceActivated/1":  read[licensedv1.DeviceActivated],
	"DeviceLabeled/1":    read[licensedv1.DeviceLabeled],
	// Version 1 has no fields: each counts as a removal.
	"DeviceDeactivated/1": read[licensedv1.DeviceDeactivated],
	"DeviceDeactivated/2": read[licensedv1.DeviceDeactivated],
	// Version 1 names no devices that stay.
	"PlanChanged/1": read[licensedv1.PlanChanged],
	"PlanChanged/2": read[licensedv1.PlanChanged],
	// Version 3 has a time of grace. Without one, version 2 is written.
	"PlanChanged/3":        read[licensedv1.PlanChanged],
	"DevicesSelected/1":    read[licensedv1.DevicesSelected],
	"AllowanceLent/1":      read[licensedv1.AllowanceLent],
	"AllowanceRedeemed/1":  read[licensedv1.AllowanceRedeemed],
	"AllowanceReturned/1":  read[licensedv1.AllowanceReturned],
	"ExceptionGranted/1":   read[licensedv1.ExceptionGranted],
	"ExceptionWithdrawn/1": read[licensedv1.ExceptionWithdrawn],
	"CommandAccepted/1":    read[licensedv1.CommandAccepted],
	"CommandRefused/1":     read[licensedv1.CommandRefused],
}

func read[M any, P interface {
	*M
	proto.Message
}](data []byte) (proto.Message, error) {
	m := P(new(M))
	if err := proto.Unmarshal(data, m); err != nil {
		return nil, err
	}
	return m, nil
}

// EventMapper returns the event mapper under which an event is stored today, or "" if the message is
// not an event.
func EventMapper(event proto.Message) string {
	switch e := event.(type) {
	case *licensedv1.LicenseCreated:
		return "LicenseCreated/1"
	case *licensedv1.LicenseAcquired:
		if e.GetPlayHours() > 0 {
			return "LicenseAcquired/2"
		}
		return "LicenseAcquired/1"
	case *licensedv1.LicenseRenewed:
		if e.GetLicense().GetPlayHours() > 0 {
			return "LicenseRenewed/2"
		}
		return "LicenseRenewed/1"
	case *licensedv1.LicenseShortened:
		return "LicenseShortened/1"
	case *licensedv1.LicenseReleased:
		return "LicenseReleased/1"
	case *licensedv1.TitleDownloaded:
		return "TitleDownloaded/1"
	case *licensedv1.TitlePlayed:
		return "TitlePlayed/1"
	case *licensedv1.TitleDeleted:
		return "TitleDeleted/1"
	case *licensedv1.DeviceActivated:
		return "DeviceActivated/1"
	case *licensedv1.DeviceLabeled:
		return "DeviceLabeled/1"
	case *licensedv1.DeviceDeactivated:
		return "DeviceDeactivated/2"
	case *licensedv1.PlanChanged:
		if e.GetGraceUntilMs() > 0 {
			return "PlanChanged/3"
		}
		return "PlanChanged/2"
	case *licensedv1.DevicesSelected:
		return "DevicesSelected/1"
	case *licensedv1.AllowanceLent:
		return "AllowanceLent/1"
	case *licensedv1.AllowanceRedeemed:
		return "AllowanceRedeemed/1"
	case *licensedv1.AllowanceReturned:
		return "AllowanceReturned/1"
	case *licensedv1.ExceptionGranted:
		return "ExceptionGranted/1"
	case *licensedv1.ExceptionWithdrawn:
		return "ExceptionWithdrawn/1"
	case *licensedv1.CommandAccepted:
		return "CommandAccepted/1"
	case *licensedv1.CommandRefused:
		return "CommandRefused/1"
	default:
		return ""
	}
}

// EventMappers returns the event mappers of all releases, in alphabetical order.
func EventMappers() []string {
	names := make([]string, 0, len(mappers))
	for name := range mappers {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// AppendEvent appends an event's data, as its event mapper stores it. Equal events have equal data.
// Errors: a string that is not UTF-8.
func AppendEvent(data []byte, event proto.Message) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.MarshalAppend(data, event)
}

// DecodeEvent returns the event that an event mapper of any release stored, as the message of today,
// which does not refer to data. Errors: ErrUnknownMapper, and those of malformed data.
func DecodeEvent(mapper string, data []byte) (proto.Message, error) {
	read, ok := mappers[mapper]
	if !ok {
		return nil, fmt.Errorf("%w: %q", ErrUnknownMapper, mapper)
	}
	event, err := read(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", mapper, err)
	}
	return event, nil
}
