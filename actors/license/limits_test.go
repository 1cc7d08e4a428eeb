package license

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"licensed/actors/license/policy"
	"licensed/messages/licensedv1"
)

func TestLimits(t *testing.T) {
	got := Limits(must(policy.Parse("p", []byte(`
default_plan: two
plans: {two: {devices: 2}, one: {devices: 1}}
studios: {b: {downloads: 3}, a: {downloads: unlimited}}
titles: {x: {studio: a, yearly_limit: 1}}
defaults: {studio: others, yearly_limit: 4}
yearly_counts: both
deactivations_per_year: 0
licence_days: 7
remembered_licences: 100
`))))
	want := &licensedv1.PolicyLimits{
		Plans:   []*licensedv1.PlanLimits{{PlanId: "one", Devices: 1}, {PlanId: "two", Devices: 2, DefaultPlan: true}},
		Studios: []*licensedv1.StudioLimits{{StudioId: "a"}, {StudioId: "b", Licenses: proto.Uint32(3)}},
		// No limit for other studios.
		ListedTitles: 1, UnlistedStudioId: "others", UnlistedYearly: proto.Uint32(4),
		YearlyCounts:  licensedv1.YearlyCounts_YEARLY_COUNTS_BOTH,
		Deactivations: proto.Uint32(0), LicenseDays: 7, RememberedLicenses: 100,
	}
	if !proto.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}
