package cluster

import "slices"

// Status of the shards that a process holds.
type Status struct {
	// Shards of the cluster, and how many of them are held.
	Shards, Held int
	// LowestEpoch and HighestEpoch are those of the held shards; 0 if none is.
	LowestEpoch, HighestEpoch uint64
}

// Status returns what is held at this moment.
func (s *Solo) Status() Status {
	out := Status{Shards: int(s.shards)}
	if s.lost.Load() {
		return out
	}
	var epochs []uint64
	for i := range s.epochs {
		if e := s.epochs[i].Load(); e > 0 {
			epochs = append(epochs, e)
		}
	}
	if out.Held = len(epochs); out.Held > 0 {
		out.LowestEpoch, out.HighestEpoch = slices.Min(epochs), slices.Max(epochs)
	}
	return out
}
