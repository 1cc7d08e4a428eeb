package sim

import (
	"fmt"
	"io"
	"math/rand/v2"

	"licensed/actors/actorstest"
)

// RunFacts runs one seed as Run does, with clients that are devices as well. A device reports its facts one after the
// other, a fact of unknown outcome again under another command id, and facts that were recorded again at any time.
func RunFacts(seed uint64, log io.Writer) Counts {
	r := rand.New(rand.NewPCG(seed, 0x6661637473))
	p := paramsOf(r)
	p.Facts = 0.3 + 0.5*r.Float64()
	return runWith(r, p, log)
}

// queue has the facts of a device.
type queue struct {
	amounts []uint64 // by number, from 1
	highest uint64   // the highest number that is known to be recorded
}

// recorded says that a fact is recorded.
func (q *queue) recorded(number uint64) { q.highest = max(q.highest, number) }

// report makes an op the report of a fact: the first one that is not known to be recorded, or one that is.
func (c *client) report(o *op) {
	if c.facts == nil {
		c.facts = map[string]*queue{}
	}
	q := c.facts[o.aggregate]
	if q == nil {
		q = &queue{}
		c.facts[o.aggregate] = q
	}
	number := q.highest + 1
	if number > 1 && c.w.chance(0.3) {
		number = 1 + c.w.Uint64N(q.highest)
	}
	if number > uint64(len(q.amounts)) {
		q.amounts = append(q.amounts, o.add.Amount)
	}
	o.add = actorstest.Add{Amount: q.amounts[number-1], Number: number, Device: uint8(c.id)}
}

// report folds a fact into the history: each counts once, in the order of its numbers.
func (h *history) report(v actorstest.Reported) error {
	fact := [2]uint64{v.Device, v.Number}
	if h.facts[fact] {
		return fmt.Errorf("fact %d of device %d counts twice", v.Number, v.Device)
	}
	h.facts[fact] = true
	if v.Number > 1 && !h.facts[[2]uint64{v.Device, v.Number - 1}] {
		return fmt.Errorf("fact %d of device %d counts before the one before it", v.Number, v.Device)
	}
	return nil
}
