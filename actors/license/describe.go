package license

import (
	"cmp"
	"slices"
	"strings"

	"licensed/actors/license/policy"
	"licensed/messages/licensedv1"
)

// describe returns the whole state, in an order that does not depend on that of the tables.
func (v view) describe() *licensedv1.CustomerState {
	s := v.state
	out := &licensedv1.CustomerState{}
	plan, devices := v.devicesBound()
	out.PlanId, out.DeviceLimit, out.Exceptions = plan, uint32(devices.limit), v.listExceptions()
	out.DefaultPlan = s.plan != out.PlanId
	out.PlanChangedAt = optionalTime(s.choice.at)
	active := make([]uint32, len(s.devices)) // licences by device
	studios := map[string]uint32{}
	for i := range s.licenses {
		l := &s.licenses[i]
		if l.forgotten(v.now) {
			continue
		}
		out.Licenses = append(out.Licenses, v.describeLicense(l))
		if !l.active(v.now) {
			continue
		}
		out.ActiveLicenses++
		if active[l.device]++; active[l.device] == 1 {
			out.DevicesInUse++
		}
		studios[s.studioOf(l)]++
	}
	for i := range s.devices {
		if !s.forgottenDevice(i, v.now) {
			d := s.devices[i].describe(active[i])
			d.MergedInto = v.merged(d.DeviceId)
			out.Devices = append(out.Devices, d)
		}
	}
	for studio, n := range studios {
		out.Studios = append(out.Studios, &licensedv1.StudioState{StudioId: studio, ActiveLicenses: n})
	}
	out.Deactivations = uint32(v.deactivations())
	out.DeactivationLimit = limitOf(v.removalsBound().limit)
	p := v.places(nil)
	out.SelectionBinds, out.SelectionMade = p.bound, p.bound && s.chosen && p.exceeded()
	out.GraceUntil = v.graceUntil()
	v.eachDownload(func(int64) { out.MonthlyDownloads++ })
	out.Titles = v.describeTitles()
	out.Allowances = v.allowances()
	slices.SortFunc(out.Devices,
		func(a, b *licensedv1.DeviceState) int { return strings.Compare(a.DeviceId, b.DeviceId) })
	slices.SortFunc(out.Studios,
		func(a, b *licensedv1.StudioState) int { return strings.Compare(a.StudioId, b.StudioId) })
	slices.SortFunc(out.Licenses, func(a, b *licensedv1.LicenseState) int {
		return cmp.Or(strings.Compare(a.DeviceId, b.DeviceId), strings.Compare(a.TitleId, b.TitleId))
	})
	return out
}

// limitOf returns a limit as messages have it, nil if there is none.
func limitOf(l policy.Limit) *uint32 {
	if l == policy.Unlimited {
		return nil
	}
	n := uint32(l)
	return &n
}

// describeLicense returns one licence with its studio and times.
func (v view) describeLicense(l *license) *licensedv1.LicenseState {
	out := &licensedv1.LicenseState{
		DeviceId: v.state.devices[l.device].id, TitleId: v.state.titles[l.title], StudioId: v.state.studioOf(l),
		Active:     l.active(v.now),
		AcquiredAt: timestamp(l.acquired),
		ExpiresAt:  timestamp(l.expires),
		Renewals:   l.renewals,
		PlayHours:  optionalHours(l.playHours), FirstPlayedAt: optionalTime(l.played),
	}
	if l.released != 0 {
		out.ReleasedAt = timestamp(l.released)
	}
	return out
}

// describe returns one device; active is the number of its active licences.
func (d *device) describe(active uint32) *licensedv1.DeviceState {
	return &licensedv1.DeviceState{
		DeviceId: d.id, Active: !d.deactivated, ActiveLicenses: active, LastUsedAt: timestamp(d.seen),
		LastDownloadAt: optionalTime(d.downloaded), ActivatedAt: optionalTime(d.activation.at), HighestNumber: d.synced,
		Selected: d.selected, DeviceName: d.name, DeviceType: d.kind,
	}
}

// describeTitles counts the uses of the last 365 days.
func (v view) describeTitles() []*licensedv1.TitleState {
	var out []*licensedv1.TitleState
	byTitle := make([]*licensedv1.TitleState, len(v.state.titles))
	for i := range v.state.licenses {
		l := &v.state.licenses[i]
		for _, u := range l.uses {
			if u.at() <= v.now-window {
				continue
			}
			t := byTitle[l.title]
			if t == nil {
				t = &licensedv1.TitleState{TitleId: v.state.titles[l.title]}
				byTitle[l.title] = t
				out = append(out, t)
			}
			if u.playback() {
				t.CountedPlaybacks++
			} else {
				t.Downloads++
			}
		}
	}
	slices.SortFunc(out, func(a, b *licensedv1.TitleState) int { return strings.Compare(a.TitleId, b.TitleId) })
	return out
}
