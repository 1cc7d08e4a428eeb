package license

import (
	"time"

	"licensed/actors/license/policy"
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
