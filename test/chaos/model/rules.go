// Package model says what the licence service must do, in the plainest way.
//
// # The model
//
// [State] is one customer, [State.Apply] is one command: what must come of it, and the state after it.
// It is written from docs/guide/licence-rules.md and shares no code with the product, so that the two are wrong
// in the same way only by coincidence. It is made for the length of a test run: it knows a title that
// cannot be had any more, but no licence that expires meanwhile and nothing that leaves the 365 days;
// [Rules.Check] holds it to that.
//
// Time is an argument, the time of the event, which only the history tells. Everything else that answers
// say follows from the commands before.
package model

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Unlimited is the limit that is never met.
const Unlimited = -1

// Title of the catalogue.
type Title struct {
	Studio string
	// Yearly limit of downloads and playbacks, or Unlimited.
	Yearly int
	// Until when it can be had, unix milliseconds; 0 forever.
	Until int64
	// Hours that a licence lasts from its first playback on; 0 if a playback ends nothing. It is not renewed then.
	Hours int
}

// Plan has the limits of a plan; Unlimited for none.
type Plan struct {
	Devices uint32
	// Titles on one device, and Downloads in 30 days.
	Titles, Downloads int
	// Grace is the number of days after a change to a smaller plan during which the devices that do not stay may
	// renew, and after which their licences end; Unlimited: they may not renew, and their licences keep their expiry.
	Grace int
}

// Rules are the policy of a run.
type Rules struct {
	Version string
	// Period of a licence.
	Period        time.Duration
	Deactivations int
	DefaultPlan   string
	Plans         map[string]Plan
	Studios       map[string]int
	Titles        map[string]Title
}

// Standard returns the rules of a run that starts at that time: limits that a handful of commands meets,
// one title that is gone, one that will be before its licence would; neither happens during the run.
func Standard(start time.Time) Rules {
	start = start.Truncate(time.Second) // as the file says it
	day := 24 * time.Hour
	return Rules{
		Version:       "chaos-" + start.UTC().Format("20060102-150405"),
		Period:        30 * day,
		Deactivations: 6,
		DefaultPlan:   "two",
		Plans: map[string]Plan{
			"one":   {Devices: 1, Titles: 3, Downloads: 20, Grace: Unlimited},
			"two":   {Devices: 2, Titles: Unlimited, Downloads: Unlimited, Grace: 4},
			"three": {Devices: 3, Titles: 4, Downloads: Unlimited, Grace: 5},
		},
		Studios: map[string]int{"few": 3, "some": 5, "many": 50},
		Titles: map[string]Title{
			"A": {Studio: "few", Yearly: 40},
			"B": {Studio: "some", Yearly: Unlimited},
			"C": {Studio: "few", Yearly: 6},
			"D": {Studio: "some", Yearly: 25},
			"E": {Studio: "some", Yearly: Unlimited},
			"F": {Studio: "many", Yearly: 3},
			"G": {Studio: "many", Yearly: Unlimited, Until: start.Add(10 * day).UnixMilli()},
			"I": {Studio: "many", Yearly: Unlimited, Hours: 72},
			"H": {Studio: "many", Yearly: 10, Until: start.Add(-day).UnixMilli()},
		},
	}
}

// Check says whether the model covers a run of that length, from that time on.
func (r *Rules) Check(start time.Time, run time.Duration) error {
	const margin = 24 * time.Hour // for clocks that are made to jump
	if run+margin >= r.Period {
		return fmt.Errorf("a run of %v may see licences of %v expire, which the model does not know", run, r.Period)
	}
	from, to := start.Add(-margin), start.Add(run+margin)
	for _, id := range slices.Sorted(maps.Keys(r.Titles)) {
		until := time.UnixMilli(r.Titles[id].Until)
		if r.Titles[id].Until != 0 && until.After(from) && until.Before(to) {
			return fmt.Errorf("title %s is available until %s, a day or less from a run of %v that starts now, "+
				"which may see its licences expire: "+
				"the model does not know that, take a policy with another available_until", id,
				until.UTC().Format(time.RFC3339), run)
		}
		if h := r.Titles[id].Hours; h != 0 && run+margin >= time.Duration(h)*time.Hour {
			return fmt.Errorf("a run of %v may see licences of title %s expire %d hours after a playback, which the "+
				"model does not know", run, id, h)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(r.Plans)) {
		if days := r.Plans[id].Grace; days != Unlimited && run+margin >= time.Duration(days)*24*time.Hour {
			return fmt.Errorf("a run of %v may see the grace of plan %s end, which the model does not know", run, id)
		}
	}
	return nil
}

// YAML returns the rules as a policy file of the service.
func (r *Rules) YAML() string {
	var b strings.Builder
	fmt.Fprintf(&b, "version: %q\nlicence_days: %d\nyearly_counts: both\n", r.Version, int(r.Period.Hours()/24))
	fmt.Fprintf(&b, "deactivations_per_year: %s\ndefault_plan: %s\nplans:\n", limit(r.Deactivations), r.DefaultPlan)
	for _, id := range slices.Sorted(maps.Keys(r.Plans)) {
		p := r.Plans[id]
		fmt.Fprintf(&b, "  %s: {devices: %d, titles_per_device: %s, downloads_per_month: %s, grace_days: %s}\n", id,
			p.Devices, limit(p.Titles), limit(p.Downloads), limit(p.Grace))
	}
	b.WriteString("studios:\n")
	for _, id := range slices.Sorted(maps.Keys(r.Studios)) {
		fmt.Fprintf(&b, "  %s: {downloads: %s}\n", id, limit(r.Studios[id]))
	}
	b.WriteString("titles:\n")
	for _, id := range slices.Sorted(maps.Keys(r.Titles)) {
		t := r.Titles[id]
		fmt.Fprintf(&b, "  %s: {studio: %s, yearly_limit: %s", id, t.Studio, limit(t.Yearly))
		if t.Hours != 0 {
			fmt.Fprintf(&b, ", hours_after_first_play: %d", t.Hours)
		}
		if t.Until != 0 {
			fmt.Fprintf(&b, ", available_until: %s", time.UnixMilli(t.Until).UTC().Format("2006-01-02T15:04:05Z"))
		}
		b.WriteString("}\n")
	}
	return b.String()
}

func limit(n int) string {
	if n == Unlimited {
		return "unlimited"
	}
	return fmt.Sprint(n)
}
