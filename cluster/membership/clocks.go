package membership

import (
	"encoding/binary"
	"slices"
	"sync"
	"time"
)

// clocks compares the wall clock with those of others, by the times in their answers to
// probes. It is safe for concurrent use.
type clocks struct {
	mu     sync.Mutex
	offset map[string]measurement // by member
}

// measurement is what the last answer of a member showed.
type measurement struct {
	ahead time.Duration // of its own clock
	at    time.Time
}

// maxRoundTrip is above which a comparison says too little.
const maxRoundTrip = 500 * time.Millisecond

// keepMeasurement is for how long a comparison counts; in a cluster of 100 each member is probed once in
// 50 s.
const keepMeasurement = 5 * time.Minute

// init makes it ready. It must be called before the first probe.
func (c *clocks) init() { c.offset = map[string]measurement{} }

// note processes an answer to a probe, received now.
func (c *clocks) note(member string, now time.Time, rtt time.Duration, payload []byte) {
	// The answer may have been written at any time between the question and now, so that
	// it is uncertain by rtt/2.
	if len(payload) < 8 || rtt > maxRoundTrip || rtt < 0 {
		return
	}
	theirs := time.UnixMicro(int64(binary.BigEndian.Uint64(payload))).Add(rtt / 2)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offset[member] = measurement{now.Sub(theirs), now}
}

// forget drops what is known of a member that is not listed any more.
func (c *clocks) forget(member string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.offset, member)
}

// ahead returns the median of how far its own clock is ahead of those, and how many there are. Of two in
// the middle it is the smaller: one wrong clock among three must not put the right ones in the wrong.
func (c *clocks) ahead(now time.Time, of map[string]bool) (time.Duration, int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []time.Duration
	for member, m := range c.offset {
		if now.Sub(m.at).Abs() > keepMeasurement {
			delete(c.offset, member)
			continue
		}
		if of[member] {
			all = append(all, m.ahead)
		}
	}
	n := len(all)
	if n == 0 {
		return 0, 0
	}
	slices.Sort(all)
	median := all[n/2]
	if n%2 == 0 && all[n/2-1].Abs() < median.Abs() {
		median = all[n/2-1]
	}
	return median, n
}
