package model

import (
	"slices"
	"strings"

	"licensed/test/chaos/history"
)

// Rules that refuse, by the names of the API.
const (
	DeviceLimit       = "RULE_DEVICE_LIMIT"
	StudioLimit       = "RULE_STUDIO_LIMIT"
	YearlyLimit       = "RULE_YEARLY_LIMIT"
	DeactivationLimit = "RULE_DEACTIVATION_LIMIT"
	NoLicense         = "RULE_NO_LICENSE"
	Released          = "RULE_RELEASED"
	DeviceDeactivated = "RULE_DEVICE_DEACTIVATED"
	UnknownDevice     = "RULE_UNKNOWN_DEVICE"
	UnknownPlan       = "RULE_UNKNOWN_PLAN"
	TitleUnavailable  = "RULE_TITLE_UNAVAILABLE"
)

// Event that a command must record.
type Event struct{ Aggregate, Name string }

// customer is the aggregate id of events about neither a device nor a licence.
const customer = "customer"

type device struct {
	id          string
	deactivated bool
	used        int64
	download    int64
}

type use struct {
	title, device string
	at            int64
	playback      bool
}

// State of one customer. It is a value: Apply returns a new one and shares no memory that it changes.
type State struct {
	// Sequence is the number of events so far.
	Sequence uint64

	rules         *Rules
	plan          string // empty: the default
	devices       []device
	licenses      []history.License // also those that ended
	uses          []use
	deactivations int
}

// New returns a customer whom nothing ever happened to.
func New(r *Rules) *State { return &State{rules: r} }

// Equal compares two states of the same rules.
func (s *State) Equal(o *State) bool {
	return s == o || s.Sequence == o.Sequence && s.plan == o.plan && s.deactivations == o.deactivations &&
		slices.Equal(s.devices, o.devices) && slices.Equal(s.licenses, o.licenses) && slices.Equal(s.uses, o.uses)
}

func (s *State) clone() *State {
	c := *s
	c.devices, c.licenses = slices.Clone(s.devices), slices.Clone(s.licenses)
	c.uses = s.uses[:len(s.uses):len(s.uses)] // only ever appended to
	return &c
}

// Apply executes a command at a time (unix milliseconds). The output is what the client must be told,
// the events what must be recorded. With validate-only there are none, and the state is the same.
func (s *State) Apply(in *history.Input, at int64) (next *State, out history.Output, events []Event) {
	a := &step{State: s.clone(), in: in, at: at}
	a.out.Outcome = history.Accepted
	switch in.Kind {
	case history.Acquire:
		a.acquire()
	case history.Renew:
		a.renew()
	case history.Release:
		a.release()
	case history.Play:
		a.play()
	case history.Deactivate:
		a.deactivate()
	case history.ChangePlan:
		a.changePlan()
	default:
		panic("model: " + string(in.Kind) + " is no command")
	}
	if in.ValidateOnly {
		return s, a.out, nil
	}
	a.Sequence += uint64(len(a.events))
	a.out.Sequence = a.Sequence
	if a.out.Refusal != nil {
		refused := s.clone()
		refused.Sequence = a.Sequence
		return refused, a.out, a.events
	}
	return a.State, a.out, a.events
}

// step is one command in flight.
type step struct {
	*State
	in     *history.Input
	at     int64
	out    history.Output
	events []Event
}

func (a *step) event(aggregate, name string) {
	a.events = append(a.events, Event{Aggregate: aggregate, Name: name})
}

func (a *step) refuse(r *history.Refusal) {
	a.out.Outcome, a.out.Refusal = history.Refused, r
	a.events = []Event{{customer, "CommandRefused"}}
}

func (a *step) id() string { return a.in.Device + "/" + a.in.Title }

// tell answers with the licence as it is now.
func (a *step) tell(l *history.License) {
	told := *l
	a.out.License = &told
}

func (s *State) device(id string) *device {
	for i := range s.devices {
		if s.devices[i].id == id {
			return &s.devices[i]
		}
	}
	return nil
}

func (s *State) license(device, title string) *history.License {
	for i := range s.licenses {
		if l := &s.licenses[i]; l.Device == device && l.Title == title {
			return l
		}
	}
	return nil
}

// License returns a licence, also one that ended; nil if there never was one. It is the caller's.
func (s *State) License(device, title string) *history.License {
	l := s.license(device, title)
	if l == nil {
		return nil
	}
	own := *l
	return &own
}

func (a *step) acquire() {
	l := a.license(a.in.Device, a.in.Title)
	active := l != nil && !l.Released
	if active && !a.in.NewDownload {
		a.event(customer, "CommandAccepted")
		a.tell(l)
		return
	}
	if r := a.mayAcquire(active); r != nil {
		a.refuse(r)
		return
	}
	if !active {
		l = a.begin(l)
	}
	a.event(a.id(), "TitleDownloaded")
	a.use(false)
	a.device(a.in.Device).download = a.at
	a.tell(l)
}

// begin gives the device a licence that it has not.
func (a *step) begin(old *history.License) *history.License {
	if d := a.device(a.in.Device); d == nil {
		a.event(a.in.Device, "DeviceActivated")
		a.devices = append(a.devices, device{id: a.in.Device})
	} else if d.deactivated {
		a.event(a.in.Device, "DeviceActivated")
		d.deactivated = false
	}
	if old == nil {
		a.event(a.id(), "LicenseCreated")
		a.licenses = append(a.licenses, history.License{})
		old = &a.licenses[len(a.licenses)-1]
	}
	a.event(a.id(), "LicenseAcquired")
	*old = history.License{
		Device:   a.in.Device,
		Title:    a.in.Title,
		Studio:   a.rules.Titles[a.in.Title].Studio,
		Acquired: a.at,
		Expires:  a.expiry(),
	}
	return old
}

func (a *step) expiry() int64 {
	at := a.at + a.rules.Period.Milliseconds()
	if until := a.rules.Titles[a.in.Title].Until; until != 0 {
		at = min(at, until)
	}
	return at
}

func (a *step) renew() {
	l := a.license(a.in.Device, a.in.Title)
	if r := a.mayRenew(l); r != nil {
		a.refuse(r)
		return
	}
	l.Expires = a.expiry()
	l.Renewals++
	a.device(a.in.Device).used = a.at
	a.event(a.id(), "LicenseRenewed")
	a.tell(l)
}

func (a *step) release() {
	l := a.license(a.in.Device, a.in.Title)
	switch {
	case l == nil:
		a.refuse(&history.Refusal{Rule: NoLicense})
		return
	case l.Released:
		a.event(customer, "CommandAccepted")
	default:
		l.Released = true
		a.event(a.id(), "LicenseReleased")
	}
	a.tell(l)
}

func (a *step) play() {
	l := a.license(a.in.Device, a.in.Title)
	switch {
	case l == nil:
		a.refuse(&history.Refusal{Rule: NoLicense})
	case l.Released:
		a.refuse(&history.Refusal{Rule: Released})
	default:
		if r := a.yearlyLimit(); r != nil {
			a.refuse(r)
			return
		}
		a.event(a.id(), "TitlePlayed")
		a.use(true)
		a.tell(l)
	}
}

// use counts a download or a playback.
func (a *step) use(playback bool) {
	a.uses = append(a.uses, use{title: a.in.Title, device: a.in.Device, at: a.at, playback: playback})
	a.device(a.in.Device).used = a.at
}

func (a *step) deactivate() {
	d := a.device(a.in.Device)
	switch {
	case d == nil:
		a.refuse(&history.Refusal{Rule: UnknownDevice})
		return
	case d.deactivated:
		a.event(customer, "CommandAccepted")
		return
	case a.rules.Deactivations != Unlimited && a.deactivations >= a.rules.Deactivations:
		a.refuse(&history.Refusal{
			Rule: DeactivationLimit, Limit: uint32(a.rules.Deactivations), Current: uint32(a.deactivations),
		})
		return
	}
	d.deactivated = true
	a.deactivations++
	a.event(a.in.Device, "DeviceDeactivated")
	for i := range a.licenses {
		if l := &a.licenses[i]; l.Device == a.in.Device && !l.Released {
			l.Released = true
			a.out.Titles = append(a.out.Titles, l.Title)
		}
	}
	slices.SortFunc(a.out.Titles,
		func(x, y string) int { return strings.Compare(a.in.Device+"/"+x, a.in.Device+"/"+y) })
	for _, title := range a.out.Titles {
		a.event(a.in.Device+"/"+title, "LicenseReleased")
	}
}

func (a *step) changePlan() {
	limit, ok := a.rules.Plans[a.in.Plan]
	if !ok {
		a.refuse(&history.Refusal{Rule: UnknownPlan})
		return
	}
	name := "PlanChanged"
	if a.plan == a.in.Plan {
		name = "CommandAccepted"
	}
	a.event(customer, name)
	a.plan = a.in.Plan
	a.out.Plan, a.out.DeviceLimit = a.in.Plan, limit
}
