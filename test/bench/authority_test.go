package bench

import (
	"log/slog"

	"licensed/persistence"
)

// held is an authority that holds all under one epoch.
type held struct{ incarnation persistence.Incarnation }

func newHeld() held { return held{persistence.NewIncarnation()} }

func (h held) Incarnation() persistence.Incarnation { return h.incarnation }
func (held) Shard(string) uint32                    { return 0 }
func (held) Epoch(uint32) (uint64, bool)            { return 1, true }
func (held) Holds(uint32, uint64) bool              { return true }
func (held) StaleEpoch(uint32, string, uint64)      {}
func (held) Suspended() bool                        { return false }

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }
