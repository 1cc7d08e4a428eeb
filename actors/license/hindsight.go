package license

import (
	"fmt"

	"licensed/messages/licensedv1"
)

// meant says what a superseded command meant.
func (x *Explainer) meant(kind licensedv1.CommandKind) string {
	if kind == licensedv1.CommandKind_COMMAND_KIND_DEACTIVATE_DEVICE {
		return "it meant an earlier activation of the device"
	}
	if l := x.license(); l != nil {
		return "it meant an earlier licence than that of " + clockOf(l.acquired)
	}
	return "it meant an earlier licence"
}

// tellFact explains what was reported later.
func (x *Explainer) tellFact(e *Recorded, o *licensedv1.Occurrence) {
	what := "Played"
	switch e.Value.(type) {
	case *licensedv1.TitleDownloaded:
		what = "Downloaded again"
	case *licensedv1.TitleDeleted:
		what = "Deleted from the device"
	}
	x.add(e, unchanged, "", "%s at %s, reported later%s: %s.", what, clockOf(o.GetOccurredAtMs()), byDevice(o),
		counting(e.Value, o))
}

// byDevice says what the device's clock showed, if that was corrected.
func byDevice(o *licensedv1.Occurrence) string {
	if o.GetDeviceTimeMs() == 0 {
		return ""
	}
	return fmt.Sprintf(" (%s by the device's clock)", clockOf(o.GetDeviceTimeMs()))
}

// counting says whether something that was reported later counts.
func counting(event any, o *licensedv1.Occurrence) string {
	switch {
	case o.GetVerdict() == unlicensed:
		return "no licence was active then, so it counts nowhere"
	case o.GetVerdict() == tooOld:
		return "more than 365 days before its report, so it counts nowhere"
	case o.GetVerdict() == notRemembered:
		return "the customer has too many downloads and playbacks, so it counts nowhere"
	}
	switch v := event.(type) {
	case *licensedv1.TitleDeleted:
		return "a licence was active then"
	case *licensedv1.TitlePlayed:
		if !v.GetCounted() {
			return "a licence was active then"
		}
	}
	return "a licence was active then, and it counts against the title's yearly limit"
}
