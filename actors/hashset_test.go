package actors

import (
	"math/rand/v2"
	"testing"
)

// TestHashSetAgainstMap adds and removes hashes that often share a slot, and often are equal.
func TestHashSetAgainstMap(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 2))
		var s hashSet
		model, all := map[uint32]int{}, []uint32{}
		for range 3000 {
			if h := 1 + r.Uint32N(8) + r.Uint32N(40)<<uint(seed%8*4); len(all) < 200 && r.IntN(2) == 0 {
				s.add(h)
				model[h]++
				all = append(all, h)
			} else if len(all) > 0 {
				i := r.IntN(len(all))
				s.remove(all[i])
				model[all[i]]--
				all[i] = all[len(all)-1]
				all = all[:len(all)-1]
			}
			probe := 1 + r.Uint32N(8) + r.Uint32N(40)<<uint(seed%8*4)
			if s.has(probe) != (model[probe] > 0) || s.count != len(all) || 2*s.count > len(s.slots) {
				t.Fatalf("seed %d: %d of %d elements in %d slots, has(%x) is %t", seed, s.count, len(all), len(s.slots), probe, s.has(probe))
			}
		}
		for _, h := range all {
			s.remove(h)
		}
		for _, slot := range s.slots {
			if slot != 0 {
				t.Fatalf("seed %d: %x is left", seed, slot)
			}
		}
	}
}
