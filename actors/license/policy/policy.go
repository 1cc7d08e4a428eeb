// Package policy holds the numbers that the rules of the license aggregate work with: how many
// devices a plan allows, how many active licences a studio, how many downloads a title, for how long
// a licence is valid.
//
// # The model
//
// A [Policy] is immutable. It is read from a YAML file as a whole, replaced as a whole, and names
// itself by a version that every event decided under it records:
//
//	plans      plan  → devices that may hold active licences at the same time, licences on one of them, downloads in
//	           30 days, and what holds after a change to a smaller plan
//	studios    studio → licences that may be active at the same time, hours after the first playback
//	catalogue  title → studio, downloads in 365 days, the end of its availability, hours after the first playback
//	defaults   what holds for studios and titles that are listed nowhere
//	remembered how large a customer's state may become
//	history    how long the archive keeps events; no rule of the aggregate
//
// The catalogue of titles is an interface: the file implements it with a map in memory, another
// source may take its place ([Policy.WithCatalogue]).
//
// The package does no I/O. Package policyfile reads and watches the file.
package policy

import (
	_ "embed"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Window is how far back the yearly rules count: an event at t counts until t + Window, exclusively.
const Window = 365 * 24 * time.Hour

// Month is how far back the monthly limit of a plan counts, in the same way.
const Month = 30 * 24 * time.Hour

// MaxYearlyLimit is the highest limit of a rule that counts over the Window or a Month, other than [Unlimited].
// The aggregate keeps no more of the counted events than this.
const MaxYearlyLimit = 250

// Limit is the highest count that a rule allows.
type Limit uint32

// Unlimited is the limit of a rule that does not apply.
const Unlimited Limit = 1<<32 - 1

// Met reports whether a further one would exceed the limit.
func (l Limit) Met(count int) bool {
	return l != Unlimited && count >= 0 && uint64(count) >= uint64(l)
}

// String returns the limit as the policy file writes it.
func (l Limit) String() string {
	if l == Unlimited {
		return "unlimited"
	}
	return strconv.FormatUint(uint64(l), 10)
}

// Counts tells what counts against the yearly limit of a title. Its values are those of
// licensedv1.YearlyCounts.
type Counts uint8

// What may count; Both is the union of the others.
const (
	Downloads Counts = 1
	Playbacks Counts = 2
	Both             = Downloads | Playbacks
)

// String returns the name that the policy file uses.
func (c Counts) String() string {
	switch c {
	case Downloads:
		return "downloads"
	case Playbacks:
		return "playbacks"
	case Both:
		return "both"
	default:
		return "Counts(" + strconv.Itoa(int(c)) + ")"
	}
}

// Title is what the rules need to know about a title.
type Title struct {
	// Studio whose limit the title's licences count against.
	Studio string
	// YearlyLimit of downloads (or what Policy.YearlyCounts says) within Window.
	YearlyLimit Limit
	// AvailableUntil is when the title can no longer be acquired and all its licences end; zero if
	// it stays.
	AvailableUntil time.Time
	// End is when licences end at the latest that were granted for longer, before the title had this AvailableUntil;
	// not before AvailableUntil. Zero: they keep their expiry.
	End time.Time
	// PlayHours is the number of hours after which a licence expires, from its first playback on; 0 if a playback
	// ends nothing.
	PlayHours uint32
}

// Plan has the limits of a plan.
type Plan struct {
	// Devices on which a customer may hold active licences at the same time.
	Devices uint32
	// TitlesPerDevice is the limit of active licences on one device, MonthlyDownloads that of downloads within a Month.
	TitlesPerDevice, MonthlyDownloads Limit
	// GraceDays after the change from this plan to a smaller one, devices that do not stay may renew, and their
	// licences end after them. Unlimited: they may not renew, and their licences keep their expiry.
	GraceDays Limit
}

// Catalogue knows titles. It is safe for concurrent use, answers without waiting and without I/O, and
// answers alike for as long as a policy refers to it.
type Catalogue interface {
	// Title returns what is known about a title, complete, or false if it is not listed.
	Title(id string) (Title, bool)
}

// Titles is a catalogue in memory. It must not be changed once a policy refers to it.
type Titles map[string]Title

// Title implements Catalogue.
func (t Titles) Title(id string) (Title, bool) {
	title, ok := t[id]
	return title, ok
}

// Policy is a set of limits. It is immutable and safe for concurrent use; [Parse] and [Default] make it.
type Policy struct {
	// version is the name for people and events; sum tells two policies of one version
	// apart.
	version       string
	sum           [32]byte
	defaultPlan   string
	plans         map[string]Plan
	studios       map[string]Studio
	studioDefault Limit
	catalogue     Catalogue
	unlisted      Title
	deactivations Limit
	period        time.Duration
	counts        Counts
	history       Limit // in days; 0 if the policy does not say
	remembered    uint32
	provisional   Provisional
	// renewPlayed says that a licence that was played can be renewed.
	renewPlayed bool
	// playHours are those of titles that have none and whose studio has none.
	playHours uint32
	// endWithin is the number of days from AvailableUntil to End of titles that do not say; ends says that some titles
	// have an End.
	endWithin  Limit
	ends       bool
	allowances map[string]Allowances // by plan; none of plans that lend nothing
}

// Studio has what holds for a studio that is listed.
type Studio struct {
	// Licenses for titles of the studio a customer may hold at the same time.
	Licenses Limit
	// PlayHours of its titles that have none of their own, as in Title; Unlimited if a playback ends nothing, 0 if the
	// defaults hold.
	PlayHours Limit
}

// Allowances are the limits of what may be lent to a customer.
type Allowances struct {
	// Downloads that may be lent at a time, in how many allowances; 0 for none.
	Downloads, Allowances uint32
	// For is the time from lending to the end.
	For time.Duration
}

// Provisional is what gateways may grant while a customer's owner cannot be reached.
type Provisional struct {
	// Renewals of one licence that each gateway grants in an outage at most; 0 for none.
	Renewals int
	// For is the time from the command to the expiry of the licence, if it would expire before.
	For time.Duration
}

// Version names the policy in events: the file's own version, or the first 8 hexadecimal digits of
// the SHA-256 sum of its content. At most 32 bytes.
func (p *Policy) Version() string { return p.version }

// SameContent reports whether both policies were read from equal bytes.
func (p *Policy) SameContent(o *Policy) bool { return p.sum == o.sum }

// Plan returns the number of devices on which a customer of that plan may hold active licences at the same time,
// or false if there is no such plan.
func (p *Policy) Plan(id string) (devices uint32, ok bool) {
	plan, ok := p.plans[id]
	return plan.Devices, ok
}

// Plans returns the ids of all plans, in alphabetical order.
func (p *Policy) Plans() []string { return slices.Sorted(maps.Keys(p.plans)) }

// Studios returns the ids of the studios that are listed, in alphabetical order.
func (p *Policy) Studios() []string { return slices.Sorted(maps.Keys(p.studios)) }

// OtherStudios returns the limit of studios that are not listed.
func (p *Policy) OtherStudios() Limit { return p.studioDefault }

// Unlisted returns what holds for titles that are not in the catalogue.
func (p *Policy) Unlisted() Title { return p.unlisted }

// Listed returns the number of titles in the file's catalogue, 0 for another catalogue.
func (p *Policy) Listed() int {
	titles, _ := p.catalogue.(Titles)
	return len(titles)
}

// InForce returns the plan that holds for a customer whose plan is id, and its limit of devices. It
// is the default plan where id is empty, or names a plan that the policy does not have any more.
func (p *Policy) InForce(id string) (plan string, devices uint32) {
	plan = id
	if _, ok := p.plans[id]; !ok {
		plan = p.defaultPlan
	}
	return plan, p.plans[plan].Devices
}

// PlanLimits returns the limits of the plan that holds for a customer whose plan is id, as InForce does.
func (p *Policy) PlanLimits(id string) Plan {
	plan, _ := p.InForce(id)
	return p.plans[plan]
}

// Studio returns the number of licences for titles of that studio a customer may hold at the same time.
func (p *Policy) Studio(id string) Limit {
	if s, ok := p.studios[id]; ok {
		return s.Licenses
	}
	return p.studioDefault
}

// StudioPlayHours returns the hours of a studio, as Studio.PlayHours has them; 0 for one that is not listed.
func (p *Policy) StudioPlayHours(id string) Limit { return p.studios[id].PlayHours }

// PlayHours returns the hours of titles that have none of their own and whose studio has none, as Title.PlayHours.
func (p *Policy) PlayHours() uint32 { return p.playHours }

// RenewAfterPlay reports whether a licence that was played and has PlayHours can be renewed. The hours then begin anew
// with the first playback after the renewal.
func (p *Policy) RenewAfterPlay() bool { return p.renewPlayed }

// EndWithin returns the number of days from the AvailableUntil of a title to its End, if the title does not say;
// Unlimited if it then has no End.
func (p *Policy) EndWithin() Limit { return p.endWithin }

// EndsTitles reports whether any title may have an End.
func (p *Policy) EndsTitles() bool { return p.ends }

// Title returns what holds for a title: its entry in the catalogue, or the policy's defaults.
func (p *Policy) Title(id string) Title {
	if t, ok := p.catalogue.Title(id); ok {
		return t
	}
	return p.unlisted
}

// Lists reports whether the catalogue has a title.
func (p *Policy) Lists(title string) bool {
	_, ok := p.catalogue.Title(title)
	return ok
}

// Names reports whether the policy names a studio: with a limit of its own, or as that of titles that are not listed.
func (p *Policy) Names(studio string) bool {
	_, ok := p.studios[studio]
	return ok || studio == p.unlisted.Studio
}

// Deactivations returns the number of devices a customer may deactivate within Window.
func (p *Policy) Deactivations() Limit { return p.deactivations }

// RememberedUses is the number of downloads and counted playbacks that are remembered for each licence that may be,
// on average.
const RememberedUses = 10

// Remembered returns the number of licences, active and inactive, a customer may have that are not forgotten, at
// least 1; and RememberedUses times as many downloads and counted playbacks.
func (p *Policy) Remembered() uint32 { return p.remembered }

// Provisional returns what gateways may grant while a customer's owner cannot be reached.
func (p *Policy) Provisional() Provisional { return p.provisional }

// Allowances returns what may be lent to a customer of a plan.
func (p *Policy) Allowances(plan string) Allowances { return p.allowances[plan] }

// Period returns for how long a licence is valid, a whole number of days.
func (p *Policy) Period() time.Duration { return p.period }

// Counts returns what counts against the yearly limit of a title.
func (p *Policy) Counts() Counts { return p.counts }

// History returns for how long the archive keeps events, 0 forever, or false if the policy does not say.
func (p *Policy) History() (keep time.Duration, ok bool) {
	if p.history == Unlimited {
		return 0, true
	}
	return time.Duration(p.history) * 24 * time.Hour, p.history > 0
}

// WithCatalogue returns the policy with another catalogue of titles.
func (p *Policy) WithCatalogue(c Catalogue) *Policy {
	q := *p
	q.catalogue, q.ends = c, true
	return &q
}

// String describes the policy in a line, for logs.
func (p *Policy) String() string {
	s := fmt.Sprintf("policy %s: %d plans, %d studios", p.version, len(p.plans), len(p.studios))
	if t, ok := p.catalogue.(Titles); ok {
		s += fmt.Sprintf(", %d titles", len(t))
	}
	return s
}

//go:embed default.yaml
var defaultFile []byte

var defaultPolicy = sync.OnceValue(func() *Policy {
	p, err := Parse("default policy", defaultFile)
	if err != nil {
		panic(err) // the file is part of the program, and tested
	}
	return p
})

// Default returns the policy that is in force where no file is given.
func Default() *Policy { return defaultPolicy() }
