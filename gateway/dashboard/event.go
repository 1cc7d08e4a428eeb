package dashboard

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sort"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"licensed/internal/clusterrates"
	"licensed/internal/historyjson"
	"licensed/messages/licensedv1"
)

// eventView is an event for people.
type eventView struct {
	*licensedv1.HistoryEvent
	// Kind is its result, for its colour.
	Kind string
	// Text is one sentence.
	Text string
}

// eventOf makes an event readable. One that this release cannot decode is shown as such,
// with its raw record.
func eventOf(e *licensedv1.HistoryEvent) eventView {
	v := eventView{HistoryEvent: e, Kind: "other"}
	if e.Problem != "" {
		v.Kind, v.Text = "bad", sentence("cannot be decoded: "+e.Problem)
		return v
	}
	// A type that this release does not have: the name and the bytes are shown without a
	// sentence.
	m, err := e.Data.UnmarshalNew()
	if err != nil {
		v.Text = "An event of a newer release."
		return v
	}
	v.Kind, v.Text = tell(m)
	return v
}

// tell returns what an event says, in one sentence, and of which kind it is. An event
// without a case here is shown by its name and fields alone.
func tell(m proto.Message) (kind, text string) {
	if r, ok := m.(interface {
		GetOccurrence() *licensedv1.Occurrence
	}); ok && r.GetOccurrence() != nil {
		return reported(m, r.GetOccurrence())
	}
	switch e := m.(type) {
	case *licensedv1.LicenseCreated:
		return "other", "The device’s first licence for this title."
	case *licensedv1.LicenseAcquired:
		return "good", "Licence until " + milliTime(e.ExpiresAtMs) + of(", studio ", e.StudioId) + "."
	case *licensedv1.LicenseRenewed:
		return "good", fmt.Sprintf("Renewed until %s, renewal %d.",
			milliTime(e.License.GetExpiresAtMs()), e.License.GetRenewals())
	case *licensedv1.LicenseReleased:
		return "end", "The licence ended."
	case *licensedv1.TitleDownloaded:
		return "use", "Downloaded."
	case *licensedv1.TitlePlayed:
		if e.Counted {
			return "use", "Played; it counts against the yearly limit."
		}
		return "use", "Played."
	case *licensedv1.DeviceActivated:
		return "device", "Device activated."
	case *licensedv1.DeviceLabeled:
		if e.DeviceName == "" {
			return "device", fmt.Sprintf("The device is a %s.", e.DeviceType.Words())
		}
		return "device", fmt.Sprintf("The device is called %s%s.", e.DeviceName, of(", a ", e.DeviceType.Words()))
	case *licensedv1.DeviceDeactivated:
		if r := e.Removal; r != nil && !r.Counted {
			return "device", "The device was removed; without downloads it cost no removal."
		}
		return "device", "The device was removed."
	case *licensedv1.PlanChanged:
		s := fmt.Sprintf("Plan %s, which allows downloads on %s", e.PlanId, count(e.DeviceLimit, "device", "devices"))
		if len(e.StayingDeviceIds) > 0 {
			s += "; more are in use, and these stay: " + strings.Join(e.StayingDeviceIds, ", ")
		}
		return "device", s + "."
	case *licensedv1.DevicesSelected:
		return "device", selectedWords(e)
	case *licensedv1.AllowanceLent:
		return "device", fmt.Sprintf("Lent until %s: %s.", milliTime(e.UntilMs),
			count(uint32(len(e.Units)), "download", "downloads"))
	case *licensedv1.AllowanceRedeemed:
		return "good", fmt.Sprintf("Downloaded within allowance %d, active until %s.", e.Number,
			milliTime(e.License.GetExpiresAtMs()))
	case *licensedv1.AllowanceReturned:
		return "device", fmt.Sprintf("Allowance %d returned, with %s.", e.Number,
			count(uint32(len(e.TitleIds)), "download", "downloads"))
	case *licensedv1.ExceptionGranted:
		return "other", fmt.Sprintf("Exception %d granted (%s): %s.", e.Exception.GetNumber(), e.Exception.GetReason(),
			e.Exception.Words())
	case *licensedv1.ExceptionWithdrawn:
		return "other", fmt.Sprintf("Exception %d withdrawn (%s): %s.", e.Exception.GetNumber(), e.Reason,
			e.Exception.Words())
	case *licensedv1.CommandAccepted:
		if e.Superseded {
			return "other", sentence(commandWords(e.Command) + subject(e.DeviceId, e.TitleId, e.PlanId) +
				" changed nothing: it meant an earlier licence, activation or plan")
		}
		return "other", sentence(
			commandWords(e.Command) + subject(e.DeviceId, e.TitleId, e.PlanId) + " was allowed and changed nothing",
		)
	case *licensedv1.CommandRefused:
		return "bad", refusedWords(e)
	}
	return "other", ""
}

// selectedWords says which devices stay.
func selectedWords(e *licensedv1.DevicesSelected) string {
	ids := strings.Join(e.StayingDeviceIds, ", ")
	switch {
	case ids == "":
		return "The plan is not exceeded any more."
	case !e.Binding:
		return "Chosen to stay if the plan shrinks: " + ids + "."
	case e.Chosen:
		return "Chosen to stay: " + ids + "."
	}
	return "The devices used last stay: " + ids + "."
}

// reported returns what a device or a client reported later.
func reported(m proto.Message, o *licensedv1.Occurrence) (kind, text string) {
	text = "Deleted"
	counts := ""
	switch e := m.(type) {
	case *licensedv1.TitleDownloaded:
		text, counts = "Downloaded again", "; it counts against the yearly limit"
	case *licensedv1.TitlePlayed:
		if text = "Played"; e.Counted {
			counts = "; it counts against the yearly limit"
		}
	}
	switch o.Verdict {
	case licensedv1.FactVerdict_FACT_VERDICT_UNSPECIFIED:
	case licensedv1.FactVerdict_FACT_VERDICT_UNLICENSED:
		counts = "; no licence was active then, it counts nowhere"
	default:
		counts = "; it counts nowhere"
	}
	return "use", text + of(" ", o.TitleId) + " at " + milliTime(o.OccurredAtMs) + ", reported later" + counts + "."
}

// refusedWords returns which rules refused a command, and the figures that they went by.
func refusedWords(e *licensedv1.CommandRefused) string {
	rules := brokenBy(e)
	words := make([]string, len(rules))
	for i, r := range rules {
		words[i] = clusterrates.RuleWords(r.Rule)
		if r.Limit > 0 {
			words[i] += fmt.Sprintf(", %d of %d", r.Current, r.Limit)
		}
		if r.StudioId != "" {
			words[i] += " at studio " + r.StudioId
		}
		if len(rules) > 1 && r.NextAllowedAtMs > 0 {
			words[i] += " until " + milliTime(r.NextAllowedAtMs)
		}
	}
	s := commandWords(e.Command) + subject(licensedv1.DeviceWords(e.Devices, e.DeviceId), e.TitleId, e.PlanId) +
		" was refused: " + strings.Join(words, "; ")
	if e.NextAllowedAtMs > 0 {
		s += "; allowed from " + milliTime(e.NextAllowedAtMs)
	}
	return sentence(s)
}

// subject names what a command was about.
func subject(device, title, plan string) string {
	switch {
	case title != "":
		return " of " + title + " on " + device
	case device != "":
		return " of " + device
	case plan != "":
		return " to " + plan
	}
	return ""
}

// of returns a part of a sentence, or nothing if what it is about is missing.
func of(before, s string) string {
	if s == "" {
		return ""
	}
	return before + s
}

// commandWords names a command: "acquire license".
func commandWords(k licensedv1.CommandKind) string { return words(k.String(), "COMMAND_KIND_") }

// milliTime returns a time in milliseconds to the minute, in UTC.
func milliTime(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02 15:04") }

// Fields lists what the event says, names and values.
func (e eventView) Fields() []string {
	return fields("", historyjson.Data(e.Data))
}

// Hex returns the stored record as a dump.
func (e eventView) Hex() string { return strings.TrimRight(hex.Dump(e.Record), "\n") }

// RecordBytes is the size of the stored record.
func (e eventView) RecordBytes() uint64 { return uint64(len(e.Record)) }

// fields lists names and values, those of inner objects too.
func fields(prefix string, data map[string]any) []string {
	names := make([]string, 0, len(data))
	for name := range data {
		names = append(names, name)
	}
	sort.Strings(names)
	var out []string
	for _, name := range names {
		if inner, ok := data[name].(map[string]any); ok {
			out = append(out, fields(prefix+name+".", inner)...)
			continue
		}
		out = append(out, fmt.Sprintf("%s%s = %v", prefix, name, data[name]))
	}
	return out
}

// itemJSON returns an item of a download: an event, or a gap.
func itemJSON(customer string, i *licensedv1.HistoryItem) ([]byte, error) {
	return json.Marshal(historyjson.Of(customer, i))
}
