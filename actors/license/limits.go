package license

import (
	"licensed/actors/license/policy"
	"licensed/messages/licensedv1"
)

// Limits returns the limits of a policy, for people who look at the service.
func Limits(p *policy.Policy) *licensedv1.PolicyLimits {
	standard, _ := p.InForce("")
	unlisted := p.Unlisted()
	out := &licensedv1.PolicyLimits{
		StudioLicenses:     limitOf(p.OtherStudios()),
		ListedTitles:       uint64(p.Listed()),
		UnlistedStudioId:   unlisted.Studio,
		UnlistedYearly:     limitOf(unlisted.YearlyLimit),
		YearlyCounts:       licensedv1.YearlyCounts(p.Counts()),
		Deactivations:      limitOf(p.Deactivations()),
		LicenseDays:        uint32(p.Period().Milliseconds() / day),
		RememberedLicenses: p.Remembered(),
	}
	for _, id := range p.Plans() {
		devices, _ := p.Plan(id)
		out.Plans = append(out.Plans, &licensedv1.PlanLimits{PlanId: id, Devices: devices, DefaultPlan: id == standard})
	}
	for _, id := range p.Studios() {
		out.Studios = append(out.Studios, &licensedv1.StudioLimits{StudioId: id, Licenses: limitOf(p.Studio(id))})
	}
	return out
}
