package license

import (
	"slices"

	"licensed/actors/license/policy"
	"licensed/internal/planted"
	"licensed/messages/licensedv1"
)

// Times of the state are milliseconds since 1970 in UTC.
const (
	hour = 60 * 60 * 1000
	day  = 24 * hour
	// window is how far back yearly rules count, and how long inactive licences are remembered.
	window = int64(policy.Window / 1e6)
	// month is how far back the monthly rule counts.
	month = int64(policy.Month / 1e6)
	// maxCounted is the number of downloads of a licence, how many counted playbacks of a licence and how many
	// deactivations are kept, the newest: as many as the highest limit needs.
	maxCounted = policy.MaxYearlyLimit
)

// State is what decisions about one customer need. The zero value is a customer before the first
// event. It is not safe for concurrent use.
//
// Licences refer to devices, studios and titles by their position in the tables of those; a customer
// has few of each, and they are found by looking at all.
type State struct {
	// plan is what the customer changed to, empty for the default, and choice when and by which command.
	plan   string
	choice intent
	// last is the time of the last event.
	last int64
	// order is the next eventOrderNumber of the aggregate id "customer".
	order uint64

	devices  []device
	studios  []string
	titles   []string
	licenses []license
	// bound says that the selected devices stay and others do not: the plan shrank. chosen says that the customer chose
	// them.
	bound, chosen bool
	// grace is until when devices that do not stay may renew, 0 if they may not.
	grace int64
	// deactivations of devices that counted and were not forgiven, in the order of time, at most maxCounted.
	deactivations []int64
	// allowances by number, and the highest number that was given to one.
	allowances    []allowance
	lastAllowance uint64
	// rare is nil for a customer who never had an exception.
	rare *rare
}

// device is one that was ever used by the customer, until the rules forget it.
type device struct {
	id string
	// order is the next eventOrderNumber of the aggregate id that is the device's.
	order       uint64
	deactivated bool
	// selected to stay.
	selected bool
	// kind and name are for people; unspecified and empty if no command gave them.
	kind licensedv1.DeviceType
	name string
	// seen is the last acquisition, renewal, download, playback, activation or deactivation.
	seen int64
	// downloaded is the last download, 0 if there was none.
	downloaded int64
	// activation is the last one, zero if it is unknown or there was none.
	activation intent
	// synced is the highest number of the facts that the device reported.
	synced uint64
}

// license is what the customer has or had for a title on a device. device and title are
// positions in the tables of the state.
type license struct {
	device, title uint32
	studio        uint32 // position plus 1; 0 before LicenseAcquired names it
	renewals      uint32
	// order is the next eventOrderNumber of the aggregate id that is the licence's.
	order    uint64
	acquired int64
	// meant is when the client issued the last command that acquired the licence or found it active.
	meant    int64
	expires  int64
	released int64 // 0 if not released
	// since is when the licence became active, which is later than acquired if it was renewed after it had expired;
	// spans are the earlier times of being active, at most maxSpans.
	since int64
	spans []span
	// playHours is the number of hours that the licence may be used after its first playback, 0 without such a limit.
	// With it, granted is the last acquisition or renewal, and played the first playback that counts, 0 before there
	// was one.
	playHours       uint32
	granted, played int64
	// uses are the downloads and the counted playbacks, in the order of time, at most maxCounted of each.
	uses []use
}

// use is a download or a counted playback: its time, and in the lowest bit which of them.
type use int64

func newUse(at int64, playback bool) use {
	u := use(at << 1)
	if playback {
		u |= 1
	}
	return u
}

// at returns the time of the use, in Unix milliseconds.
func (u use) at() int64 { return int64(u >> 1) }

// playback reports whether it is a playback and not a download.
func (u use) playback() bool { return u&1 != 0 }

// active reports whether the licence allows playing at a time.
func (l *license) active(now int64) bool { return l.released == 0 && now < l.expires }

// end is when the licence became or becomes inactive.
func (l *license) end() int64 {
	if l.released != 0 {
		return min(l.released, l.expires)
	}
	return l.expires
}

// grant sets the hours after the first playback, from an acquisition or a renewal on.
func (l *license) grant(at int64, playHours uint32) {
	l.playHours, l.granted, l.played = playHours, 0, 0
	if playHours > 0 {
		l.granted = at
	}
}

// play says that a playback begins the hours of the licence, unless an earlier one did.
func (l *license) play(at int64) {
	end := at + int64(l.playHours)*hour
	if planted.Bug(planted.RestartHours) && l.played != 0 {
		l.expires = end
	}
	if l.playHours == 0 || l.released != 0 || l.played != 0 && l.played <= at {
		return
	}
	l.played, l.expires = at, min(l.expires, end)
}

// last is the last time for which the licence is remembered: its end, or the last use that counts. A playback that is
// reported late may end a licence before a later one.
func (l *license) last() int64 {
	if n := len(l.uses); n > 0 {
		return max(l.end(), l.uses[n-1].at()-1) // A use counts for less than the window.
	}
	return l.end()
}

// forgotten reports whether rules treat the licence as never held.
func (l *license) forgotten(now int64) bool { return now-l.last() > window }

// uses returns the number of downloads and counted playbacks that are kept.
func (s *State) uses() int {
	n := 0
	for i := range s.licenses {
		n += len(s.licenses[i].uses)
	}
	return n
}

// device returns the position of a device, -1 if it is unknown. Customers have few
// devices: a scan is faster than a map, and takes no memory.
func (s *State) device(id string) int {
	for i := range s.devices {
		if s.devices[i].id == id {
			return i
		}
	}
	return -1
}

// title returns the position of a title, -1 if it is unknown.
func (s *State) title(id string) int { return position(s.titles, id) }

// position returns where a name is in a table, or -1. It looks at the newest first, which most
// commands and events are about.
func position(table []string, name string) int {
	for i := len(table) - 1; i >= 0; i-- {
		if table[i] == name {
			return i
		}
	}
	return -1
}

// license returns the position of a licence, -1 if there is none. The latest is looked at
// first.
func (s *State) license(device, title int) int {
	if device < 0 || title < 0 {
		return -1
	}
	for i := len(s.licenses) - 1; i >= 0; i-- {
		if l := &s.licenses[i]; l.device == uint32(device) && l.title == uint32(title) {
			return i
		}
	}
	return -1
}

// idOf returns what events of a licence are about.
func (s *State) idOf(l *license) string { return s.devices[l.device].id + "/" + s.titles[l.title] }

// studioOf returns the studio of a licence.
func (s *State) studioOf(l *license) string {
	if l.studio == 0 {
		return ""
	}
	return s.studios[l.studio-1]
}

// intern returns the position of a name in a table, and adds it if it is new.
func intern(table *[]string, name string) uint32 {
	if i := position(*table, name); i >= 0 {
		return uint32(i)
	}
	*table = append(*table, name)
	return uint32(len(*table) - 1)
}

// forgottenDevice reports whether rules treat the device as never seen.
func (s *State) forgottenDevice(i int, now int64) bool {
	if now-s.devices[i].seen <= window {
		return false
	}
	for j := range s.licenses {
		if s.licenses[j].device == uint32(i) && !s.licenses[j].forgotten(now) {
			return false
		}
	}
	return !slices.ContainsFunc(s.allowances, func(a allowance) bool { return int(a.device) == i && !a.ended(now) })
}

// prune drops what no decision from now on can need. Decisions are the same with and without it.
func (s *State) prune(now int64) {
	s.forgetAllowances(now)
	for len(s.deactivations) > 0 && s.deactivations[0] <= now-window {
		s.deactivations = s.deactivations[1:]
	}
	if s.grace <= now {
		s.grace = 0
	}
	s.dropExceptions(func(e *licensedv1.Exception) bool { return now >= millisOf(e.GetUntil()) })
	forgotten := false
	for i := range s.licenses {
		l := &s.licenses[i]
		forgotten = forgotten || l.forgotten(now)
		for len(l.uses) > 0 && l.uses[0].at() <= now-window {
			l.uses = l.uses[1:]
		}
		l.forgetSpans(now)
	}
	for i := range s.devices {
		forgotten = forgotten || s.forgottenDevice(i, now)
	}
	if forgotten {
		s.rebuild(now)
	}
}

// rebuild makes the tables anew from what is not forgotten.
func (s *State) rebuild(now int64) {
	old := *s
	s.devices, s.studios, s.titles, s.licenses = nil, nil, nil, nil
	// positions has the new position of each old device.
	positions := make([]uint32, len(old.devices))
	for i := range old.devices {
		if !old.forgottenDevice(i, now) {
			positions[i] = uint32(len(s.devices))
			s.devices = append(s.devices, old.devices[i])
		}
	}
	titles, studios := newTable(&s.titles, old.titles), newTable(&s.studios, old.studios)
	for _, l := range old.licenses {
		if l.forgotten(now) {
			continue
		}
		l.device, l.title = positions[l.device], titles.move(l.title)
		if l.studio > 0 {
			l.studio = studios.move(l.studio-1) + 1
		}
		s.licenses = append(s.licenses, l)
	}
	s.allowances = nil
	for _, a := range old.allowances {
		a.device, a.units = positions[a.device], slices.Clone(a.units)
		for i, u := range a.units {
			a.units[i] = unit{titles.move(u.title), studios.move(u.studio)}
		}
		s.allowances = append(s.allowances, a)
	}
}

// table moves names from an old table to a new one, each once.
type table struct {
	to    *[]string
	from  []string
	moved []uint32 // position in to, plus 1
}

// newTable returns the table that moves strings from one slice to another, as they are
// needed.
func newTable(to *[]string, from []string) *table {
	return &table{to: to, from: from, moved: make([]uint32, len(from))}
}

// move returns the new position of the name that was at i.
func (t *table) move(i uint32) uint32 {
	if t.moved[i] == 0 {
		*t.to = append(*t.to, t.from[i])
		t.moved[i] = uint32(len(*t.to))
	}
	return t.moved[i] - 1
}
