package licensedv1

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
)

// Words says in a phrase what an exception allows, for people: "5 devices in plan basic until 2026-03-01T00:00:00Z".
func (x *Exception) Words() string {
	switch k := x.GetKind().(type) {
	case *Exception_Limit:
		return k.Limit.words() + " until " + instant(x.GetUntil())
	case *Exception_Removal:
		return "the removal of " + instant(k.Removal.GetRemovedAt()) + " does not count"
	case *Exception_Use:
		what := "download"
		if k.Use.GetPlayback() {
			what = "playback"
		}
		return fmt.Sprintf("the %s of %s on %s at %s does not count", what, k.Use.GetTitleId(), k.Use.GetDeviceId(),
			instant(k.Use.GetUsedAt()))
	case *Exception_Merge:
		return fmt.Sprintf("device %s was merged into %s, with %s", k.Merge.GetOldDeviceId(), k.Merge.GetNewDeviceId(),
			number(k.Merge.GetLicenses(), "licence", "licences"))
	default:
		return "an exception that this release does not know"
	}
}

// words says in a phrase what another limit is.
func (x *OtherLimit) words() string {
	atMost := func(one, many string) string {
		if x.Limit == nil {
			return "any number of " + many
		}
		return number(x.GetLimit(), one, many)
	}
	switch x.GetKind() {
	case LimitKind_LIMIT_KIND_DEVICES:
		return atMost("device", "devices") + " in plan " + x.GetPlanId()
	case LimitKind_LIMIT_KIND_STUDIO:
		return atMost("active licence", "active licences") + " of studio " + x.GetStudioId()
	case LimitKind_LIMIT_KIND_MONTHLY:
		return atMost("download", "downloads") + " in 30 days in plan " + x.GetPlanId()
	case LimitKind_LIMIT_KIND_DEVICE_TITLES:
		return atMost("active licence", "active licences") + " on each device in plan " + x.GetPlanId()
	case LimitKind_LIMIT_KIND_REMOVALS:
		return atMost("removal", "removals") + " in 365 days"
	}
	limit := "no yearly limit"
	if x.Limit != nil {
		limit = fmt.Sprintf("a yearly limit of %d", x.GetLimit())
	}
	switch {
	case x.GetTitleId() != "":
		return limit + " for title " + x.GetTitleId()
	case x.GetStudioId() != "":
		return limit + " for each title of studio " + x.GetStudioId()
	default:
		return limit + " for each title"
	}
}

// instant writes a time.
func instant(t *timestamppb.Timestamp) string { return t.AsTime().Format(time.RFC3339Nano) }

// number returns a number with its noun.
func number(n uint32, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
