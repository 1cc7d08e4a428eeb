package cassandra_test

import (
	"log/slog"
	"os"
	"testing"
	"time"

	"licensed/persistence"
	"licensed/persistence/cassandra"
	"licensed/persistence/cassandra/cassandratest"
	"licensed/persistence/persistencetest"
)

func TestMain(m *testing.M) { os.Exit(cassandratest.Main(m)) }

// keyspace returns options for a keyspace of the test's own.
func keyspace(t testing.TB) cassandra.Options {
	t.Helper()
	return cassandratest.Keyspace(t, cassandratest.Shared(t), 1)
}

// quiet returns options whose log is the test's.
func quiet(t testing.TB, o cassandra.Options) cassandra.Options {
	o.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	return o
}

// open opens a store that t.Cleanup closes.
func open(t testing.TB, o cassandra.Options) *cassandra.Store {
	t.Helper()
	s, err := cassandra.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestConformance(t *testing.T) {
	persistencetest.Run(t, driver(t, keyspace(t)))
}

func TestArchiveConformance(t *testing.T) {
	o := keyspace(t)
	if _, err := cassandra.ApplySchema(t.Context(), o, cassandra.ArchiveSchema, cassandra.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	persistencetest.RunArchive(t, persistencetest.ArchiveDriver{
		New: func(t testing.TB) *persistencetest.ArchivePlace {
			o := quiet(t, o)
			check(t, cassandra.Truncate(t.Context(), o, cassandra.ArchiveSchema))
			return &persistencetest.ArchivePlace{
				Open:    func() (persistence.Archive, error) { return cassandra.OpenArchive(t.Context(), o) },
				Corrupt: func(t testing.TB, name string) { check(t, cassandra.CorruptSegment(t.Context(), o, name)) },
			}
		},
	})
}

// TestExpiry: Cassandra itself drops what expires, name and bytes.
func TestExpiry(t *testing.T) {
	o := keyspace(t)
	ctx := t.Context()
	_, err := cassandra.ApplySchema(ctx, o, cassandra.ArchiveSchema, cassandra.ApplyOptions{})
	check(t, err)
	a, err := cassandra.OpenArchive(ctx, o)
	check(t, err)
	defer func() { check(t, a.Close()) }()
	check(t, a.PutSegment(ctx, "for ever", []byte("x"), time.Time{}))
	check(t, a.PutSegment(ctx, "a day", []byte("x"), time.Now().Add(24*time.Hour)))
	name, chunk, err := cassandra.TimesToLive(ctx, o, "for ever")
	if err != nil || name != 0 || chunk != 0 {
		t.Errorf("for ever: %d, %d, %v", name, chunk, err)
	}
	name, chunk, err = cassandra.TimesToLive(ctx, o, "a day")
	if day := 86400; err != nil || name < day || chunk < day || name > 2*day || chunk > 2*day {
		t.Errorf("a day: %d s, %d s, %v", name, chunk, err)
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// driver keeps all places in one keyspace, emptied before each, which is faster than creating tables.
func driver(t *testing.T, o cassandra.Options) persistencetest.Driver {
	return persistencetest.Driver{
		MaxMutationBytes: o.MaxMutationBytes,
		New: func(t testing.TB) *persistencetest.Place {
			o := quiet(t, o)
			check(t, cassandra.Truncate(t.Context(), o, cassandra.HotSchema))
			return &persistencetest.Place{
				Open: func() (persistence.Store, error) { return cassandra.Open(t.Context(), o) },
				CorruptRoot: func(t testing.TB, key persistence.RootKey) {
					check(t, cassandra.CorruptRoot(t.Context(), o, key))
				},
				DamageSnapshot: func(t testing.TB, key persistence.RootKey) {
					check(t, cassandra.DamageSnapshot(t.Context(), o, key.Aggregate))
				},
				CorruptRecord: func(t testing.TB, p persistence.Partition, sequence uint64) {
					check(t, cassandra.CorruptRecord(t.Context(), o, p, sequence))
				},
			}
		},
	}
}
