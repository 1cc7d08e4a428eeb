package license

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"licensed/actors/license/ids"
	"licensed/messages/licensedv1"
)

// Labels are names and types of devices, for people. No rule asks for them. They are recorded by an event of their own
// with the command that gave them, since a device that is known already has no event in which every command could put
// them.

const (
	// MaxDeviceName is the length of a device's name in characters.
	MaxDeviceName = 64
	// maxLabels is the number of devices that a refusal has labels of: more than are ever named.
	maxLabels = 64
)

// withLabel is what has the label of a device: a command, a request.
type withLabel interface {
	GetDeviceName() string
	GetDeviceType() licensedv1.DeviceType
}

// CheckDeviceName says what is wrong with the name of a device, for a sentence that begins with the field; "" for
// nothing. Joiners are the only format characters that may be in it: scripts and emoji are written with them.
func CheckDeviceName(name string) string {
	switch {
	case !utf8.ValidString(name):
		return "is not UTF-8"
	case utf8.RuneCountInString(name) > MaxDeviceName:
		return fmt.Sprintf("has %d characters, the limit is %d", utf8.RuneCountInString(name), MaxDeviceName)
	case name != "" && strings.TrimFunc(name, func(r rune) bool { return unicode.IsSpace(r) || isJoiner(r) }) == "":
		return "has no visible character"
	case strings.ContainsFunc(name, unprintable):
		return "contains a control or format character"
	}
	return ""
}

// isJoiner reports whether a character joins or separates its neighbours within a word or an emoji.
func isJoiner(r rune) bool { return r == '\u200c' || r == '\u200d' }

// unprintable reports whether a character could hide or reorder what is shown around it.
func unprintable(r rune) bool {
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co, unicode.Zl, unicode.Zp) && !isJoiner(r)
}

// checkLabels checks the labels of a refusal.
func checkLabels(labels []*licensedv1.DeviceLabel) error {
	if len(labels) > maxLabels {
		return fmt.Errorf("%d names of devices, want at most %d", len(labels), maxLabels)
	}
	for _, l := range labels {
		err := first(named("device id", l.GetDeviceId(), ids.MaxBytes), checkName(l.GetDeviceName()))
		if err != nil {
			return err
		}
	}
	return nil
}

// checkName returns what is wrong with the name of a device as an error.
func checkName(name string) error {
	if fault := CheckDeviceName(name); fault != "" {
		return errors.New("device name " + fault)
	}
	return nil
}

// label records what an accepted command says of its device, if that is known, takes part, and is labelled otherwise.
func (d *decider) label(c *licensedv1.Command) {
	switch c.GetCommand().(type) {
	case *licensedv1.Command_AcquireLicense, *licensedv1.Command_RenewLicense, *licensedv1.Command_SyncDevice:
	default:
		return // has no label
	}
	if c.GetDeviceName() == "" && c.GetDeviceType() == 0 || d.decision.Refused {
		return
	}
	id := subjectOf(c).device
	var is device
	if i := d.device(id); i >= 0 {
		is = d.state.devices[i]
	} else {
		is.deactivated = true
	}
	for _, e := range d.decision.Events {
		switch v := e.Value.(type) {
		case *licensedv1.DeviceActivated:
			is.deactivated = false
		case *licensedv1.CommandAccepted:
			if v.GetSuperseded() {
				return
			}
		}
		if e.AggregateID == id {
			is.order = e.Order + 1
		}
	}
	to := &licensedv1.DeviceLabeled{
		DeviceName: cmp.Or(c.GetDeviceName(), is.name), DeviceType: cmp.Or(c.GetDeviceType(), is.kind),
	}
	if !is.deactivated && (to.GetDeviceName() != is.name || to.GetDeviceType() != is.kind) {
		d.add(id, is.order, to)
	}
}

// labeled applies DeviceLabeled.
func (s *State) labeled(id string, order uint64, v *licensedv1.DeviceLabeled) {
	if i := s.device(id); i >= 0 {
		d := &s.devices[i]
		d.name, d.kind, d.order = v.GetDeviceName(), v.GetDeviceType(), order+1
	}
}

// labels returns the labels of the devices that a refusal names.
func (d *decider) labels(
	e *licensedv1.CommandRefused, broken []*licensedv1.BrokenRule,
) (all []*licensedv1.DeviceLabel) {
	seen := []string{e.GetDeviceId()}
	for _, b := range broken {
		for _, id := range b.GetFreedBy() {
			id, _, _ = strings.Cut(id, "/")
			seen = append(seen, id)
		}
		seen = append(seen, b.GetStayingDeviceIds()...)
	}
	slices.Sort(seen)
	for _, id := range slices.Compact(seen) {
		l := &licensedv1.DeviceLabel{DeviceId: id}
		if i := d.device(id); i >= 0 {
			l.DeviceName, l.DeviceType = d.state.devices[i].name, d.state.devices[i].kind
		}
		if id == e.GetDeviceId() {
			l.DeviceName = cmp.Or(d.given.GetDeviceName(), l.GetDeviceName())
			l.DeviceType = cmp.Or(d.given.GetDeviceType(), l.GetDeviceType())
		}
		if (l.GetDeviceName() != "" || l.GetDeviceType() != 0) && id != "" && len(all) < maxLabels {
			all = append(all, l)
		}
	}
	return all
}

// words returns a device as sentences name it.
func (d *device) words() string {
	return (&licensedv1.DeviceLabel{DeviceId: d.id, DeviceName: d.name}).Words()
}

// allWords returns devices, or licences as aggregate ids, as the sentences of a refusal name them.
func allWords(e *licensedv1.CommandRefused, list []string) []string {
	if len(e.GetDevices()) == 0 {
		return list
	}
	out := make([]string, len(list))
	for i, id := range list {
		device, title, isLicense := strings.Cut(id, "/")
		switch shown := licensedv1.DeviceWords(e.GetDevices(), device); {
		case !isLicense:
			out[i] = shown
		case shown == device:
			out[i] = id
		default:
			out[i] = title + " on " + shown
		}
	}
	return out
}

// appendLabels packs the labels of an outcome, which are sorted by id.
func appendLabels(b []byte, labels []*licensedv1.DeviceLabel) []byte {
	b = binary.AppendUvarint(b, uint64(len(labels)))
	former := ""
	for _, l := range labels {
		b = appendAfter(b, former, l.GetDeviceId())
		b = binary.AppendUvarint(appendText(b, l.GetDeviceName()), uint64(l.GetDeviceType()))
		former = l.GetDeviceId()
	}
	return b
}

// readLabels is the reverse of appendLabels.
func readLabels(r *reader) (labels []*licensedv1.DeviceLabel) {
	former := ""
	for range r.index(maxLabels + 1) {
		former = r.after(former)
		name := string(r.take(r.uvarint()))
		r.bad = r.bad || !utf8.ValidString(name)
		labels = append(labels, &licensedv1.DeviceLabel{
			DeviceId: former, DeviceName: name, DeviceType: licensedv1.DeviceType(r.index(1 << 16)),
		})
	}
	return labels
}
