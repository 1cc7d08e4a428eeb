package actors

import "github.com/cespare/xxhash/v2"

// hashSet is a multiset of hashes, by open addressing: a look-up meets one cache line or two, and an
// element takes 8 to 16 bytes. The zero value is empty.
type hashSet struct {
	slots []uint32 // 0 is free; their number is a power of two, at least twice that of the elements
	count int
}

// hashOf returns the hash of a packed id, never 0.
func hashOf(id []byte) uint32 { return max(1, uint32(xxhash.Sum64(id))) }

// index returns the slot of an element with that hash or, if there is none, the free one for it.
func (s *hashSet) index(h uint32, stopAtFirst bool) uint32 {
	mask := uint32(len(s.slots) - 1)
	i := h & mask
	for s.slots[i] != 0 && !(stopAtFirst && s.slots[i] == h) {
		i = (i + 1) & mask
	}
	return i
}

func (s *hashSet) has(h uint32) bool {
	return s.count > 0 && s.slots[s.index(h, true)] == h
}

func (s *hashSet) add(h uint32) {
	if s.count++; 2*s.count > len(s.slots) {
		old := s.slots
		s.slots = make([]uint32, max(16, 2*len(old)))
		for _, o := range old {
			if o != 0 {
				s.slots[s.index(o, false)] = o
			}
		}
	}
	s.slots[s.index(h, false)] = h
}

// remove takes out one element with that hash, which must be present.
func (s *hashSet) remove(h uint32) {
	s.count--
	mask := uint32(len(s.slots) - 1)
	hole := s.index(h, true)
	// Elements behind the hole move up unless their own place is between the hole and them.
	for i := (hole + 1) & mask; s.slots[i] != 0; i = (i + 1) & mask {
		if own := s.slots[i] & mask; (i-own)&mask >= (i-hole)&mask {
			s.slots[hole], hole = s.slots[i], i
		}
	}
	s.slots[hole] = 0
}
