package check

import (
	"strings"

	"licensed/test/chaos/history"
	"licensed/test/chaos/model"
)

// tally counts from the events alone, without deciding anything: a second opinion beside the model.
type tally struct {
	rules         *model.Rules
	plan          string
	active        map[string]string // licence to studio
	uses          map[string]int    // of a title
	deactivations int
}

// limits checks that no event raised a count above the limit then in force. A plan that shrinks leaves
// the count of devices above its limit; then it must not rise further.
func (k *checker) limits() {
	t := &tally{rules: k.rules, plan: k.rules.DefaultPlan, active: map[string]string{}, uses: map[string]int{}}
	for i := range k.recorded.Events {
		e := &k.recorded.Events[i]
		before := t.devices()
		t.add(e)
		device, title, _ := strings.Cut(e.Aggregate, "/")
		if n, limit := t.devices(), int(k.rules.Plans[t.plan].Devices); n > before && n > limit {
			k.fail(Limits, "event %d makes %s the device number %d of %d", e.Sequence, device, n, limit)
		}
		if e.Name == "LicenseAcquired" {
			studio := t.active[e.Aggregate]
			if n, limit := t.ofStudio(studio), k.rules.Studios[studio]; limit != model.Unlimited && n > limit {
				k.fail(Limits, "event %d is active licence number %d of studio %s, whose limit is %d",
					e.Sequence, n, studio, limit)
			}
		}
		if e.Name == "TitleDownloaded" || e.Name == "TitlePlayed" {
			if n, limit := t.uses[title], k.rules.Titles[title].Yearly; limit != model.Unlimited && n > limit {
				k.fail(Limits, "event %d is use number %d of %s, whose limit is %d", e.Sequence, n, title, limit)
			}
		}
		if limit := k.rules.Deactivations; e.Name == "DeviceDeactivated" && limit != model.Unlimited &&
			t.deactivations > limit {
			k.fail(Limits, "event %d is deactivation number %d of %d", e.Sequence, t.deactivations, limit)
		}
	}
}

func (t *tally) add(e *history.Event) {
	device, title, _ := strings.Cut(e.Aggregate, "/")
	switch e.Name {
	case "LicenseAcquired":
		t.active[e.Aggregate] = t.rules.Titles[title].Studio
	case "LicenseReleased":
		delete(t.active, e.Aggregate)
	case "TitleDownloaded", "TitlePlayed":
		t.uses[title]++
	case "DeviceDeactivated":
		if t.inUse(device) {
			t.deactivations++
		}
	case "PlanChanged":
		t.plan = e.Plan
	}
}

// inUse reports whether a device has active licences: only then its deactivation counts.
func (t *tally) inUse(device string) bool {
	for id := range t.active {
		if of, _, _ := strings.Cut(id, "/"); of == device {
			return true
		}
	}
	return false
}

func (t *tally) devices() int {
	in := map[string]bool{}
	for id := range t.active {
		device, _, _ := strings.Cut(id, "/")
		in[device] = true
	}
	return len(in)
}

func (t *tally) ofStudio(studio string) (n int) {
	for _, s := range t.active {
		if s == studio {
			n++
		}
	}
	return n
}
