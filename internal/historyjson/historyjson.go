// Package historyjson has the lines of JSON that a history is exported as: of licensectl and of the dashboard.
package historyjson

import (
	"encoding/json"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"licensed/internal/terminal"
	"licensed/messages"
	"licensed/messages/licensedv1"
)

// talkTime is how event times are written beside their milliseconds.
const talkTime = "2006-01-02 03:04:05 PM"

// Event is an event. The first six names are those of the talk that this service follows.
// The names are read by scripts and by import, and never change.
type Event struct {
	Event            string         `json:"Event"`
	EventTime        string         `json:"Event Time"`
	AggregateID      string         `json:"aggregateId"`
	Committed        bool           `json:"committed"`
	EventTimeStamp   int64          `json:"eventTimeStamp"`
	EventOrderNumber uint64         `json:"eventOrderNumber"`
	CustomerID       string         `json:"customerId"`
	Sequence         uint64         `json:"sequence"`
	Epoch            uint64         `json:"epoch,omitempty"`
	RowID            string         `json:"rowId,omitempty"`
	CommandID        string         `json:"commandId"`
	CommandIndex     uint32         `json:"commandIndex"`
	CommandCount     uint32         `json:"commandCount"`
	IssuedAt         int64          `json:"issuedAt,omitempty"`
	Tier             string         `json:"tier,omitempty"`
	Bytes            uint32         `json:"bytes"`
	Mapper           string         `json:"mapper"`
	PolicyVersion    string         `json:"policyVersion"`
	Principal        string         `json:"principal,omitempty"`
	Reason           string         `json:"reason,omitempty"`
	Data             map[string]any `json:"data"`
	Problem          string         `json:"problem,omitempty"`
	Record           []byte         `json:"record,omitempty"`
}

// Gap is a gap: events that cannot be read, and why.
type Gap struct {
	CustomerID string `json:"customerId"`
	Gap        struct {
		From    uint64 `json:"fromSequence"`
		To      uint64 `json:"toSequence"`
		Reason  string `json:"reason"`
		Message string `json:"message"`
	} `json:"gap"`
}

// Of returns the line of an item of a customer's history, an *Event or a Gap.
func Of(customer string, i *licensedv1.HistoryItem) any {
	if g := i.GetGap(); g != nil {
		line := Gap{CustomerID: customer}
		line.Gap.From, line.Gap.To, line.Gap.Message = g.FromSequence, g.ToSequence, g.Message
		line.Gap.Reason = strings.ToLower(strings.TrimPrefix(g.Reason.String(), "GAP_REASON_"))
		return line
	}
	return OfEvent(customer, i.GetEvent())
}

// OfEvent returns the line of an event. Fields without a value are left out where the tag
// has omitempty.
func OfEvent(customer string, e *licensedv1.HistoryEvent) *Event {
	line := &Event{
		Event:          e.Event,
		EventTime:      e.EventTime.AsTime().UTC().Format(talkTime),
		AggregateID:    e.AggregateId,
		Committed:      e.Committed,
		EventTimeStamp: e.EventTime.AsTime().UnixMilli(), EventOrderNumber: e.EventOrderNumber, CustomerID: customer,
		Sequence: e.Sequence, Epoch: e.Epoch, RowID: e.RowId, CommandID: e.CommandId, CommandIndex: e.CommandIndex,
		CommandCount: e.CommandCount, Bytes: e.Bytes, Mapper: e.Mapper, PolicyVersion: e.PolicyVersion,
		Principal: e.Principal, Reason: e.Reason,
		Data: Data(e.Data), Problem: e.Problem, Record: e.Record,
	}
	if e.IssuedAt != nil {
		line.IssuedAt = e.IssuedAt.AsTime().UnixMilli()
	}
	if e.Tier != licensedv1.Tier_TIER_UNSPECIFIED {
		line.Tier = strings.ToLower(strings.TrimPrefix(e.Tier.String(), "TIER_"))
	}
	return line
}

// Data returns what an event says, by the names of its fields; of an event of a newer release its type and bytes.
func Data(a *anypb.Any) map[string]any {
	if a == nil {
		return nil
	}
	m, err := a.UnmarshalNew()
	if err != nil { // an event of a newer release
		return map[string]any{"@type": a.TypeUrl, "value": a.Value}
	}
	return messages.Data(m).AsMap()
}

// OfAPI returns the line of an item in the form of the API: a HistoryItem in the protobuf mapping. The data of an event
// whose type this release does not have is left out, and its problem reports it.
func OfAPI(i *licensedv1.HistoryItem) json.RawMessage {
	if e := i.GetEvent(); e.GetData() != nil {
		if _, err := e.Data.UnmarshalNew(); err != nil {
			e = proto.CloneOf(e)
			e.Problem, e.Data = "the type of "+e.Data.TypeUrl+" is of a newer release", nil
			i = &licensedv1.HistoryItem{Item: &licensedv1.HistoryItem_Event{Event: e}}
		}
	}
	return terminal.JSON(i)
}
