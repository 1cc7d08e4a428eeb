package model

import (
	"slices"
	"strings"

	"licensed/test/chaos/history"
)

func (a *step) mayAcquire(active bool) *history.Refusal {
	if a.gone() {
		return &history.Refusal{Rule: TitleUnavailable}
	}
	if !active {
		if r := a.deviceLimit(); r != nil {
			return r
		}
		if r := a.deviceTitles(); r != nil {
			return r
		}
		if r := a.studioLimit(); r != nil {
			return r
		}
	}
	if r := a.yearlyLimit(); r != nil {
		return r
	}
	return a.monthlyLimit()
}

// deviceTitles is the plan's limit of licences on one device.
func (a *step) deviceTitles() *history.Refusal {
	limit := a.planLimits().Titles
	n := a.count(func(l *history.License) bool { return l.Device == a.in.Device })
	if limit == Unlimited || n < limit {
		return nil
	}
	return &history.Refusal{Rule: DeviceTitles, Limit: uint32(limit), Current: uint32(n)}
}

// monthlyLimit is the plan's limit of downloads in 30 days, which are all of a run.
func (a *step) monthlyLimit() *history.Refusal {
	limit, n := a.planLimits().Downloads, 0
	for i := range a.uses {
		if !a.uses[i].playback {
			n++
		}
	}
	if limit == Unlimited || n < limit {
		return nil
	}
	return &history.Refusal{Rule: MonthlyLimit, Limit: uint32(limit), Current: uint32(n)}
}

func (a *step) mayRenew(l *history.License) *history.Refusal {
	switch d := a.device(a.in.Device); {
	case l == nil:
		return &history.Refusal{Rule: NoLicense}
	case l.Released:
		return &history.Refusal{Rule: Released}
	case d.deactivated:
		return &history.Refusal{Rule: DeviceDeactivated}
	case a.gone():
		return &history.Refusal{Rule: TitleUnavailable}
	}
	if played := *a.playedOf(l); played != 0 {
		hours := a.rules.Titles[a.in.Title].Hours
		return &history.Refusal{Rule: Played, Limit: uint32(hours), Current: uint32((a.at - played) / hour)}
	}
	if a.onGrace() {
		return nil
	}
	return a.deviceLimit()
}

// onGrace says whether a device does not stay, but may renew for some days.
func (a *step) onGrace() bool {
	_, limit := a.planInForce()
	return a.at < a.grace && a.used(a.in.Device) && !a.free(limit) && !a.stays(a.in.Device, limit)
}

// shortenOthers ends the licences on devices that do not stay with the grace.
func (a *step) shortenOthers(staying string) {
	if a.at >= a.grace {
		return
	}
	var ids []string
	for i := range a.licenses {
		l := &a.licenses[i]
		if !l.Released && l.Expires > a.grace && !slices.Contains(strings.Split(staying, "/"), l.Device) {
			l.Expires = a.grace
			ids = append(ids, l.Device+"/"+l.Title)
		}
	}
	slices.Sort(ids)
	for _, id := range ids {
		a.event(id, "LicenseShortened")
	}
}

func (a *step) gone() bool {
	until := a.rules.Titles[a.in.Title].Until
	return until != 0 && a.at >= until
}

// OfPlan reports whether a rule is about a limit of the plan.
func OfPlan(rule string) bool {
	switch rule {
	case DeviceLimit, DeviceNotSelected, DeviceTitles, MonthlyLimit:
		return true
	default:
		return false
	}
}

// inUse returns the devices with active licences, the most recently used first.
func (s *State) inUse() []*device {
	var in []*device
	for i := range s.devices {
		if d := &s.devices[i]; s.count(func(l *history.License) bool { return l.Device == d.id }) > 0 {
			in = append(in, d)
		}
	}
	slices.SortFunc(in, func(x, y *device) int {
		if x.used != y.used {
			return int(y.used - x.used)
		}
		return strings.Compare(x.id, y.id)
	})
	return in
}

// count counts the active licences that match.
func (s *State) count(match func(*history.License) bool) (n int) {
	for i := range s.licenses {
		if l := &s.licenses[i]; !l.Released && match(l) {
			n++
		}
	}
	return n
}

func (s *State) planInForce() (string, uint32) {
	plan := s.plan
	if plan == "" {
		plan = s.rules.DefaultPlan
	}
	return plan, s.rules.Plans[plan].Devices
}

func (s *State) planLimits() Plan {
	plan, _ := s.planInForce()
	return s.rules.Plans[plan]
}

func (a *step) deviceLimit() *history.Refusal {
	_, limit := a.planInForce()
	in := a.inUse()
	used := a.used(a.in.Device)
	if a.free(limit) || used && a.stays(a.in.Device, limit) {
		return nil
	}
	rule := DeviceLimit
	if used && limit > 0 {
		rule = DeviceNotSelected
	}
	return &history.Refusal{Rule: rule, Limit: limit, Current: uint32(len(in))}
}

// used says whether a device has an active licence.
func (s *State) used(id string) bool {
	return s.count(func(l *history.License) bool { return l.Device == id }) > 0
}

// selected says whether a device is bound to stay.
func (s *State) selected(id string) bool {
	return slices.Contains(strings.Split(s.staying, "/"), id) && id != ""
}

// free says whether the other devices leave a place. As long as devices are in use that are not among those that stay,
// the latter keep their places.
func (a *step) free(limit uint32) bool {
	others, kept, leftovers := 0, 0, 0
	for i := range a.devices {
		d := &a.devices[i]
		used, selected := a.used(d.id), a.selected(d.id)
		if used && d.id != a.in.Device {
			others++
		}
		if used && !selected {
			leftovers++
		}
		if selected && !used {
			kept++
		}
	}
	if a.staying != "" && leftovers > 0 && !a.selected(a.in.Device) {
		others += kept
	}
	return others < int(limit)
}

// candidates are the devices that may stay: those that are bound to come first, then those in use, by their last use.
func (s *State) candidates() []*device {
	var all []*device
	for i := range s.devices {
		if d := &s.devices[i]; s.used(d.id) || s.selected(d.id) {
			all = append(all, d)
		}
	}
	slices.SortFunc(all, func(x, y *device) int {
		a, b := s.selected(x.id), s.selected(y.id)
		switch {
		case a && !b:
			return -1
		case b && !a:
			return 1
		case x.used != y.used:
			return int(y.used - x.used)
		}
		return strings.Compare(x.id, y.id)
	})
	return all
}

// stays says whether a device is one of those that stay in a plan that is exceeded.
func (s *State) stays(id string, limit uint32) bool {
	rank := slices.IndexFunc(s.candidates(), func(d *device) bool { return d.id == id })
	return rank >= 0 && rank < int(limit)
}

// join returns the ids of devices in order.
func join(devices []*device) string {
	var ids []string
	for _, d := range devices {
		ids = append(ids, d.id)
	}
	slices.Sort(ids)
	text := ""
	for _, id := range ids {
		text += id + "/"
	}
	return text
}

// bind is what a device that takes a place, by the state before that, changes about the devices that stay.
func (a *step) bind() (staying string, recorded bool) {
	_, limit := a.planInForce()
	switch {
	case a.free(limit) && (a.staying == "" || a.selected(a.in.Device)):
		return a.staying, false
	case a.free(limit):
		return "", true
	}
	c := a.candidates()
	staying = join(c[:min(len(c), int(limit))])
	return staying, staying != a.staying
}

func (a *step) studioLimit() *history.Refusal {
	studio := a.rules.Titles[a.in.Title].Studio
	limit := a.rules.Studios[studio]
	n := a.count(func(l *history.License) bool { return l.Studio == studio })
	if limit == Unlimited || n < limit {
		return nil
	}
	return &history.Refusal{Rule: StudioLimit, Limit: uint32(limit), Current: uint32(n)}
}

func (a *step) yearlyLimit() *history.Refusal { return a.yearly(a.in.Title) }

func (s *State) yearly(title string) *history.Refusal {
	limit, n := s.rules.Titles[title].Yearly, 0
	for i := range s.uses {
		if s.uses[i].title == title {
			n++
		}
	}
	if limit == Unlimited || n < limit {
		return nil
	}
	return &history.Refusal{Rule: YearlyLimit, Limit: uint32(limit), Current: uint32(n)}
}

// Answer is what a question must be answered in this state.
func (s *State) Answer(in *history.Input) history.Output {
	out := history.Output{Outcome: history.Accepted, Sequence: s.Sequence}
	switch in.Kind {
	case history.ListLicenses:
		for _, l := range s.licenses {
			if !l.Released || in.Inactive {
				out.Licenses = append(out.Licenses, l)
			}
		}
		slices.SortFunc(out.Licenses, func(x, y history.License) int {
			if c := strings.Compare(x.Device, y.Device); c != 0 {
				return c
			}
			return strings.Compare(x.Title, y.Title)
		})
	case history.ListDevices:
		out.Plan, out.DeviceLimit = s.planInForce()
		for _, d := range s.devices {
			n := s.count(func(l *history.License) bool { return l.Device == d.id })
			out.Devices = append(out.Devices, history.Device{
				Device: d.id, Active: !d.deactivated, Licenses: uint32(n), Download: d.download,
			})
		}
		slices.SortFunc(out.Devices, func(x, y history.Device) int { return strings.Compare(x.Device, y.Device) })
	case history.ListDownloads:
		s.downloads(in.Title, &out)
	default:
		panic("model: " + string(in.Kind) + " is no question")
	}
	return out
}

func (s *State) downloads(title string, out *history.Output) {
	for _, u := range s.uses {
		if u.title == title && !u.playback {
			out.Downloads = append(out.Downloads, history.Download{Device: u.device, At: u.at})
		}
	}
	slices.SortStableFunc(out.Downloads, func(x, y history.Download) int {
		if x.At != y.At {
			return int(x.At - y.At)
		}
		return strings.Compare(x.Device, y.Device)
	})
	if limit := s.rules.Titles[title].Yearly; limit != Unlimited {
		n := uint32(limit)
		out.Limit = &n
	}
	out.Allowed = s.yearly(title) == nil
}
