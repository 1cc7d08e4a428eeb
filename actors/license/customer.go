package license

import (
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/actors/license/policy"
	"licensed/messages/licensedv1"
)

// entry is one of the lists of GetCustomerResponse.
type entry struct {
	place
	add func(*licensedv1.GetCustomerResponse)
}

// Lists of GetCustomerResponse in the order of its pages: the time of a place says which list it is of.
const (
	entryDevice = int64(iota)
	entryLicense
	entryTitle
	entryStudio
)

// customer answers GetCustomer, without customer id and sequence.
func (v view) customer(q *licensedv1.GetCustomer) (*licensedv1.GetCustomerResponse, error) {
	s := v.state
	res := &licensedv1.GetCustomerResponse{AsOf: timestamp(v.now)}
	plan, devices := v.devicesBound()
	res.PlanId, res.DefaultPlan = plan, s.plan != plan
	res.Exceptions = v.listExceptions()
	res.PlanChangedAt = optionalTime(s.choice.at)
	res.DevicesInUse = v.devicesQuota(uint32(devices.limit))
	var deactivations []int64
	for _, at := range s.deactivations {
		if at > v.now-window {
			deactivations = append(deactivations, at+window)
		}
	}
	res.Deactivations = v.quota(deactivations, view.removalsBound)
	res.GraceUntil = v.graceUntil()
	var downloads []int64
	v.eachDownload(func(at int64) { downloads = append(downloads, at+month) })
	res.MonthlyDownloads = v.quota(downloads, view.monthlyBound)
	res.Allowances = v.allowances()
	all := v.entries()
	slices.SortFunc(all, func(a, b entry) int { return a.compare(b.place) })
	entries, next, err := page(customerList, all, q, func(e entry) place { return e.place })
	if err != nil {
		return nil, err
	}
	// Only entries of the page are turned into messages.
	for _, e := range entries {
		e.add(res)
	}
	res.NextPageToken = next
	return res, nil
}

// entries returns all entries of the lists, in any order.
func (v view) entries() []entry {
	s := v.state
	var all []entry
	for i := range s.devices {
		if !s.forgottenDevice(i, v.now) {
			all = append(all, entry{place{at: entryDevice, device: s.devices[i].id},
				func(res *licensedv1.GetCustomerResponse) { res.Devices = append(res.Devices, v.customerDevice(i)) }})
		}
	}
	titles, studios := make([]bool, len(s.titles)), make(map[string][]int64)
	for i := range s.licenses {
		l := &s.licenses[i]
		if l.forgotten(v.now) {
			continue
		}
		titles[l.title] = true
		if l.active(v.now) {
			studios[s.studioOf(l)] = append(studios[s.studioOf(l)], l.expires)
		}
		all = append(all, entry{place{at: entryLicense, device: s.devices[l.device].id, title: s.titles[l.title]},
			func(res *licensedv1.GetCustomerResponse) { res.Licenses = append(res.Licenses, v.customerLicense(l)) }})
	}
	v.eachLent(0, func(_ *allowance, u unit, end int64) {
		studios[s.studios[u.studio]] = append(studios[s.studios[u.studio]], end)
	})
	v.eachLent(window, func(_ *allowance, u unit, _ int64) { titles[u.title] = true })
	for i, known := range titles {
		if known {
			all = append(all, entry{place{at: entryTitle, title: s.titles[i]},
				func(res *licensedv1.GetCustomerResponse) { res.Titles = append(res.Titles, v.customerTitle(i)) }})
		}
	}
	for studio, ends := range studios {
		all = append(all, entry{place{at: entryStudio, device: studio}, func(res *licensedv1.GetCustomerResponse) {
			res.Studios = append(res.Studios, &licensedv1.CustomerStudio{
				StudioId: studio, Licenses: v.quota(ends, func(v view) bound { return v.studioBound(studio) }),
			})
		}})
	}
	return all
}

// graceUntil returns until when devices that do not stay may renew; nil if there are none or they may not.
func (v view) graceUntil() *timestamppb.Timestamp {
	if p := v.places(nil); v.now < v.state.grace && p.exceeded() {
		return timestamp(v.state.grace)
	}
	return nil
}

// customerDevice returns a device with the use of the plan's limit of titles.
func (v view) customerDevice(i int) *licensedv1.Device {
	var ends []int64
	for j := range v.state.licenses {
		if l := &v.state.licenses[j]; int(l.device) == i && l.active(v.now) {
			ends = append(ends, l.expires)
		}
	}
	d := v.deviceMessage(i)
	d.Licenses = v.quota(append(ends, v.lentTo(i)...), view.deviceTitlesBound)
	return d
}

// customerLicense returns a licence with its status.
func (v view) customerLicense(l *license) *licensedv1.CustomerLicense {
	out := &licensedv1.CustomerLicense{
		License: v.licenseMessage(l), Status: licensedv1.LicenseStatus_LICENSE_STATUS_EXPIRED,
		FirstPlayedAt: optionalTime(l.played),
	}
	switch {
	case l.released != 0:
		out.Status = licensedv1.LicenseStatus_LICENSE_STATUS_RELEASED
	case l.active(v.now):
		out.Status = licensedv1.LicenseStatus_LICENSE_STATUS_ACTIVE
	}
	return out
}

// customerTitle returns the use of a title.
func (v view) customerTitle(i int) *licensedv1.CustomerTitle {
	title := v.policy.Title(v.state.titles[i])
	out := &licensedv1.CustomerTitle{TitleId: v.state.titles[i], StudioId: title.Studio}
	v.eachUse(i, func(_ *license, u use) {
		if u.playback() {
			out.CountedPlaybacks++
		} else {
			out.Downloads++
		}
	})
	out.Yearly = v.yearlyQuota(i, out.TitleId)
	return out
}

// yearlyQuota returns the use of a title's yearly limit.
func (v view) yearlyQuota(title int, titleID string) *licensedv1.Quota {
	var ends []int64
	v.eachUse(title, func(_ *license, u use) {
		if counted(u, v.policy.Counts()) {
			ends = append(ends, u.at()+window)
		}
	})
	return v.quota(append(ends, v.lentOfTitle(title)...), func(v view) bound { return v.yearlyBound(titleID) })
}

// devicesQuota returns the use of the plan's limit. Left are the places that a further device can take: none that is
// kept for a device that stays.
func (v view) devicesQuota(limit uint32) *licensedv1.Quota {
	p := v.places(nil)
	left := uint32(max(0, int(limit)-p.taken(-1)))
	q := &licensedv1.Quota{Used: uint32(p.n), Limit: &limit, Left: &left}
	if left > 0 {
		return q
	}
	for _, at := range v.turns("", licensedv1.Rule_RULE_DEVICE_LIMIT) {
		later := v.at(at).places(nil)
		if later.free(-1) {
			q.NextAt = timestamp(at)
			break
		}
	}
	return q
}

// quota returns the use of a limit: each use ends at one of the times, whose order is changed.
func (v view) quota(ends []int64, of func(view) bound) *licensedv1.Quota {
	q := &licensedv1.Quota{Used: uint32(len(ends))}
	limit := of(v).limit
	if limit == policy.Unlimited {
		return q
	}
	n, left := uint32(limit), uint32(max(0, int64(limit)-int64(len(ends))))
	if q.Limit, q.Left = &n, &left; left > 0 {
		return q
	}
	slices.Sort(ends)
	times := ends
	if v.state.rare != nil { // The limit may change by then.
		times = slices.Concat(ends, v.exceptionEnds())
		slices.Sort(times)
	}
	for _, at := range times {
		later, _ := slices.BinarySearch(ends, at+1) // those up to there ended
		if !of(v.at(at)).limit.Met(len(ends) - later) {
			q.NextAt = timestamp(at)
			break
		}
	}
	return q
}
