// Package history is what clients saw during a chaos run: every request they sent, when, and every
// answer they got, when.
//
// # The model
//
// An [Op] is one request, one attempt. Its time of call is taken before the first byte is sent, its time
// of return after the answer was read, both on the one monotonic clock of the tool, so that "a returned
// before b was called" is true whatever the clocks of the servers say. A command that is repeated with
// the same id is several Ops with the same Command. An Op whose answer never came has the outcome
// [Unknown] and no return.
//
// On disk a history is a stream of JSON lines, compressed with zstd: a line when an Op is called, another
// when it returns. Nothing is ever rewritten. What a crash of the tool cuts off is the end, and an Op
// without its second line is unknown.
package history

import "time"

// Kind of a request.
type Kind string

// The requests: commands first, then questions.
const (
	Acquire    Kind = "acquire"
	Renew      Kind = "renew"
	Release    Kind = "release"
	Play       Kind = "play"
	Deactivate Kind = "deactivate"
	ChangePlan Kind = "plan"

	ListLicenses  Kind = "licenses"
	ListDevices   Kind = "devices"
	ListDownloads Kind = "downloads"
)

// Query says whether the request is a question, which changes nothing.
func (k Kind) Query() bool { return k == ListLicenses || k == ListDevices || k == ListDownloads }

// Outcome of a request.
type Outcome string

// The outcomes.
const (
	// Unknown means that the command may have been executed or not, now or later; a question was not answered.
	Unknown Outcome = ""
	// Accepted means executed, or answered.
	Accepted Outcome = "accepted"
	// Refused by a rule of the policy, and recorded so.
	Refused Outcome = "refused"
	// NotExecuted means that the service promises that this attempt left no trace.
	NotExecuted Outcome = "not_executed"
	// Broken means that the service reported a defect of its own, or answered what makes no sense.
	Broken Outcome = "broken"
)

// Input is what was asked.
type Input struct {
	Kind     Kind   `json:"k"`
	Customer string `json:"cu"`
	Device   string `json:"d,omitempty"`
	Title    string `json:"ti,omitempty"`
	Plan     string `json:"p,omitempty"`
	// Command is the id of the command; empty for questions and where nothing is to be recorded.
	Command string `json:"id,omitempty"`
	// NewDownload and IssuedAt (unix milliseconds) are fields of the command.
	NewDownload bool  `json:"nd,omitempty"`
	IssuedAt    int64 `json:"is,omitempty"`
	// ValidateOnly asks what would come of the command.
	ValidateOnly bool `json:"v,omitempty"`
	// Inactive asks for the licences that ended, too.
	Inactive bool `json:"in,omitempty"`
}

// Records says whether the request may leave something in the customer's history.
func (i *Input) Records() bool { return !i.Kind.Query() && !i.ValidateOnly }

// License as an answer tells it. Times are unix milliseconds.
type License struct {
	Device   string `json:"d"`
	Title    string `json:"ti"`
	Studio   string `json:"s"`
	Acquired int64  `json:"a"`
	Expires  int64  `json:"e"`
	Renewals uint32 `json:"n,omitempty"`
	Released bool   `json:"r,omitempty"`
}

// Device as an answer tells it.
type Device struct {
	Device   string `json:"d"`
	Active   bool   `json:"a,omitempty"`
	Licenses uint32 `json:"n,omitempty"`
	Download int64  `json:"at,omitempty"`
}

// Download as an answer tells it.
type Download struct {
	Device string `json:"d"`
	At     int64  `json:"at"`
}

// Refusal is the rule that said no.
type Refusal struct {
	Rule    string `json:"rule"`
	Limit   uint32 `json:"limit,omitempty"`
	Current uint32 `json:"current,omitempty"`
}

// Output is what was answered. Which fields are set depends on the request and the outcome.
type Output struct {
	Outcome Outcome `json:"o,omitempty"`
	// Reason says why there is no outcome, or why nothing was executed.
	Reason string `json:"why,omitempty"`
	// Sequence is the position of the command's last event, or that at which a question was answered.
	Sequence  uint64   `json:"seq,omitempty"`
	Duplicate bool     `json:"dup,omitempty"`
	License   *License `json:"li,omitempty"`
	Refusal   *Refusal `json:"no,omitempty"`
	// Titles are those whose licences a deactivation ended.
	Titles      []string   `json:"ts,omitempty"`
	Plan        string     `json:"p,omitempty"`
	DeviceLimit uint32     `json:"dl,omitempty"`
	Licenses    []License  `json:"ls,omitempty"`
	Devices     []Device   `json:"ds,omitempty"`
	Downloads   []Download `json:"dn,omitempty"`
	// Allowed and Limit are ListDownloads'; Limit is absent where the title has none.
	Allowed bool    `json:"al,omitempty"`
	Limit   *uint32 `json:"lm,omitempty"`
}

// Known says whether the outcome of a command is known for good.
func (o *Output) Known() bool { return o.Outcome == Accepted || o.Outcome == Refused }

// Op is one request of one client.
type Op struct {
	ID      uint64
	Client  int
	Gateway int
	// Call and Return are nanoseconds since the start of the run. Return is 0 if no answer came.
	Call, Return int64
	Input        Input
	Output       Output
}

// Latency is the time that the answer took; 0 if none came.
func (o *Op) Latency() time.Duration {
	if o.Return == 0 {
		return 0
	}
	return time.Duration(o.Return - o.Call)
}
