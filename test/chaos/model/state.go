package model

import (
	"cmp"
	"slices"
	"strings"

	"licensed/test/chaos/history"
)

// Rules that refuse, by the names of the API.
const (
	DeviceLimit       = "RULE_DEVICE_LIMIT"
	DeviceNotSelected = "RULE_DEVICE_NOT_SELECTED"
	StudioLimit       = "RULE_STUDIO_LIMIT"
	YearlyLimit       = "RULE_YEARLY_LIMIT"
	DeactivationLimit = "RULE_DEACTIVATION_LIMIT"
	NoLicense         = "RULE_NO_LICENSE"
	Released          = "RULE_RELEASED"
	DeviceDeactivated = "RULE_DEVICE_DEACTIVATED"
	UnknownDevice     = "RULE_UNKNOWN_DEVICE"
	UnknownPlan       = "RULE_UNKNOWN_PLAN"
	TitleUnavailable  = "RULE_TITLE_UNAVAILABLE"
	Played            = "RULE_PLAYED"
	DeviceTitles      = "RULE_DEVICE_TITLES"
	MonthlyLimit      = "RULE_MONTHLY_LIMIT"
)

const (
	hour = int64(60 * 60 * 1000)
	day  = 24 * hour
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
	meant       int64 // when the command was issued that activated it
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
	staying       string // ids in order, each followed by a slash: the devices that stay; empty while none is bound
	devices       []device
	planMeant     int64             // when the command was issued that chose the plan
	licenses      []history.License // also those that ended
	meant         []int64           // of each licence: issue time of the last acquisition, or one that found it active
	played        []int64           // of each licence: its first playback that begins its hours; 0 before
	grace         int64             // until when devices that do not stay may renew
	uses          []use
	deactivations int
}

// New returns a customer whom nothing ever happened to.
func New(r *Rules) *State { return &State{rules: r} }

// Equal compares two states of the same rules.
func (s *State) Equal(o *State) bool {
	return s == o || s.Sequence == o.Sequence && s.plan == o.plan && s.staying == o.staying &&
		s.deactivations == o.deactivations && s.planMeant == o.planMeant && slices.Equal(s.meant, o.meant) &&
		s.grace == o.grace && slices.Equal(s.played, o.played) &&
		slices.Equal(s.devices, o.devices) && slices.Equal(s.licenses, o.licenses) && slices.Equal(s.uses, o.uses)
}

func (s *State) clone() *State {
	c := *s
	c.devices, c.licenses, c.meant = slices.Clone(s.devices), slices.Clone(s.licenses), slices.Clone(s.meant)
	c.played = slices.Clone(s.played)
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
		a.confirm(l)
		a.event(customer, "CommandAccepted")
		a.tell(l)
		return
	}
	if r := a.mayAcquire(active); r != nil {
		a.refuse(r)
		return
	}
	staying, selects := a.bind()
	if !active {
		l = a.begin(l)
	} else {
		a.confirm(l)
	}
	a.event(a.id(), "TitleDownloaded")
	a.use(false)
	a.device(a.in.Device).download = a.at
	if !active && selects {
		a.choose(staying)
	}
	a.tell(l)
}

// begin gives the device a licence that it has not.
func (a *step) begin(old *history.License) *history.License {
	if d := a.device(a.in.Device); d == nil {
		a.event(a.in.Device, "DeviceActivated")
		a.devices = append(a.devices, device{id: a.in.Device, meant: a.issued()})
	} else if d.deactivated {
		a.event(a.in.Device, "DeviceActivated")
		d.deactivated, d.meant = false, a.issued()
	}
	if old == nil {
		a.event(a.id(), "LicenseCreated")
		a.licenses, a.meant = append(a.licenses, history.License{}), append(a.meant, 0)
		a.played = append(a.played, 0)
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
	*a.meantOf(old), *a.playedOf(old) = a.issued(), 0
	return old
}

// issued is when the command was issued, or executed if the client did not say.
func (a *step) issued() int64 { return cmp.Or(a.in.IssuedAt, a.at) }

// outdated reports whether the command was issued before the one that made what it is about.
func (a *step) outdated(meant int64) bool { return a.in.IssuedAt != 0 && a.in.IssuedAt < meant }

// meantOf is when a licence was meant.
func (s *State) meantOf(l *history.License) *int64 {
	for i := range s.licenses {
		if &s.licenses[i] == l {
			return &s.meant[i]
		}
	}
	panic("model: not a licence of the state")
}

// playedOf is when the hours of a licence began.
func (s *State) playedOf(l *history.License) *int64 {
	for i := range s.licenses {
		if &s.licenses[i] == l {
			return &s.played[i]
		}
	}
	panic("model: not a licence of the state")
}

// confirm is an acquisition of a licence that is active.
func (a *step) confirm(l *history.License) {
	meant := a.meantOf(l)
	*meant = max(*meant, a.issued())
}

// superseded is a command about a licence from before it was acquired.
func (a *step) superseded(l *history.License) bool {
	if l == nil || !a.outdated(*a.meantOf(l)) {
		return false
	}
	a.event(customer, "CommandAccepted")
	a.tell(l)
	return true
}

// choose binds the devices that stay.
func (a *step) choose(staying string) {
	a.event(customer, "DevicesSelected")
	if a.staying = staying; staying != "" {
		a.shortenOthers(staying)
	}
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
	if a.superseded(l) {
		return
	}
	if r := a.mayRenew(l); r != nil {
		a.refuse(r)
		return
	}
	a.event(a.id(), "LicenseRenewed")
	l.Expires = a.expiry()
	if a.onGrace() {
		l.Expires = min(l.Expires, a.grace)
	} else if staying, selects := a.bind(); selects {
		a.choose(staying)
	}
	l.Renewals++
	a.device(a.in.Device).used = a.at
	a.tell(l)
}

func (a *step) release() {
	l := a.license(a.in.Device, a.in.Title)
	switch {
	case a.superseded(l):
		return
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
		if hours := int64(a.rules.Titles[a.in.Title].Hours); hours != 0 && *a.playedOf(l) == 0 {
			*a.playedOf(l) = a.at
			l.Expires = min(l.Expires, a.at+hours*hour)
		}
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
	case d.deactivated, a.outdated(d.meant):
		a.event(customer, "CommandAccepted")
		return
	case a.rules.Deactivations != Unlimited && a.deactivations >= a.rules.Deactivations && a.used(d.id):
		a.refuse(&history.Refusal{
			Rule: DeactivationLimit, Limit: uint32(a.rules.Deactivations), Current: uint32(a.deactivations),
		})
		return
	}
	d.deactivated = true
	a.staying = strings.Replace(a.staying, d.id+"/", "", 1)
	if a.used(d.id) {
		a.deactivations++
	}
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
	if a.plan != "" && a.outdated(a.planMeant) {
		a.event(customer, "CommandAccepted")
		a.out.Plan, a.out.DeviceLimit = a.plan, a.rules.Plans[a.plan].Devices
		return
	}
	plan, ok := a.rules.Plans[a.in.Plan]
	limit := plan.Devices
	if !ok {
		a.refuse(&history.Refusal{Rule: UnknownPlan})
		return
	}
	if a.plan == a.in.Plan {
		a.event(customer, "CommandAccepted")
		a.planMeant = max(a.planMeant, a.issued())
	} else {
		a.event(customer, "PlanChanged")
		a.planMeant = a.issued()
		in := slices.DeleteFunc(a.candidates(), func(d *device) bool { return !a.used(d.id) })
		if a.staying = ""; len(in) > int(limit) {
			a.staying = join(in[:limit])
		}
		days := a.planLimits().Grace // of the plan that ends
		if a.grace = 0; len(in) > int(limit) && days != Unlimited {
			a.grace = a.at + int64(days)*day
			a.shortenOthers(a.staying)
		}
	}
	a.plan = a.in.Plan
	a.out.Plan, a.out.DeviceLimit = a.in.Plan, limit
}
