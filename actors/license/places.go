package license

import (
	"cmp"
	"slices"
	"strings"

	"licensed/messages/licensedv1"
)

// places says which devices may hold active licences. A plan has as many places as its limit says, and no command
// makes the devices in use more than that. Below the limit any device may take a place.
//
// A plan that shrank may leave more devices in use than it has places. Then a selection binds: the selected devices
// stay, and the others that are in use, the leftovers, neither acquire nor renew. While there are leftovers, a
// selected device that is not in use keeps its place free of others, but does not take it before a leftover makes
// room. A selection ends when a device that is not selected finds a free place.
//
// Where a plan is exceeded without a selection, because the policy was changed or by a plan that was changed under an
// earlier release, the devices used last stay, and the first of them that acquires or renews makes that a selection.
type places struct {
	view
	plan  string
	limit uint32
	// exception is the one that the limit comes from, nil for the policy.
	exception *licensedv1.Exception
	inUse     []bool
	n         int // devices in use
	// bound says that the selected devices come first, idle that they keep their places while they are not in use.
	bound, idle bool
	// leftovers are the devices in use that are not selected while a selection binds, reserved the selected ones
	// that are not in use.
	leftovers, reserved int
}

// places looks at the devices. The space is used if it is large enough for all devices.
func (v view) places(space []bool) places {
	p := places{view: v}
	plan, b := v.devicesBound()
	p.plan, p.limit, p.exception = plan, uint32(b.limit), b.exception
	p.inUse, p.n = v.inUse(space)
	// A selection of which every device is forgotten binds nobody.
	for i := range v.state.devices {
		p.bound = p.bound || v.state.bound && p.selected(i)
	}
	if p.idle = p.bound; p.bound {
		for i := range v.state.devices {
			switch selected := p.selected(i); {
			case selected && !p.inUse[i]:
				p.reserved++
			case !selected && p.inUse[i]:
				p.leftovers++
			}
		}
	}
	return p
}

// selected reports whether a device is selected to stay; one of which nothing is known, -1, is not.
func (p *places) selected(i int) bool {
	return i >= 0 && p.state.devices[i].selected && !p.state.forgottenDevice(i, p.now)
}

// used reports whether a device is in use; one of which nothing is known, -1, is not.
func (p *places) used(i int) bool { return i >= 0 && p.inUse[i] }

// others returns the number of devices in use other than this.
func (p *places) others(device int) int {
	if p.used(device) {
		return p.n - 1
	}
	return p.n
}

// free reports whether there is a place that other devices do not take.
func (p *places) free(device int) bool { return uint64(p.taken(device)) < uint64(p.limit) }

// taken returns the number of places that other devices take.
func (p *places) taken(device int) int {
	taken := p.others(device)
	if p.leftovers > 0 && !p.selected(device) {
		taken += p.reserved
	}
	return taken
}

// stays reports whether a device is one of those that stay while the plan is exceeded.
func (p *places) stays(device int) bool {
	if !p.candidate(device) {
		return false
	}
	before := 0
	for i := range p.state.devices {
		if i != device && p.candidate(i) && p.before(i, device) {
			before++
		}
	}
	return uint64(before) < uint64(p.limit)
}

// candidate reports whether a device may be one of those that stay.
func (p *places) candidate(i int) bool { return p.used(i) || p.idle && p.selected(i) }

// before orders the devices that may stay: the selected ones first, and then by last use.
func (p *places) before(i, j int) bool {
	if p.bound {
		if a, b := p.selected(i), p.selected(j); a != b {
			return a
		}
	}
	return p.state.usedAfter(i, j)
}

// staying returns the ids of the devices that stay, in alphabetical order.
func (p *places) staying() []string { return p.ids(p.stays) }

// selection returns the ids of the devices that are selected, in alphabetical order.
func (p *places) selection() []string { return p.ids(p.selected) }

// ids returns the ids of the devices that match, in alphabetical order.
func (p *places) ids(match func(device int) bool) (ids []string) {
	for i := range p.state.devices {
		if match(i) {
			ids = append(ids, p.state.devices[i].id)
		}
	}
	slices.Sort(ids)
	return ids
}

// deviceLimit says whether a device may be among those with active licences.
func (v view) deviceLimit(device int) violation {
	var few [32]bool
	p := v.places(few[:])
	if p.free(device) || p.used(device) && p.stays(device) {
		return violation{}
	}
	// Plan and exception are not taken from p, which would put its space on the heap.
	plan, b := v.devicesBound()
	r := violation{
		rule: licensedv1.Rule_RULE_DEVICE_LIMIT, limit: p.limit, current: uint32(p.n), plan: plan,
		exception: b.exception,
	}
	if p.used(device) && p.limit > 0 {
		r.rule = licensedv1.Rule_RULE_DEVICE_NOT_SELECTED
	}
	return r
}

// onGrace reports whether a device does not stay, but may renew for some time after the plan shrank.
func (v view) onGrace(device int) bool {
	if v.now >= v.state.grace {
		return false
	}
	var few [32]bool
	p := v.places(few[:])
	return p.used(device) && !p.free(device) && !p.stays(device)
}

// takePlace records what the acquisition or renewal of a device changes about the selection.
func (d *decider) takePlace(device int) {
	var few [32]bool
	p := d.places(few[:])
	switch {
	case !p.free(device):
		staying := p.staying()
		if !p.bound || !slices.Equal(staying, p.selection()) {
			d.addSelection(&licensedv1.DevicesSelected{
				StayingDeviceIds: staying, Binding: true, Chosen: p.bound && d.state.chosen,
			})
			d.endWithGrace(staying)
		}
	case p.bound && !p.selected(device):
		d.addSelection(&licensedv1.DevicesSelected{})
	}
}

// addSelection appends a selection after the other events of the command, which tell its outcome.
func (d *decider) addSelection(e *licensedv1.DevicesSelected) { d.add(customer, d.state.order, e) }

// shrunk returns the devices that stay under a plan of that limit, by id; none if it is not exceeded. Those that are
// selected come first, if the customer chose them or they are in use.
func (v view) shrunk(limit uint32) []string {
	p := v.places(nil)
	if p.limit = limit; !p.exceeded() {
		return nil
	}
	p.bound, p.idle = p.bound || v.state.chosen, v.state.chosen
	return p.staying()
}

// mayStay asks the rules of SelectDevices.
func (v view) mayStay(ids []string) (r refusal) {
	p := v.places(nil)
	for _, id := range ids {
		i := v.device(id)
		if i < 0 {
			return refusedBy(licensedv1.Rule_RULE_UNKNOWN_DEVICE)
		}
		if v.deactivated(i) {
			return refusedBy(licensedv1.Rule_RULE_DEVICE_DEACTIVATED)
		}
	}
	if uint64(len(ids)) > uint64(p.limit) {
		r.add(violation{
			rule: licensedv1.Rule_RULE_DEVICE_LIMIT, limit: p.limit, current: uint32(len(ids)), plan: p.plan,
			exception: p.exception,
		})
	}
	if p.exceeded() && p.bound && v.state.chosen && !slices.Equal(ids, p.selection()) {
		r.add(violation{
			rule: licensedv1.Rule_RULE_SELECTION_MADE, limit: p.limit, current: uint32(p.n), plan: p.plan,
			exception: p.exception,
		})
	}
	return r
}

// exceeded reports whether more devices are in use than the plan has places.
func (p *places) exceeded() bool { return uint64(p.n) > uint64(p.limit) }

// selectDevices decides SelectDevices.
func (d *decider) selectDevices(ids []string) {
	ids = slices.Compact(slices.Sorted(slices.Values(ids)))
	for _, id := range ids {
		mustBeID("device", id)
	}
	if r := d.mayStay(ids); r != nil {
		d.refuse(r, &licensedv1.CommandRefused{Command: licensedv1.CommandKind_COMMAND_KIND_SELECT_DEVICES},
			func(v view) refusal { return v.mayStay(ids) })
		return
	}
	p := d.places(nil)
	if slices.Equal(ids, p.selection()) && d.state.chosen && p.bound == p.exceeded() {
		d.add(customer, d.state.order, &licensedv1.CommandAccepted{
			Command:          licensedv1.CommandKind_COMMAND_KIND_SELECT_DEVICES,
			StayingDeviceIds: ids, Binding: p.bound,
		})
		return
	}
	d.addSelection(&licensedv1.DevicesSelected{StayingDeviceIds: ids, Binding: p.exceeded(), Chosen: true})
	if !p.exceeded() {
		return
	}
	// Those used last complete the choice.
	s := *d.state
	s.devices = slices.Clone(s.devices)
	s.selectDevices(ids, true, true)
	p = view{now: d.now, policy: d.policy, state: &s}.places(nil)
	d.endWithGrace(p.staying())
}

// endWithGrace ends the licences on devices that no longer stay with the grace, if that is still running.
func (d *decider) endWithGrace(staying []string) {
	if d.now < d.state.grace {
		d.shortenOthers(staying, d.state.grace)
	}
}

// removal returns what the deactivation of a device costs and frees.
func (v view) removal(device int) *licensedv1.Removal {
	p := v.places(nil)
	r := &licensedv1.Removal{
		Counted: p.inUse[device], Removals: uint32(v.deactivations()),
		DevicesInUse: uint32(p.others(device)), DeviceLimit: p.limit,
	}
	if len(v.lentTo(device)) > 0 { // its place stays reserved
		r.DevicesInUse = uint32(p.n)
	}
	if r.Counted {
		r.Removals++
	}
	r.Limit = limitOf(v.removalsBound().limit)
	return r
}

// devicesToFree returns the other devices in use whose licences could be released to make room for a device, the
// best choice first, and how many of them it takes: leftovers before selected devices, and then those used least
// recently. What is lent cannot be released.
func (v view) devicesToFree(device int) (ids []string, needed int) {
	s, p := v.state, v.places(nil)
	leftover := func(i int) bool { return p.bound && !p.selected(i) }
	var others []int
	leftovers := 0 // those that can be released
	for i := range s.devices {
		if p.used(i) && i != device && len(v.lentTo(i)) == 0 {
			others = append(others, i)
			if leftover(i) {
				leftovers++
			}
		}
	}
	slices.SortFunc(others, func(i, j int) int {
		if a, b := leftover(i), leftover(j); a != b {
			if a {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(s.devices[i].seen, s.devices[j].seen),
			strings.Compare(s.devices[j].id, s.devices[i].id))
	})
	needed = p.others(device) - int(p.limit) + 1
	if p.leftovers > 0 && !p.selected(device) {
		switch reserved := needed + p.reserved; {
		case reserved <= leftovers:
			// A selected device keeps its place when its licences are released, as long as there are leftovers.
			others, needed = others[:leftovers], reserved
		case p.used(device) || leftovers < p.leftovers:
			return nil, 0 // there will always be leftovers
		default:
			needed = max(needed, p.leftovers)
			others = others[:min(needed, len(others))]
		}
	}
	for _, i := range others {
		ids = append(ids, s.devices[i].id)
	}
	return ids, needed
}
