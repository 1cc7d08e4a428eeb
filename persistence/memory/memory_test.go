package memory_test

import (
	"testing"

	"licensed/persistence"
	"licensed/persistence/memory"
	"licensed/persistence/persistencetest"
)

func TestConformance(t *testing.T) {
	persistencetest.Run(t, persistencetest.Driver{
		AtomicMutations: true,
		Housekeeping:    true,
		New: func(testing.TB) *persistencetest.Place {
			s := memory.New()
			var handle *memory.Store
			return &persistencetest.Place{
				Open: func() (persistence.Store, error) {
					handle = s.Reopen()
					return handle, nil
				},
				PowerLoss:     func(testing.TB) { _ = handle.Close() }, // what was written is there
				CorruptRoot:   func(_ testing.TB, key persistence.RootKey) { s.CorruptRoot(key) },
				CorruptRecord: func(_ testing.TB, p persistence.Partition, sequence uint64) { s.CorruptRecord(p, sequence) },
			}
		},
	})
}
