package license

import (
	"bytes"
	"fmt"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"licensed/actors"
	"licensed/actors/license/policy"
	"licensed/messages"
	"licensed/messages/licensedv1"
	"licensed/persistence"
)

// Name is that of the aggregate's kind, a part of stored ids.
const Name = "LicenseAggregate"

// Kind is the license aggregate as the runtime sees it. It is safe for concurrent use.
type Kind struct {
	policy atomic.Pointer[policy.Policy]

	// Listener hears what happens. Set it before use.
	Listener Listener
}

// Listener hears what happens. The functions are called from the actors: they must be quick and safe for concurrent
// use. Those that are nil are not called.
type Listener struct {
	// Large hears of customers that become large.
	Large func(Large)
}

// Large says that a customer has half of what the policy allows to be remembered, or a tenth more than when it was
// said before.
type Large struct {
	// Customer is its id.
	Customer string
	// Licenses and Uses are those that are remembered, Limit and UsesLimit the highest counts.
	Licenses, Uses, Limit, UsesLimit int
}

var _ actors.Kind = (*Kind)(nil)

// NewKind returns the kind with the policy that is in force.
func NewKind(p *policy.Policy) *Kind {
	k := &Kind{}
	k.SetPolicy(p)
	return k
}

// Policy returns the policy in force.
func (k *Kind) Policy() *policy.Policy { return k.policy.Load() }

// SetPolicy puts a policy in force, for every decision that starts after it returns.
func (k *Kind) SetPolicy(p *policy.Policy) { k.policy.Store(p) }

// Name implements actors.Kind.
func (k *Kind) Name() string { return Name }

// New implements actors.Kind.
func (k *Kind) New(id string) actors.Aggregate {
	return &aggregate{kind: k, id: id, state: &State{}}
}

// Restore implements actors.Kind.
func (k *Kind) Restore(id string, s actors.Snapshot) (actors.Aggregate, error) {
	if s.Mapper != snapshotMapper && s.Mapper != thirdMapper && s.Mapper != formerMapper {
		return nil, fmt.Errorf("unknown snapshot mapper %q: %w", s.Mapper, persistence.ErrCorrupt)
	}
	if err := checkHeader(s.Header); err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	state, err := decode(s.Data)
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w: %w", err, persistence.ErrCorrupt)
	}
	return &aggregate{kind: k, id: id, state: state}, nil
}

// DecodeEvent implements actors.Kind. The event is a message of package licensedv1.
func (k *Kind) DecodeEvent(mapper string, h persistence.Header, data []byte) (any, error) {
	if err := checkHeader(h); err != nil {
		return nil, fmt.Errorf("event %s: %w", mapper, err)
	}
	event, err := messages.DecodeEvent(mapper, data)
	if err != nil {
		return nil, fmt.Errorf("event: %w: %w", err, persistence.ErrCorrupt)
	}
	return event, nil
}

// checkHeader refuses what this release cannot read.
func checkHeader(h persistence.Header) error {
	if h.Codec != 0 || h.Compression != 0 || h.KeyID != "" {
		return fmt.Errorf("codec %d, compression %d, key %q: %w",
			h.Codec, h.Compression, h.KeyID, persistence.ErrCorrupt)
	}
	return nil
}

// Outcome implements actors.Kind. DecodeOutcome reads it.
func (k *Kind) Outcome(events []actors.Event) []byte {
	var space [64]byte
	return bytes.Clone(appendOutcome(space[:0], events))
}

// aggregate is the state of one customer in the runtime.
type aggregate struct {
	kind  *Kind
	id    string
	state *State
	large *Large // after the events of the decision, if it is to be said
}

// Decide implements actors.Aggregate. The command is a *licensedv1.Command.
func (a *aggregate) Decide(now time.Time, command any) actors.Decision {
	c, ok := command.(*licensedv1.Command)
	if !ok {
		panic(fmt.Sprintf("license: no command, but %T", command))
	}
	// One policy for the decision and its version: another may come into force meanwhile.
	p := a.kind.Policy()
	d := Decide(now, p, a.state, c)
	seal(d.Events, now, p.Version())
	if a.large = nil; a.kind.Listener.Large != nil {
		a.large = a.grows(int(p.Remembered()), d.Events)
	}
	return d
}

// grows returns what is to be said of the customer's size after events, nil for nothing:
// only a step over a tenth of the limit is told.
func (a *aggregate) grows(limit int, events []actors.Event) *Large {
	l := Large{Customer: a.id, Licenses: len(a.state.licenses), Uses: a.state.uses(), Limit: limit,
		UsesLimit: limit * policy.RememberedUses}
	licenses, uses := l.Licenses, l.Uses
	for i := range events {
		switch v := events[i].Value.(type) {
		case *licensedv1.LicenseCreated:
			l.Licenses++
		case *licensedv1.TitleDownloaded:
			if v.GetOccurrence().GetVerdict() == licensed {
				l.Uses++
			}
		case *licensedv1.TitlePlayed:
			if v.GetCounted() {
				l.Uses++
			}
		case *licensedv1.AllowanceRedeemed:
			l.Uses++
		}
	}
	if tenths(l.Licenses, l.Limit) > tenths(licenses, l.Limit) ||
		tenths(l.Uses, l.UsesLimit) > tenths(uses, l.UsesLimit) {
		return &l
	}
	return nil
}

// tenths returns the number of tenths of the limit a count has reached, 0 for less than five.
func tenths(n, limit int) int {
	if t := n * 10 / limit; t >= 5 {
		return t
	}
	return 0
}

// seal completes events with their stored form, all in one allocation if they are not unusually long.
func seal(events []actors.Event, now time.Time, version string) {
	data := make([]byte, 0, 64)
	for i := range events {
		e := &events[i]
		event := e.Value.(proto.Message)
		start := len(data)
		var err error
		if data, err = messages.AppendEvent(data, event); err != nil {
			panic(fmt.Sprintf("license: %T: %v", event, err)) // ids were checked to be UTF-8
		}
		e.Time = now
		e.Mapper = messages.EventMapper(event)
		e.Header = persistence.Header{PolicyVersion: version}
		// The capacity is cut, so that appending to one event's data cannot overwrite the
		// next one's.
		e.Data = data[start:len(data):len(data)]
	}
}

// Evolve implements actors.Aggregate.
func (a *aggregate) Evolve(e actors.Event) {
	Evolve(a.state, e)
	if a.large != nil { // decided, and not replayed
		a.kind.Listener.Large(*a.large)
		a.large = nil
	}
}

// Query implements actors.Aggregate. The query is a *licensedv1.Query; function Query tells the answers,
// which here have the customer's id.
func (a *aggregate) Query(now time.Time, query any) (any, error) {
	q, ok := query.(*licensedv1.Query)
	if !ok {
		return nil, fmt.Errorf("license: no query, but %T", query)
	}
	answer, err := Query(now, a.kind.Policy(), a.state, q)
	switch v := answer.(type) {
	case *licensedv1.ListLicensesResponse:
		for _, l := range v.Licenses {
			l.CustomerId = a.id
		}
	case *Downloads:
		v.Response.CustomerId = a.id
	case *licensedv1.CustomerState:
		v.CustomerId = a.id
	case *licensedv1.GetCustomerResponse:
		v.CustomerId = a.id
		for _, l := range v.Licenses {
			l.License.CustomerId = a.id
		}
	}
	return answer, err
}

// Snapshot implements actors.Aggregate.
func (a *aggregate) Snapshot(now time.Time) actors.Snapshot {
	a.state.prune(now.UnixMilli())
	return actors.Snapshot{
		Mapper: a.state.mapper(),
		Header: persistence.Header{PolicyVersion: a.kind.Policy().Version()},
		Data:   a.state.encode(),
	}
}
