package license

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// snapshotMapper names the stored form of a state: licensedv1.LicenseSnapshot, version 1.
const snapshotMapper = "LicenseSnapshot/1"

// Field numbers and columns of licensedv1.LicenseSnapshot.
const (
	fieldNames         = 1
	fieldNameLengths   = 2
	fieldTime          = 3
	fieldOrder         = 4
	fieldStudioCount   = 5
	fieldDevices       = 6
	fieldLicenses      = 7
	fieldUses          = 8
	fieldDeactivations = 9

	deviceColumns  = 3
	licenseColumns = 9
)

// maxTime bounds the times in a snapshot (the year 9999), far below where sums overflow.
const maxTime = 253_402_300_800_000

// encode returns the state as a licensedv1.LicenseSnapshot.
func (s *State) encode() []byte {
	var space [1024]byte
	w := writer{data: space[:0]}
	w.names(s)
	w.number(fieldTime, uint64(s.last))
	w.number(fieldOrder, s.order)
	w.number(fieldStudioCount, uint64(len(s.studios)))
	w.packed(fieldDevices, func() {
		for i := range s.devices {
			w.device(&s.devices[i], s.last)
		}
	})
	w.packed(fieldLicenses, func() {
		for i := range s.licenses {
			w.license(&s.licenses[i], s.last)
		}
	})
	w.packed(fieldUses, func() {
		for i := range s.licenses {
			w.uses(&s.licenses[i])
		}
	})
	w.packed(fieldDeactivations, func() {
		for _, at := range s.deactivations {
			w.uvarint(uint64(s.last - at))
		}
	})
	return bytes.Clone(w.data)
}

// writer appends the fields of a protobuf message.
type writer struct{ data []byte }

func (w *writer) uvarint(v uint64) { w.data = binary.AppendUvarint(w.data, v) }

// number writes a field unless it is 0.
func (w *writer) number(field protowire.Number, v uint64) {
	if v != 0 {
		w.data = protowire.AppendTag(w.data, field, protowire.VarintType)
		w.uvarint(v)
	}
}

// packed writes a field of bytes or packed numbers unless fill appends nothing.
func (w *writer) packed(field protowire.Number, fill func()) {
	start := len(w.data)
	w.data = protowire.AppendTag(w.data, field, protowire.BytesType)
	// The length takes a byte up to 127, else two up to 16383; room for two is made good afterwards.
	w.data = append(w.data, 0, 0)
	body := len(w.data)
	fill()
	n := len(w.data) - body
	if n == 0 {
		w.data = w.data[:start]
		return
	}
	size := protowire.SizeVarint(uint64(n))
	switch {
	case size < 2:
		copy(w.data[body-1:], w.data[body:])
		w.data = w.data[:len(w.data)-1]
	case size > 2:
		w.data = append(w.data, make([]byte, size-2)...)
		copy(w.data[body+size-2:], w.data[body:body+n])
	}
	binary.PutUvarint(w.data[body-2:], uint64(n))
}

func (w *writer) names(s *State) {
	each := func(fn func(name string)) {
		fn(s.plan)
		for i := range s.devices {
			fn(s.devices[i].id)
		}
		for _, name := range s.studios {
			fn(name)
		}
		for _, name := range s.titles {
			fn(name)
		}
	}
	w.packed(fieldNames, func() { each(func(name string) { w.data = append(w.data, name...) }) })
	w.packed(fieldNameLengths, func() { each(func(name string) { w.uvarint(uint64(len(name))) }) })
}

func (w *writer) device(d *device, last int64) {
	flags := d.order << 1
	if d.deactivated {
		flags |= 1
	}
	w.uvarint(flags)
	w.uvarint(uint64(last - d.seen))
	if d.downloaded == 0 {
		w.uvarint(0)
	} else {
		w.uvarint(1 + uint64(d.seen-d.downloaded))
	}
}

func (w *writer) license(l *license, last int64) {
	w.uvarint(uint64(l.device))
	w.uvarint(uint64(l.title))
	w.uvarint(uint64(l.studio))
	w.uvarint(l.order)
	w.uvarint(uint64(last - l.acquired))
	w.uvarint(packDuration(l.expires - l.acquired))
	if l.released == 0 {
		w.uvarint(0)
	} else {
		w.uvarint(1 + uint64(l.released-l.acquired))
	}
	w.uvarint(uint64(l.renewals))
	w.uvarint(uint64(len(l.uses)))
}

func (w *writer) uses(l *license) {
	for i, u := range l.uses {
		distance := zigzag(u.at() - l.acquired)
		if i > 0 {
			distance = uint64(u.at() - l.uses[i-1].at())
		}
		distance <<= 1
		if u.playback() {
			distance |= 1
		}
		w.uvarint(distance)
	}
}

// fields are the parts of a stored snapshot.
type fields struct {
	names, lengths, devices, licenses, uses, deactivations reader
	last                                                   int64
	order                                                  uint64
	studios                                                int
}

// decode returns the state that encode wrote. The state does not refer to data.
func decode(data []byte) (*State, error) {
	f, err := split(data)
	if err != nil {
		return nil, err
	}
	s := &State{last: f.last, order: f.order}
	if n := varints(f.devices.data); n > 0 {
		s.devices = make([]device, n/deviceColumns)
	}
	if err := f.readNames(s); err != nil {
		return nil, err
	}
	for i := range s.devices {
		f.readDevice(&s.devices[i])
	}
	if n := varints(f.licenses.data); n > 0 {
		s.licenses = make([]license, n/licenseColumns)
	}
	uses := make([]use, varints(f.uses.data))
	for i := range s.licenses {
		n := f.readLicense(s, &s.licenses[i])
		if n > uint64(len(uses)) {
			return nil, fmt.Errorf("uses of licence %d: %w", i, errMalformed)
		}
		s.licenses[i].uses, uses = uses[:n:n], uses[n:]
		f.readUses(&s.licenses[i])
	}
	if n := varints(f.deactivations.data); n > 0 {
		s.deactivations = make([]int64, n)
	}
	for i := range s.deactivations {
		s.deactivations[i] = f.time(&f.deactivations, f.last-int64(f.deactivations.uvarint()))
	}
	if f.malformed() {
		return nil, errMalformed
	}
	return s, nil
}

// malformed reports whether any field was, or has bytes that nothing read.
func (f *fields) malformed() bool {
	for _, r := range []*reader{&f.names, &f.lengths, &f.devices, &f.licenses, &f.uses, &f.deactivations} {
		if r.bad || len(r.data) > 0 {
			return true
		}
	}
	return false
}

// split finds the fields of the message, each at most once and packed, as encode writes them.
func split(data []byte) (*fields, error) {
	f := &fields{}
	for last := uint64(0); len(data) > 0; {
		r := reader{data: data}
		tag := r.uvarint()
		field, number := tag>>3, r.uvarint()
		if r.bad || field <= last {
			return nil, fmt.Errorf("field %d: %w", field, errMalformed)
		}
		last = field
		var ok bool
		if protowire.Type(tag&7) == protowire.VarintType {
			ok = f.setNumber(field, number)
		} else if protowire.Type(tag&7) == protowire.BytesType {
			ok = f.setBytes(field, r.take(number))
		}
		if !ok || r.bad {
			return nil, fmt.Errorf("field %d: %w", field, errMalformed)
		}
		data = r.data
	}
	return f, nil
}

func (f *fields) setNumber(field, v uint64) bool {
	switch field {
	case fieldTime:
		f.last = int64(v)
		return v <= maxTime
	case fieldOrder:
		f.order = v
		return true
	case fieldStudioCount:
		f.studios = int(v)
		return v <= math.MaxInt32
	default:
		return false
	}
}

func (f *fields) setBytes(field uint64, data []byte) bool {
	switch field {
	case fieldNames:
		f.names.data = data
	case fieldNameLengths:
		f.lengths.data = data
	case fieldDevices:
		f.devices.data = data
	case fieldLicenses:
		f.licenses.data = data
	case fieldUses:
		f.uses.data = data
	case fieldDeactivations:
		f.deactivations.data = data
	default:
		return false
	}
	return true
}

// readNames fills in the names; all are parts of one string.
func (f *fields) readNames(s *State) error {
	all := string(f.names.data)
	f.names.data = nil
	count := varints(f.lengths.data)
	titles := count - 1 - len(s.devices) - f.studios
	if count == 0 && len(s.devices) == 0 && f.studios == 0 {
		return nil
	}
	if titles < 0 || !utf8.ValidString(all) {
		return fmt.Errorf("names: %w", errMalformed)
	}
	next := func() string {
		n := f.lengths.uvarint()
		if n > uint64(len(all)) {
			f.lengths.bad = true
			return ""
		}
		name := all[:n]
		all = all[n:]
		return name
	}
	s.plan = next()
	for i := range s.devices {
		s.devices[i].id = next()
	}
	names := make([]string, f.studios+titles)
	for i := range names {
		names[i] = next()
	}
	s.studios, s.titles = names[:f.studios:f.studios], names[f.studios:]
	if all != "" {
		return fmt.Errorf("names: %w", errMalformed)
	}
	return nil
}

// time returns a time that was read, if it is one.
func (f *fields) time(r *reader, ms int64) int64 {
	if ms < 0 || ms > maxTime {
		r.bad = true
		return 0
	}
	return ms
}

func (f *fields) readDevice(d *device) {
	r := &f.devices
	flags := r.uvarint()
	d.order, d.deactivated = flags>>1, flags&1 != 0
	d.seen = f.time(r, f.last-int64(r.uvarint()))
	if v := r.uvarint(); v > 0 {
		d.downloaded = f.time(r, d.seen-int64(v-1))
	}
}

// readLicense returns how many uses the licence has.
func (f *fields) readLicense(s *State, l *license) (uses uint64) {
	r := &f.licenses
	l.device = r.index(len(s.devices))
	l.title = r.index(len(s.titles))
	l.studio = r.index(len(s.studios) + 1)
	l.order = r.uvarint()
	l.acquired = f.time(r, f.last-int64(r.uvarint()))
	l.expires = f.time(r, l.acquired+unpackDuration(r.uvarint()))
	if v := r.uvarint(); v > 0 {
		l.released = f.time(r, l.acquired+int64(v-1))
	}
	l.renewals = r.small()
	return r.uvarint()
}

func (f *fields) readUses(l *license) {
	r := &f.uses
	at := l.acquired
	for i := range l.uses {
		v := r.uvarint()
		if i == 0 {
			at += unzigzag(v >> 1)
		} else {
			at += int64(v >> 1)
		}
		at = f.time(r, at)
		l.uses[i] = newUse(at, v&1 != 0)
	}
}
