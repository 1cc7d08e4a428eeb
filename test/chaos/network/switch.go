package network

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Link is how packets from one port reach another. The zero value is a good one.
type Link struct {
	// Cut drops everything.
	Cut bool
	// Loss is the share of packets that are dropped, 0 to 1.
	Loss float64
	// Delay is added to every packet, and up to Jitter more.
	Delay, Jitter time.Duration
	// ToPort, if it is not 0, has all this happen to TCP packets for that port only.
	ToPort uint16
}

// route is a direction.
type route struct{ from, to netip.Addr }

// device is where packets are read and written.
type device interface {
	Read([]byte) (int, error)
	Write([]byte) (int, error)
}

// impaired is a link that is not good, with how many packets it has dropped or delayed so far.
type impaired struct {
	Link
	met atomic.Uint64
}

// fabric passes packets between devices.
type fabric struct {
	mu    sync.Mutex
	ports map[netip.Addr]device
	links map[route]*impaired

	// What mu guards, for reading without it.
	view atomic.Pointer[view]

	passed, dropped atomic.Uint64
}

type view struct {
	ports map[netip.Addr]device
	links map[route]*impaired
}

func newFabric() *fabric {
	f := &fabric{ports: map[netip.Addr]device{}, links: map[route]*impaired{}}
	f.publish()
	return f
}

// publish makes a change visible. The caller has the lock, or the fabric to itself.
func (f *fabric) publish() {
	v := &view{ports: make(map[netip.Addr]device, len(f.ports)), links: make(map[route]*impaired, len(f.links))}
	for a, d := range f.ports {
		v.ports[a] = d
	}
	for r, l := range f.links {
		v.links[r] = l
	}
	f.view.Store(v)
}

func (f *fabric) attach(a netip.Addr, d device) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ports[a] = d
	f.publish()
}

// set sets how packets go one way, and returns the number that the link that was present has dropped or delayed.
func (f *fabric) set(from, to netip.Addr, l Link) (met uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := route{from, to}
	if old := f.links[r]; old != nil {
		met = old.met.Load()
	}
	if l == (Link{}) {
		delete(f.links, r)
	} else {
		f.links[r] = &impaired{Link: l}
	}
	f.publish()
	return met
}

// maxPacket is the largest packet that devices carry.
const maxPacket = 32 << 10

// pump passes on what a device receives, until it is closed.
func (f *fabric) pump(d device) {
	buf := make([]byte, maxPacket+64)
	for {
		n, err := d.Read(buf)
		if err != nil {
			return
		}
		f.pass(buf[:n])
	}
}

// pass passes on one packet. The memory is the caller's again afterwards.
func (f *fabric) pass(packet []byte) {
	from, to, ok := addresses(packet)
	v := f.view.Load()
	d := v.ports[to]
	if !ok || d == nil {
		f.dropped.Add(1)
		return
	}
	var l Link
	bad := v.links[route{from, to}]
	if bad != nil && (bad.ToPort == 0 || bad.ToPort == tcpPort(packet)) {
		l = bad.Link
	} else {
		bad = nil
	}
	drop := l.Cut || l.Loss > 0 && rand.Float64() < l.Loss
	if bad != nil && (drop || l.Delay+l.Jitter > 0) {
		bad.met.Add(1)
	}
	if drop {
		f.dropped.Add(1)
		return
	}
	f.passed.Add(1)
	if l.Delay+l.Jitter <= 0 {
		write(d, packet)
		return
	}
	later := append([]byte(nil), packet...)
	delay := l.Delay
	if l.Jitter > 0 {
		delay += rand.N(l.Jitter)
	}
	time.AfterFunc(delay, func() { write(d, later) })
}

// write drops what the device does not take, as networks do.
func write(d device, packet []byte) { _, _ = d.Write(packet) }

// tcpPort returns the destination port of an IPv4 packet; 0 if it is none of TCP, or not the first part of one.
func tcpPort(p []byte) uint16 {
	const tcp = 6
	header := int(p[0]&0x0f) * 4
	if p[9] != tcp || binary.BigEndian.Uint16(p[6:])&0x1fff != 0 || len(p) < header+4 {
		return 0
	}
	return binary.BigEndian.Uint16(p[header+2:])
}

// addresses returns source and destination of an IPv4 packet.
func addresses(p []byte) (from, to netip.Addr, ok bool) {
	const header = 20
	if len(p) < header || p[0]>>4 != 4 {
		return from, to, false
	}
	return netip.AddrFrom4([4]byte(p[12:16])), netip.AddrFrom4([4]byte(p[16:20])), true
}
