package license

import (
	"slices"
	"strings"

	"licensed/actors"
	"licensed/messages/licensedv1"
)

// Evolve makes the state what it is after an event, decided now or read from history. Values of other
// types than the events of this package count as the last event and change nothing else. The state
// keeps strings of the event, and nothing else of it.
func Evolve(s *State, e actors.Event) {
	at := max(e.Time.UnixMilli(), s.last) // the runtime's clock of an aggregate never goes back
	s.last = at
	switch v := e.Value.(type) {
	case *licensedv1.DeviceActivated:
		d := s.see(e.AggregateID, at)
		if e.Order == 0 { // The device is new or was forgotten.
			d.synced, d.downloaded, d.name, d.kind = 0, 0, "", 0
		}
		// A device that was forgotten begins anew, whether a snapshot has dropped it or not.
		d.selected = d.selected && e.Order > 0
		d.deactivated, d.order = false, e.Order+1
		d.activation = intentOf(at, v.GetIssuedAtMs())
		s.ownDevice(e.AggregateID)
	case *licensedv1.DeviceLabeled:
		s.labeled(e.AggregateID, e.Order, v)
	case *licensedv1.DeviceDeactivated:
		d := s.see(e.AggregateID, at)
		// Its place is free: another choice may be made.
		s.chosen = s.chosen && !d.selected
		d.deactivated, d.selected, d.order = true, false, e.Order+1
		if v.GetRemoval() != nil && !v.GetRemoval().GetCounted() {
			break
		}
		// The oldest leave first: what is dropped is beyond what any limit counts.
		if s.deactivations = append(s.deactivations, at); len(s.deactivations) > maxCounted {
			s.deactivations = s.deactivations[1:]
		}
	case *licensedv1.PlanChanged:
		s.plan, s.order, s.grace = v.GetPlanId(), e.Order+1, v.GetGraceUntilMs()
		s.choice = intentOf(at, v.GetIssuedAtMs())
		s.selectDevices(v.GetStayingDeviceIds(), len(v.GetStayingDeviceIds()) > 0, false)
	case *licensedv1.DevicesSelected:
		s.order = e.Order + 1
		s.selectDevices(v.GetStayingDeviceIds(), v.GetBinding(), v.GetChosen())
	case *licensedv1.ExceptionGranted:
		s.order = e.Order + 1
		s.granted(v.GetException(), at)
	case *licensedv1.ExceptionWithdrawn:
		s.order = e.Order + 1
		s.withdrawn(v.GetException(), at)
	case *licensedv1.CommandAccepted:
		s.order = e.Order + 1
		s.confirm(v, at)
	case *licensedv1.CommandRefused:
		s.order = e.Order + 1
	default:
		if o := occurrenceOf(e.Value); o != nil {
			s.evolveFact(e, o, at)
		} else if !s.evolveAllowance(e, at) {
			s.evolveLicense(e, at)
		}
	}
}

// evolveLicense applies an event of one licence; "device/title" is its aggregate id.
func (s *State) evolveLicense(e actors.Event, at int64) {
	deviceID, titleID, ok := strings.Cut(e.AggregateID, "/")
	if !ok {
		return
	}
	var l *license
	switch v := e.Value.(type) {
	case *licensedv1.LicenseCreated:
		l = s.hold(deviceID, titleID)
	case *licensedv1.LicenseAcquired:
		l = s.hold(deviceID, titleID)
		// 0 stands for a licence that never had a studio.
		l.studio = intern(&s.studios, v.GetStudioId()) + 1
		l.begin(at, at)
		l.acquired, l.expires, l.released, l.renewals = at, v.GetExpiresAtMs(), 0, 0
		l.meant = intentOf(at, v.GetIssuedAtMs()).meant
		l.grant(at, v.GetPlayHours())
		s.see(deviceID, at)
	case *licensedv1.LicenseRenewed:
		l = s.hold(deviceID, titleID)
		if l.released == 0 && !l.active(at) {
			l.begin(at, at)
		}
		l.expires, l.renewals = v.GetLicense().GetExpiresAtMs(), v.GetLicense().GetRenewals()
		l.grant(at, v.GetLicense().GetPlayHours())
		s.see(deviceID, at)
	case *licensedv1.LicenseShortened:
		l = s.hold(deviceID, titleID)
		l.expires = min(l.expires, v.GetLicense().GetExpiresAtMs())
	case *licensedv1.LicenseReleased:
		l = s.hold(deviceID, titleID)
		l.released = at
	case *licensedv1.TitleDownloaded:
		l = s.hold(deviceID, titleID)
		l.use(newUse(at, false))
		if v.GetLicense() != nil { // otherwise the download of an acquisition
			l.confirm(at, v.GetIssuedAtMs())
		}
		s.see(deviceID, at).downloaded = at
	case *licensedv1.TitlePlayed:
		l = s.hold(deviceID, titleID)
		if v.GetCounted() {
			l.use(newUse(at, true))
		}
		if v.GetStartsHours() {
			l.play(at)
		}
		s.see(deviceID, at)
	default:
		return
	}
	// The next event of the licence gets the number after this one.
	l.order = e.Order + 1
}

// selectDevices makes these devices those that stay.
func (s *State) selectDevices(ids []string, bound, chosen bool) {
	s.bound, s.chosen = bound, chosen
	for i := range s.devices {
		s.devices[i].selected = slices.Contains(ids, s.devices[i].id)
	}
}

// see returns a device, used now.
func (s *State) see(id string, at int64) *device {
	i := s.device(id)
	if i < 0 {
		i = len(s.devices)
		s.devices = append(s.devices, device{id: id})
	}
	s.devices[i].seen = at
	return &s.devices[i]
}

// hold returns the licence of a device for a title, and makes one if there is none.
func (s *State) hold(deviceID, titleID string) *license {
	device := s.device(deviceID)
	if device < 0 {
		s.see(deviceID, s.last)
		device = len(s.devices) - 1
	}
	title := intern(&s.titles, titleID)
	i := s.license(device, int(title))
	if i < 0 {
		i = len(s.licenses)
		s.licenses = append(s.licenses, license{device: uint32(device), title: title})
	}
	return &s.licenses[i]
}

// use adds a download or a counted playback, and drops the oldest of its sort if there are too many.
func (l *license) use(u use) {
	i := len(l.uses)
	for i > 0 && l.uses[i-1].at() > u.at() { // reported late
		i--
	}
	l.uses = slices.Insert(l.uses, i, u)
	if len(l.uses) <= maxCounted {
		return
	}
	n, oldest := 0, 0
	for i := len(l.uses) - 1; i >= 0; i-- {
		if l.uses[i].playback() == u.playback() {
			n++
			oldest = i
		}
	}
	if n > maxCounted {
		l.uses = slices.Delete(l.uses, oldest, oldest+1)
	}
}
