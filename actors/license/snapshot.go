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
	b := appendNames(space[:0], s)
	b = appendNumber(b, fieldTime, uint64(s.last))
	b = appendNumber(b, fieldOrder, s.order)
	b = appendNumber(b, fieldStudioCount, uint64(len(s.studios)))

	b, start := begin(b, fieldDevices)
	for i := range s.devices {
		b = appendDevice(b, &s.devices[i], s.last)
	}
	b, start = begin(end(b, start), fieldLicenses)
	for i := range s.licenses {
		b = appendLicenseRow(b, &s.licenses[i], s.last)
	}
	b, start = begin(end(b, start), fieldUses)
	for i := range s.licenses {
		b = appendUses(b, &s.licenses[i])
	}
	b, start = begin(end(b, start), fieldDeactivations)
	for _, at := range s.deactivations {
		b = binary.AppendUvarint(b, uint64(s.last-at))
	}
	return bytes.Clone(end(b, start))
}

// appendNumber writes a field unless it is 0.
func appendNumber(b []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return binary.AppendUvarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}

// begin starts a field of bytes or packed numbers, whose content is appended until end.
func begin(b []byte, field protowire.Number) (_ []byte, content int) {
	b = protowire.AppendTag(b, field, protowire.BytesType)
	b = append(b, 0, 0) // room for a length up to 16383; end makes good what that is wrong by
	return b, len(b)
}

// end writes the length of the content, or takes the field back if there is none.
func end(b []byte, content int) []byte {
	n := len(b) - content
	if n == 0 {
		return b[:content-3] // the tag has one byte
	}
	switch size := protowire.SizeVarint(uint64(n)); {
	case size < 2:
		copy(b[content-1:], b[content:])
		b = b[:len(b)-1]
	case size > 2:
		b = append(b, make([]byte, size-2)...)
		copy(b[content+size-2:], b[content:content+n])
	}
	binary.PutUvarint(b[content-2:], uint64(n))
	return b
}

func appendNames(b []byte, s *State) []byte {
	b, start := begin(b, fieldNames)
	b = append(b, s.plan...)
	for i := range s.devices {
		b = append(b, s.devices[i].id...)
	}
	for _, name := range s.studios {
		b = append(b, name...)
	}
	for _, name := range s.titles {
		b = append(b, name...)
	}
	b, start = begin(end(b, start), fieldNameLengths)
	b = binary.AppendUvarint(b, uint64(len(s.plan)))
	for i := range s.devices {
		b = binary.AppendUvarint(b, uint64(len(s.devices[i].id)))
	}
	for _, name := range s.studios {
		b = binary.AppendUvarint(b, uint64(len(name)))
	}
	for _, name := range s.titles {
		b = binary.AppendUvarint(b, uint64(len(name)))
	}
	return end(b, start)
}

func appendDevice(b []byte, d *device, last int64) []byte {
	flags := d.order << 1
	if d.deactivated {
		flags |= 1
	}
	b = binary.AppendUvarint(b, flags)
	b = binary.AppendUvarint(b, uint64(last-d.seen))
	if d.downloaded == 0 {
		return append(b, 0)
	}
	return binary.AppendUvarint(b, 1+uint64(d.seen-d.downloaded))
}

func appendLicenseRow(b []byte, l *license, last int64) []byte {
	b = binary.AppendUvarint(b, uint64(l.device))
	b = binary.AppendUvarint(b, uint64(l.title))
	b = binary.AppendUvarint(b, uint64(l.studio))
	b = binary.AppendUvarint(b, l.order)
	b = binary.AppendUvarint(b, uint64(last-l.acquired))
	b = binary.AppendUvarint(b, packDuration(l.expires-l.acquired))
	if l.released == 0 {
		b = append(b, 0)
	} else {
		b = binary.AppendUvarint(b, 1+uint64(l.released-l.acquired))
	}
	b = binary.AppendUvarint(b, uint64(l.renewals))
	return binary.AppendUvarint(b, uint64(len(l.uses)))
}

func appendUses(b []byte, l *license) []byte {
	for i, u := range l.uses {
		distance := zigzag(u.at() - l.acquired)
		if i > 0 {
			distance = uint64(u.at() - l.uses[i-1].at())
		}
		distance <<= 1
		if u.playback() {
			distance |= 1
		}
		b = binary.AppendUvarint(b, distance)
	}
	return b
}

// spare is room for what the command may add for which a customer was woken.
const spare = 1

// fields are the parts of a stored snapshot.
type fields struct {
	names                                           []byte
	lengths, devices, licenses, uses, deactivations reader
	last                                            int64
	order                                           uint64
	studios                                         int
}

// decode returns the state that encode wrote. The state does not refer to data.
func decode(data []byte) (*State, error) {
	var f fields
	if err := f.split(data); err != nil {
		return nil, err
	}
	s := &State{last: f.last, order: f.order}
	if n := f.devices.varints(); n > 0 {
		s.devices = make([]device, n/deviceColumns)
	}
	if err := f.readNames(s); err != nil {
		return nil, err
	}
	for i := range s.devices {
		f.readDevice(&s.devices[i])
	}
	if n := f.licenses.varints(); n > 0 {
		s.licenses = make([]license, n/licenseColumns, n/licenseColumns+spare)
	}
	uses := make([]use, f.uses.varints())
	for i := range s.licenses {
		n := f.readLicense(s, &s.licenses[i])
		if n > uint64(len(uses)) {
			return nil, fmt.Errorf("uses of licence %d: %w", i, errMalformed)
		}
		s.licenses[i].uses, uses = uses[:n:n], uses[n:]
		f.readUses(&s.licenses[i])
	}
	if n := f.deactivations.varints(); n > 0 {
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
	for _, r := range [...]*reader{&f.lengths, &f.devices, &f.licenses, &f.uses, &f.deactivations} {
		if r.bad || r.left() > 0 {
			return true
		}
	}
	return false
}

// split finds the fields of the message, each at most once and packed, as encode writes them.
func (f *fields) split(data []byte) error {
	r := reader{data: data}
	for last := uint64(0); r.left() > 0; {
		tag := r.uvarint()
		field, number := tag>>3, r.uvarint()
		ok := field > last
		last = field
		switch protowire.Type(tag & 7) {
		case protowire.VarintType:
			ok = ok && f.setNumber(field, number)
		case protowire.BytesType:
			ok = ok && f.setBytes(field, r.take(number))
		default:
			ok = false
		}
		if !ok || r.bad {
			return fmt.Errorf("field %d: %w", field, errMalformed)
		}
	}
	return nil
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
		f.names = data
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
	all := string(f.names)
	count := f.lengths.varints()
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
			f.lengths.fail()
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
	names := make([]string, f.studios+titles, f.studios+titles+spare)
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
		r.fail()
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

// readLicense returns the number of uses the licence has.
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
