package dashboard

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sort"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"licensed/messages"
	"licensed/messages/licensedv1"
	"licensed/messages/rates"
)

// eventView is an event for people.
type eventView struct {
	*licensedv1.HistoryEvent
	// Kind is what it comes to, for its colour.
	Kind string
	// Text is one sentence.
	Text string
}

func eventOf(e *licensedv1.HistoryEvent) eventView {
	v := eventView{HistoryEvent: e, Kind: "other"}
	if e.Problem != "" {
		v.Kind, v.Text = "bad", sentence("cannot be decoded: "+e.Problem)
		return v
	}
	m, err := e.Data.UnmarshalNew()
	if err != nil {
		v.Text = "An event of a newer release."
		return v
	}
	v.Kind, v.Text = tell(m)
	return v
}

// tell says what an event says, in one sentence, and of which kind it is.
func tell(m proto.Message) (kind, text string) {
	switch e := m.(type) {
	case *licensedv1.LicenseCreated:
		return "other", "The device’s first licence for this title."
	case *licensedv1.LicenseAcquired:
		return "good", "Licence until " + milliTime(e.ExpiresAtMs) + of(", studio ", e.StudioId) + "."
	case *licensedv1.LicenseRenewed:
		return "good", fmt.Sprintf("Renewed until %s, renewal %d.", milliTime(e.License.GetExpiresAtMs()), e.License.GetRenewals())
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
		return "device", "The device takes part."
	case *licensedv1.DeviceDeactivated:
		return "device", "The device was removed."
	case *licensedv1.PlanChanged:
		return "device", fmt.Sprintf("Plan %s, which allows downloads on %s.", e.PlanId, count(e.DeviceLimit, "device", "devices"))
	case *licensedv1.CommandAccepted:
		return "other", sentence(commandWords(e.Command) + subject(e.DeviceId, e.TitleId, e.PlanId) + " was allowed and changed nothing")
	case *licensedv1.CommandRefused:
		return "bad", refusedWords(e)
	}
	return "other", ""
}

func refusedWords(e *licensedv1.CommandRefused) string {
	s := commandWords(e.Command) + subject(e.DeviceId, e.TitleId, e.PlanId) + " was refused: " + rates.RuleWords(e.Rule)
	if e.Limit > 0 {
		s += fmt.Sprintf(", %d of %d", e.Current, e.Limit)
	}
	if e.StudioId != "" {
		s += " at studio " + e.StudioId
	}
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

func of(before, s string) string {
	if s == "" {
		return ""
	}
	return before + s
}

// commandWords names a command: "acquire license".
func commandWords(k licensedv1.CommandKind) string { return words(k.String(), "COMMAND_KIND_") }

func milliTime(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02 15:04") }

// Fields lists what the event says, names and values.
func (e eventView) Fields() []string {
	return fields("", dataOf(e.Data))
}

// Hex returns the stored record as a dump.
func (e eventView) Hex() string { return strings.TrimRight(hex.Dump(e.Record), "\n") }

// RecordBytes is the size of the stored record.
func (e eventView) RecordBytes() uint64 { return uint64(len(e.Record)) }

// dataOf returns what an event says as JSON's types.
func dataOf(a *anypb.Any) map[string]any {
	if a == nil {
		return nil
	}
	m, err := a.UnmarshalNew()
	if err != nil { // an event of a newer release
		return map[string]any{"@type": a.TypeUrl, "value": a.Value}
	}
	return messages.Data(m).AsMap()
}

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

// talkTime is how event times are written beside their milliseconds.
const talkTime = "2006-01-02 03:04:05 PM"

// eventJSON is an event of a download. The first six names are those of the talk that this service
// follows; licensectl events --json has the same.
type eventJSON struct {
	Event            string         `json:"Event"`
	EventTime        string         `json:"Event Time"`
	AggregateID      string         `json:"aggregateId"`
	Committed        bool           `json:"committed"`
	EventTimeStamp   int64          `json:"eventTimeStamp"`
	EventOrderNumber uint64         `json:"eventOrderNumber"`
	CustomerID       string         `json:"customerId"`
	Sequence         uint64         `json:"sequence"`
	Epoch            uint64         `json:"epoch"`
	RowID            string         `json:"rowId"`
	CommandID        string         `json:"commandId"`
	CommandIndex     uint32         `json:"commandIndex"`
	CommandCount     uint32         `json:"commandCount"`
	IssuedAt         int64          `json:"issuedAt,omitempty"`
	Tier             string         `json:"tier"`
	Bytes            uint32         `json:"bytes"`
	Mapper           string         `json:"mapper"`
	PolicyVersion    string         `json:"policyVersion"`
	Data             map[string]any `json:"data"`
	Problem          string         `json:"problem,omitempty"`
}

// itemJSON returns an item of a download: an event, or a gap.
func itemJSON(customer string, i *licensedv1.HistoryItem) ([]byte, error) {
	if g := i.GetGap(); g != nil {
		return json.Marshal(map[string]any{"customerId": customer, "gap": map[string]any{
			"fromSequence": g.FromSequence, "toSequence": g.ToSequence, "reason": words(g.Reason.String(), "GAP_REASON_"), "message": g.Message,
		}})
	}
	e := i.GetEvent()
	out := eventJSON{
		Event: e.Event, EventTime: e.EventTime.AsTime().UTC().Format(talkTime), AggregateID: e.AggregateId, Committed: e.Committed,
		EventTimeStamp: e.EventTime.AsTime().UnixMilli(), EventOrderNumber: e.EventOrderNumber, CustomerID: customer,
		Sequence: e.Sequence, Epoch: e.Epoch, RowID: e.RowId, CommandID: e.CommandId, CommandIndex: e.CommandIndex,
		CommandCount: e.CommandCount, Tier: tierName(e.Tier), Bytes: e.Bytes, Mapper: e.Mapper, PolicyVersion: e.PolicyVersion,
		Data: dataOf(e.Data), Problem: e.Problem,
	}
	if e.IssuedAt != nil {
		out.IssuedAt = e.IssuedAt.AsTime().UnixMilli()
	}
	return json.Marshal(out)
}
