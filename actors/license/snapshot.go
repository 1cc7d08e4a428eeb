package license

import (
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"licensed/messages/licensedv1"
)

// snapshotMapper names the stored form of a state: licensedv1.LicenseSnapshot, version 4. A state without what version
// 3 lacks is stored as version 3, so that the release before reads it. That of version 2 is read as well.
const (
	snapshotMapper = "LicenseSnapshot/4"
	thirdMapper    = "LicenseSnapshot/3"
	formerMapper   = "LicenseSnapshot/2"
)

// mapper returns the event mapper of the state's snapshot.
func (s *State) mapper() string {
	if s.grace != 0 || s.lastAllowance != 0 || s.rare != nil ||
		slices.ContainsFunc(s.licenses, func(l license) bool { return l.playHours > 0 }) ||
		slices.ContainsFunc(s.devices, func(d device) bool { return d.name != "" || d.kind != 0 }) {
		return snapshotMapper
	}
	return thirdMapper
}

// maxTime bounds the times in a snapshot (the year 9999), far below where sums overflow.
const maxTime = 253_402_300_800_000

// errMalformed is all that decode says of contradictions: the bytes are damaged, or were
// never a snapshot.
var errMalformed = errors.New("malformed")

// encode returns the state as a licensedv1.LicenseSnapshot; equal states have equal bytes.
func (s *State) encode() []byte {
	// Messages and uses are allocated together: a customer has hundreds of them.
	devices := make([]licensedv1.LicenseSnapshot_Device, len(s.devices))
	licenses := make([]licensedv1.LicenseSnapshot_License, len(s.licenses))
	m := &licensedv1.LicenseSnapshot{
		PlanId: s.plan, TimeMs: s.last, Order: s.order, StudioIds: s.studios, TitleIds: s.titles,
		Devices:          make([]*licensedv1.LicenseSnapshot_Device, len(devices)),
		Licenses:         make([]*licensedv1.LicenseSnapshot_License, len(licenses)),
		DeactivatedAgoMs: make([]int64, len(s.deactivations)),
		SelectionBinds:   s.bound, SelectionChosen: s.chosen,
	}
	m.PlanChangedAgoMs, m.PlanIssuedAfterMs = s.choice.pack(s.last)
	if s.grace != 0 {
		m.GraceUntilAfterMs = proto.Int64(s.grace - s.last)
	}
	if s.rare != nil {
		m.Exceptions, m.ExceptionsGranted = s.rare.exceptions, s.rare.granted
	}
	for i := range s.devices {
		d, to := &s.devices[i], &devices[i]
		to.ActivatedAgoMs, to.IssuedAfterMs = d.activation.pack(s.last)
		to.Synced = d.synced
		to.DeviceId, to.Order, to.Deactivated, to.SeenAgoMs = d.id, d.order, d.deactivated, s.last-d.seen
		to.Selected, to.DeviceName, to.DeviceType = d.selected, d.name, d.kind
		if d.downloaded != 0 {
			to.DownloadedAgoMs = proto.Int64(s.last - d.downloaded)
		}
		m.Devices[i] = to
	}
	uses := make([]int64, s.uses())
	for i := range s.licenses {
		l, to := &s.licenses[i], &licenses[i]
		to.Device, to.Title, to.Order, to.Renewals = l.device, l.title, l.order, l.renewals
		if to.NeverAcquired = l.studio == 0; l.studio > 0 {
			to.Studio = l.studio - 1
		}
		// Times are distances, which have fewer bytes.
		to.AcquiredAgoMs = s.last - l.acquired
		to.ExpiresAfterDays, to.ExpiresAfterMs = (l.expires-l.acquired)/day, (l.expires-l.acquired)%day
		if l.released != 0 {
			to.ReleasedAfterMs = proto.Int64(l.released - l.acquired)
		}
		if to.PlayHours = l.playHours; l.playHours > 0 {
			to.GrantedAfterMs = l.granted - l.acquired
		}
		if l.played != 0 {
			to.PlayedAfterMs = proto.Int64(l.played - l.acquired)
		}
		l.packSpans(to)
		to.Uses, uses = uses[:len(l.uses):len(l.uses)], uses[len(l.uses):]
		for j, u := range l.uses {
			to.Uses[j] = int64(u - newUse(l.acquired, false))
		}
		m.Licenses[i] = to
	}
	for i, at := range s.deactivations {
		m.DeactivatedAgoMs[i] = s.last - at
	}
	s.packAllowances(m)
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(fmt.Sprintf("license: snapshot: %v", err)) // ids were checked to be UTF-8
	}
	return b
}

// decode returns the state that encode wrote. The state does not refer to data.
func decode(data []byte) (*State, error) {
	m := &licensedv1.LicenseSnapshot{}
	if err := proto.Unmarshal(data, m); err != nil {
		return nil, err
	}
	s := &State{
		plan: m.PlanId, last: m.TimeMs, order: m.Order, studios: m.StudioIds, titles: m.TitleIds,
		devices: make([]device, len(m.Devices)), licenses: make([]license, len(m.Licenses)),
		deactivations: m.DeactivatedAgoMs, bound: m.SelectionBinds, chosen: m.SelectionChosen,
	}
	// Everything is read before it is judged: no position or time is used without being
	// checked.
	valid, n := isTime(s.last), 0
	for _, l := range m.Licenses {
		n += len(l.Uses)
	}
	uses := make([]use, n)
	s.choice = unpackIntent(s.last, m.PlanChangedAgoMs, m.PlanIssuedAfterMs)
	if m.GraceUntilAfterMs != nil {
		s.grace = s.last + *m.GraceUntilAfterMs
	}
	valid = valid && s.choice.valid() && isTime(s.grace)
	for i, d := range m.Devices {
		to := &s.devices[i]
		to.id, to.order, to.deactivated, to.seen = d.DeviceId, d.Order, d.Deactivated, s.last-d.SeenAgoMs
		to.selected, to.name, to.kind = d.Selected, d.DeviceName, d.DeviceType
		if d.DownloadedAgoMs != nil {
			to.downloaded = s.last - *d.DownloadedAgoMs
		}
		to.activation, to.synced = unpackIntent(s.last, d.ActivatedAgoMs, d.IssuedAfterMs), d.Synced
		valid = valid && isTime(to.seen) && isTime(to.downloaded) && to.activation.valid() &&
			CheckDeviceName(to.name) == ""
	}
	for i, l := range m.Licenses {
		to := &s.licenses[i]
		to.device, to.title, to.order, to.renewals = l.Device, l.Title, l.Order, l.Renewals
		if !l.NeverAcquired {
			to.studio = l.Studio + 1
			valid = valid && int(l.Studio) < len(s.studios)
		}
		to.acquired = s.last - l.AcquiredAgoMs
		to.expires = to.acquired + l.ExpiresAfterDays*day + l.ExpiresAfterMs
		if l.ReleasedAfterMs != nil {
			to.released = to.acquired + *l.ReleasedAfterMs
		}
		if to.playHours = l.PlayHours; l.PlayHours > 0 {
			to.granted = to.acquired + l.GrantedAfterMs
		}
		if l.PlayedAfterMs != nil {
			to.played = to.acquired + *l.PlayedAfterMs
		}
		valid = to.unpackSpans(l) && valid && isTime(to.granted) && isTime(to.played)
		to.uses, uses = uses[:len(l.Uses):len(l.Uses)], uses[len(l.Uses):]
		for j, u := range l.Uses {
			to.uses[j] = newUse(to.acquired, false) + use(u)
			valid = valid && isTime(to.uses[j].at())
		}
		valid = valid && isTime(to.acquired) && isTime(to.expires) && isTime(to.released) &&
			int(l.Device) < len(s.devices) &&
			int(l.Title) < len(s.titles)
	}
	for i, ago := range s.deactivations {
		s.deactivations[i] = s.last - ago
		valid = valid && isTime(s.deactivations[i])
	}
	valid = s.unpackAllowances(m) && valid
	if m.ExceptionsGranted > 0 || len(m.Exceptions) > 0 {
		s.rare = &rare{exceptions: m.Exceptions, granted: m.ExceptionsGranted}
	}
	for _, e := range m.Exceptions {
		valid = valid && checkException(e) == nil
	}
	if !valid {
		return nil, errMalformed
	}
	return s, nil
}

// isTime reports whether a time can be reckoned with.
func isTime(ms int64) bool { return ms >= 0 && ms <= maxTime }
