package demo

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/messages/licensedv1"
)

var (
	firstNames = []string{
		"alma", "bayley", "chen", "dario", "elif", "femi", "greta", "hugo", "ines", "jonas", "kiran", "lena", "mateo",
		"nadia", "oskar", "priya", "quentin", "rosa", "samir", "tove",
	}
	lastNames = []string{
		"abara", "berger", "costa", "dubois", "eriksen", "ferrari", "gupta", "haddad", "ivanova", "jansen", "kowalski",
	}
	phones  = []string{"iphone-14", "pixel-8", "galaxy-s23", "iphone-16", "pixel-10", "galaxy-s25"}
	screens = []string{"ipad", "macbook", "living-room-tv", "galaxy-tab", "surface"}
	plans   = []string{"basic", "standard", "standard", "premium"}
	tickets = []string{
		"the download broke off on the train, ticket %d", "the phone was stolen, police report shown, ticket %d",
		"the app lost its files in an update, ticket %d", "charged twice, goodwill, ticket %d",
	}
)

const (
	hour = time.Hour
	day  = 24 * hour
)

// household is a customer: a family with devices, a plan and a taste.
type household struct {
	*past
	id, plan string
	devices  []string // the one that is used most first
	series   [][]string
	episode  map[string]int // the next one of each series, by its first title
	pause    time.Duration  // between two evenings, about
	held     []download
	numbers  map[string]uint64 // of each device's last fact
}

// moveIn plans the first evening of a customer.
func (p *past) moveIn(n int) {
	h := &household{
		past: p, id: firstNames[n%len(firstNames)] + "-" + lastNames[(n+n/len(firstNames))%len(lastNames)],
		plan: plans[p.random.IntN(len(plans))], episode: map[string]int{}, numbers: map[string]uint64{},
		pause: p.between(4*day, 14*day),
	}
	if again := n / (len(firstNames) * len(lastNames)); again > 0 {
		h.id += fmt.Sprintf("-%d", again+1)
	}
	h.devices = []string{phones[p.random.IntN(3)]}
	for _, i := range p.random.Perm(len(screens))[:1+p.random.IntN(3)] {
		h.devices = append(h.devices, screens[i])
	}
	all := catalogue()
	for _, i := range p.random.Perm(len(all))[:6+p.random.IntN(3)] {
		h.series = append(h.series, all[i])
	}
	// Half of them were customers when the past began.
	begins := p.between(hour, 4*day)
	if p.chance(50) {
		begins = p.between(4*day, p.To.Sub(p.From)*3/4)
	}
	p.after(begins, h.join)
	p.after(begins+p.between(60*day, 300*day), h.newPhone)
	if p.chance(40) {
		p.after(begins+p.between(90*day, 330*day), h.changePlan)
	}
}

// join chooses a plan and has the first evening.
func (h *household) join(ctx context.Context) error {
	h.after(h.between(time.Minute, hour), h.evening)
	h.after(h.between(20*day, 60*day), h.journey)
	if h.plan == "standard" {
		return nil // It is the default.
	}
	return h.choose(ctx)
}

// choose sends the choice of the plan.
func (h *household) choose(ctx context.Context) error {
	_, _, err := say(ctx, h.past, h.service.ChangePlan, &licensedv1.ChangePlanRequest{
		CustomerId: h.id, PlanId: h.plan, CommandId: h.commandID(),
	})
	return err
}

// evening downloads what comes next on some device, and plans the next evening.
func (h *household) evening(ctx context.Context) error {
	h.after(h.pause/2+h.between(0, h.pause), h.evening)
	device := h.devices[min(h.random.IntN(len(h.devices)), h.random.IntN(len(h.devices)))]
	titles := h.series[h.random.IntN(len(h.series))]
	at := h.episode[titles[0]]
	h.episode[titles[0]] = (at + 1) % len(titles)
	d := download{device, titles[at]}
	h.after(h.between(10*time.Second, 3*time.Minute), func(ctx context.Context) error {
		return h.acquire(ctx, d, true)
	})
	return nil
}

// acquire downloads a title; if it is refused, the family does what families do.
func (h *household) acquire(ctx context.Context, d download, again bool) error {
	_, rule, err := say(ctx, h.past, h.service.AcquireLicense, &licensedv1.AcquireLicenseRequest{
		CustomerId: h.id, DeviceId: d.device, TitleId: d.title, CommandId: h.commandID(), NewDownload: true,
	})
	if err != nil {
		return err
	}
	if rule == licensedv1.Rule_RULE_UNSPECIFIED {
		if !slices.Contains(h.held, d) {
			h.held = append(h.held, d)
		}
		h.after(h.between(hour, 2*day), func(ctx context.Context) error { return h.play(ctx, d) })
		h.after(h.between(3*day, 25*day), func(ctx context.Context) error { return h.finish(ctx, d) })
		return nil
	}
	if !again {
		return nil
	}
	retry := func(d download) {
		h.after(h.between(time.Minute, 20*time.Minute), func(ctx context.Context) error {
			return h.acquire(ctx, d, false)
		})
	}
	switch {
	case rule == licensedv1.Rule_RULE_DEVICE_LIMIT && h.chance(20):
		retry(d)
		return h.remove(ctx, h.otherDevice(d.device))
	case rule == licensedv1.Rule_RULE_DEVICE_LIMIT:
		retry(download{h.devices[0], d.title})
	case rule == licensedv1.Rule_RULE_STUDIO_LIMIT && len(h.held) > 0:
		retry(d)
		return h.release(ctx, h.held[0])
	case rule == licensedv1.Rule_RULE_YEARLY_LIMIT && h.chance(8):
		retry(d)
		return h.except(ctx, &licensedv1.GrantExceptionRequest{
			Kind: &licensedv1.GrantExceptionRequest_Use{Use: &licensedv1.ForgivenUse{TitleId: d.title}},
		})
	case rule == licensedv1.Rule_RULE_DEACTIVATION_LIMIT, rule == licensedv1.Rule_RULE_DEVICE_DEACTIVATED:
		retry(download{h.devices[0], d.title})
	}
	return nil
}

// otherDevice returns a device with a licence that is not this one, or the last of the family.
func (h *household) otherDevice(than string) string {
	for _, d := range h.held {
		if d.device != than {
			return d.device
		}
	}
	return h.devices[len(h.devices)-1]
}

func (h *household) play(ctx context.Context, d download) error {
	if h.chance(40) {
		h.after(h.between(day, 6*day), func(ctx context.Context) error { return h.play(ctx, d) })
	}
	_, _, err := say(ctx, h.past, h.service.RecordPlayback, &licensedv1.RecordPlaybackRequest{
		CustomerId: h.id, DeviceId: d.device, TitleId: d.title, CommandId: h.commandID(),
	})
	return err
}

// finish deletes a title, keeps it for another month, or forgets it.
func (h *household) finish(ctx context.Context, d download) error {
	switch n := h.random.IntN(100); {
	case n < 70:
		return h.release(ctx, d)
	case n < 85:
		h.after(h.between(5*day, 20*day), func(ctx context.Context) error { return h.finish(ctx, d) })
		_, _, err := say(ctx, h.past, h.service.RenewLicense, &licensedv1.RenewLicenseRequest{
			CustomerId: h.id, DeviceId: d.device, TitleId: d.title, CommandId: h.commandID(),
		})
		return err
	}
	h.held = slices.DeleteFunc(h.held, func(o download) bool { return o == d }) // It expires.
	return nil
}

func (h *household) release(ctx context.Context, d download) error {
	h.held = slices.DeleteFunc(h.held, func(o download) bool { return o == d })
	_, _, err := say(ctx, h.past, h.service.ReleaseLicense, &licensedv1.ReleaseLicenseRequest{
		CustomerId: h.id, DeviceId: d.device, TitleId: d.title, CommandId: h.commandID(),
	})
	return err
}

// remove takes a device off the account. A family that may not do so again asks the support now and then.
func (h *household) remove(ctx context.Context, device string) error {
	_, rule, err := say(ctx, h.past, h.service.DeactivateDevice, &licensedv1.DeactivateDeviceRequest{
		CustomerId: h.id, DeviceId: device, CommandId: h.commandID(),
	})
	if err != nil {
		return err
	}
	switch {
	case rule == licensedv1.Rule_RULE_UNSPECIFIED:
		h.told.Removals++
		h.held = slices.DeleteFunc(h.held, func(d download) bool { return d.device == device })
	case rule == licensedv1.Rule_RULE_DEACTIVATION_LIMIT && h.chance(25):
		return h.except(ctx, &licensedv1.GrantExceptionRequest{
			Kind: &licensedv1.GrantExceptionRequest_Removal{Removal: &licensedv1.ForgivenRemoval{}},
		})
	}
	return nil
}

// except has the support grant an exception.
func (h *household) except(ctx context.Context, r *licensedv1.GrantExceptionRequest) error {
	r.CustomerId, r.CommandId = h.id, h.commandID()
	r.Reason = fmt.Sprintf(tickets[h.random.IntN(len(tickets))], 40000+h.random.IntN(9999))
	_, rule, err := say(ctx, h.past, h.service.GrantException, r)
	if rule == licensedv1.Rule_RULE_UNSPECIFIED && err == nil {
		h.told.Exceptions++
	}
	return err
}

// newPhone replaces the phone. Some families remove the former one, for some the support merges both.
func (h *household) newPhone(ctx context.Context) error {
	former, phone := h.devices[0], phones[3+h.random.IntN(3)]
	if slices.Contains(h.devices, phone) {
		return nil
	}
	h.devices[0] = phone
	switch n := h.random.IntN(100); {
	case n < 50:
		return h.remove(ctx, former)
	case n < 65:
		return h.except(ctx, &licensedv1.GrantExceptionRequest{Kind: &licensedv1.GrantExceptionRequest_Merge{
			Merge: &licensedv1.MergedDevice{OldDeviceId: former, NewDeviceId: phone},
		}})
	}
	return nil
}

// changePlan moves to another plan; a family with fewer devices than before selects those that stay.
func (h *household) changePlan(ctx context.Context) error {
	h.plan = plans[(slices.Index(plans, h.plan)+1+2*h.random.IntN(2))%len(plans)]
	if h.plan == "basic" || h.plan == "standard" {
		h.after(h.between(hour, 3*day), func(ctx context.Context) error {
			_, _, err := say(ctx, h.past, h.service.SelectDevices, &licensedv1.SelectDevicesRequest{
				CustomerId: h.id, DeviceIds: h.devices[:1], CommandId: h.commandID(),
			})
			return err
		})
	}
	return h.choose(ctx)
}

// journey is some days without a connection, on a device with downloads. What happened meanwhile arrives at its end,
// late.
func (h *household) journey(ctx context.Context) error {
	h.after(h.between(30*day, 90*day), h.journey)
	if len(h.held) == 0 {
		return nil
	}
	device, left := h.held[0].device, h.clock.Now()
	days := h.between(2*day, 8*day)
	h.after(days, func(ctx context.Context) error {
		var facts []*licensedv1.Fact
		for _, d := range h.held {
			if d.device != device {
				continue
			}
			h.numbers[device]++
			facts = append(facts, &licensedv1.Fact{
				Number: h.numbers[device], Kind: licensedv1.FactKind_FACT_KIND_PLAYED, TitleId: d.title,
				At: timestamppb.New(left.Add(h.between(hour, days-hour))),
			})
		}
		if len(facts) == 0 {
			return nil
		}
		if len(facts) > 1 && h.chance(50) { // The title seen last is deleted.
			h.numbers[device]++
			facts = append(facts, &licensedv1.Fact{
				Number: h.numbers[device], Kind: licensedv1.FactKind_FACT_KIND_DELETED,
				TitleId: facts[len(facts)-1].GetTitleId(), At: timestamppb.New(left.Add(days - hour/2)),
			})
		}
		answer, _, err := say(ctx, h.past, h.service.SyncDevice, &licensedv1.SyncDeviceRequest{
			CustomerId: h.id, DeviceId: device, CommandId: h.commandID(), Facts: facts,
			SentAt: timestamppb.New(h.clock.Now()),
		})
		h.told.LateFacts += int(answer.GetRecorded())
		return err
	})
	return nil
}

// String says what a past has.
func (t Told) String() string {
	return fmt.Sprintf("%d commands, %d refused, %d sent twice, %d removals of devices, "+
		"%d facts of devices that were offline, %d exceptions",
		t.Commands, t.Refused, t.Repeated, t.Removals, t.LateFacts, t.Exceptions)
}
