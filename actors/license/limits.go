package license

import (
	"time"

	"licensed/actors/license/policy"
	"licensed/internal/planted"
	"licensed/messages/licensedv1"
)

// Limits returns the limits of a policy, for people who look at the service.
func Limits(p *policy.Policy) *licensedv1.PolicyLimits {
	standard, _ := p.InForce("")
	unlisted := p.Unlisted()
	out := &licensedv1.PolicyLimits{
		StudioLicenses:      limitOf(p.OtherStudios()),
		ListedTitles:        uint64(p.Listed()),
		UnlistedStudioId:    unlisted.Studio,
		UnlistedYearly:      limitOf(unlisted.YearlyLimit),
		YearlyCounts:        licensedv1.YearlyCounts(p.Counts()),
		Deactivations:       limitOf(p.Deactivations()),
		LicenseDays:         uint32(p.Period().Milliseconds() / day),
		RememberedLicenses:  p.Remembered(),
		PlayHours:           optionalHours(p.PlayHours()),
		RenewAfterPlay:      p.RenewAfterPlay(),
		EndWithinDays:       limitOf(p.EndWithin()),
		ProvisionalRenewals: uint32(p.Provisional().Renewals),
		ProvisionalHours:    uint32(p.Provisional().For / time.Hour),
	}
	if keep, ok := p.History(); !ok {
		out.HistoryByNode = true
	} else if keep > 0 {
		days := uint32(keep / (24 * time.Hour))
		out.HistoryDays = &days
	}
	for _, id := range p.Plans() {
		plan := p.PlanLimits(id)
		out.Plans = append(out.Plans, &licensedv1.PlanLimits{
			PlanId: id, Devices: plan.Devices, DefaultPlan: id == standard,
			TitlesPerDevice:   limitOf(plan.TitlesPerDevice),
			DownloadsPerMonth: limitOf(plan.MonthlyDownloads),
			GraceDays:         limitOf(plan.GraceDays),
			Allowances:        allowanceLimits(p.Allowances(id)),
		})
	}
	for _, id := range p.Studios() {
		studio := &licensedv1.StudioLimits{StudioId: id, Licenses: limitOf(p.Studio(id))}
		switch hours := p.StudioPlayHours(id); hours {
		case 0: // the default holds
		case policy.Unlimited:
			studio.PlayHours = new(uint32)
		default:
			studio.PlayHours = limitOf(hours)
		}
		out.Studios = append(out.Studios, studio)
	}
	return out
}

// allowanceLimits returns what may be lent as messages have it, nil for nothing.
func allowanceLimits(a policy.Allowances) *licensedv1.AllowanceLimits {
	if a.Downloads == 0 {
		return nil
	}
	return &licensedv1.AllowanceLimits{
		Downloads: a.Downloads, Allowances: a.Allowances, Hours: uint32(a.For / time.Hour),
	}
}

// eachLent calls fn for each unit that a rule counts at this time, with the time from which on it does not. A rule that
// counts active licences looks back 0. What was downloaded within an allowance may become known after its end. So a
// rule that looks back further counts the unit until no download within it would count.
func (v view) eachLent(back int64, fn func(a *allowance, u unit, end int64)) {
	for i := range v.state.allowances {
		a := &v.state.allowances[i]
		end := a.until + back
		if planted.Bug(planted.ReturnAtExpiry) {
			end = a.until
		}
		if v.now >= end || planted.Bug(planted.ForgetReservation) {
			continue
		}
		for _, u := range a.units {
			fn(a, u, end)
		}
	}
}

// lentOf returns when the units that match end, as active licences.
func (v view) lentOf(match func(a *allowance, u unit) bool) (ends []int64) {
	v.eachLent(0, func(a *allowance, u unit, end int64) {
		if match(a, u) {
			ends = append(ends, end)
		}
	})
	return ends
}

// lentTo returns when the units that are lent to a device end.
func (v view) lentTo(device int) []int64 {
	return v.lentOf(func(a *allowance, _ unit) bool { return int(a.device) == device })
}

// lentOfStudio returns when the units of a studio end.
func (v view) lentOfStudio(studio string) []int64 {
	return v.lentOf(func(_ *allowance, u unit) bool { return v.state.studios[u.studio] == studio })
}

// lentOfTitle returns when the units of a title end, as what counts against its yearly limit.
func (v view) lentOfTitle(title int) (ends []int64) {
	if v.policy.Counts()&policy.Downloads == 0 {
		return nil
	}
	v.eachLent(window, func(_ *allowance, u unit, end int64) {
		if int(u.title) == title {
			ends = append(ends, end)
		}
	})
	return ends
}
