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
plans: {two: {devices: 2}, one: {devices: 1, titles_per_device: 3, downloads_per_month: 0, grace_days: 7}}
studios:
  a: {downloads: unlimited, hours_after_first_play: unlimited}
  b: {downloads: 3, hours_after_first_play: 24}
  c: {downloads: 1}
titles: {x: {studio: a, yearly_limit: 1}}
defaults: {studio: others, yearly_limit: 4, hours_after_first_play: 48, end_within_days: 2}
renew_after_play: true
history_days: 30
provisional_renewals: 3
provisional_hours: 12
yearly_counts: both
deactivations_per_year: 0
licence_days: 7
remembered_licences: 100
`))))
	want := &licensedv1.PolicyLimits{
		Plans: []*licensedv1.PlanLimits{
			{
				PlanId: "one", Devices: 1, TitlesPerDevice: proto.Uint32(3), DownloadsPerMonth: proto.Uint32(0),
				GraceDays: proto.Uint32(7),
			},
			{PlanId: "two", Devices: 2, DefaultPlan: true},
		},
		Studios: []*licensedv1.StudioLimits{
			{StudioId: "a", PlayHours: proto.Uint32(0)},
			{StudioId: "b", Licenses: proto.Uint32(3), PlayHours: proto.Uint32(24)},
			{StudioId: "c", Licenses: proto.Uint32(1)},
		},
		// No limit for other studios.
		ListedTitles: 1, UnlistedStudioId: "others", UnlistedYearly: proto.Uint32(4),
		YearlyCounts:  licensedv1.YearlyCounts_YEARLY_COUNTS_BOTH,
		Deactivations: proto.Uint32(0), LicenseDays: 7, RememberedLicenses: 100,
		PlayHours: proto.Uint32(48), RenewAfterPlay: true, EndWithinDays: proto.Uint32(2),
		ProvisionalRenewals: 3, ProvisionalHours: 12, HistoryDays: proto.Uint32(30),
	}
	if !proto.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}
