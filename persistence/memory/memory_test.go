package memory_test

import (
	"testing"
	"time"

	"licensed/persistence"
	"licensed/persistence/memory"
	"licensed/persistence/persistencetest"
)

func TestConformance(t *testing.T) {
	persistencetest.Run(t, persistencetest.Driver{
		AtomicMutations: true,
		New: func(testing.TB) *persistencetest.Place {
			s := memory.New()
			var handle *memory.Store
			return &persistencetest.Place{
				Open: func() (persistence.Store, error) {
					handle = s.Reopen()
					return handle, nil
				},
				PowerLoss:      func(testing.TB) { _ = handle.Close() }, // what was written is present
				CorruptRoot:    func(_ testing.TB, key persistence.RootKey) { s.CorruptRoot(key) },
				DamageSnapshot: func(_ testing.TB, key persistence.RootKey) { s.DamageSnapshot(key.Aggregate) },
				CorruptRecord: func(_ testing.TB, p persistence.Partition, sequence uint64) {
					s.CorruptRecord(p, sequence)
				},
			}
		},
	})
}

func TestArchiveConformance(t *testing.T) {
	persistencetest.RunArchive(t, persistencetest.ArchiveDriver{New: func(testing.TB) *persistencetest.ArchivePlace {
		a := memory.NewArchive()
		var handle *memory.Archive
		return &persistencetest.ArchivePlace{
			Open: func() (persistence.Archive, error) {
				handle = a.Reopen()
				return handle, nil
			},
			PowerLoss: func(testing.TB) { _ = handle.Close() },
			Corrupt:   func(_ testing.TB, name string) { a.Corrupt(name) },
			Expire:    func(_ testing.TB, now time.Time) { a.Expire(now) },
		}
	}})
}
