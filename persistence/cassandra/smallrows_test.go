package cassandra

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/gocql/gocql"

	"licensed/persistence"
)

// columns are a row that Cassandra returned, by the types that the driver decodes.
type columns []any

// Scan implements scanner.
func (c columns) Scan(to ...any) bool {
	for i, value := range c {
		switch to := to[i].(type) {
		case *int64:
			*to = value.(int64)
		case *string:
			*to = value.(string)
		case *bool:
			*to = value.(bool)
		case *[]byte:
			*to = value.([]byte)
		case *gocql.UUID:
			*to = value.(gocql.UUID)
		case *time.Time:
			*to = value.(time.Time)
		default:
			panic(to)
		}
	}
	return true
}

// TestRowsOfNoRelease: a number that does not fit is corrupt, and not another shard.
func TestRowsOfNoRelease(t *testing.T) {
	one := gocql.UUID{1}
	for _, id := range []int64{-1, math.MinInt64, 1 << 32, 1<<32 + 5, math.MaxInt64} {
		if s, _, err := (shardRow{}).scan(columns{id, int64(1), one, one}); !errors.Is(err, persistence.ErrCorrupt) {
			t.Errorf("shard %d: %+v, %v", id, s, err)
		}
		if _, err := shardNumber(id); !errors.Is(err, persistence.ErrCorrupt) {
			t.Errorf("%d shards: %v", id, err)
		}
	}
	for name, scan := range map[string]func() error{
		"epoch": func() error { _, _, err := (shardRow{}).scan(columns{int64(5), int64(-1), one, one}); return err },
		"counter": func() error {
			_, _, err := (leaseRow{}).scan(columns{one, "n", "a", int64(-1), false})
			return err
		},
		"beat": func() error { _, _, err := (voteRow{}).scan(columns{one, one, "n", int64(-1)}); return err },
		"tombstone": func() error {
			_, _, err := (tombstoneRow{}).scan(columns{[]byte{1}, time.Time{}, time.Time{}})
			return err
		},
	} {
		if err := scan(); !errors.Is(err, persistence.ErrCorrupt) {
			t.Errorf("%s: %v, want ErrCorrupt", name, err)
		}
	}
}

// FuzzOwnershipRows: whatever a row has, it is corrupt or what a release would have written as this row.
func FuzzOwnershipRows(f *testing.F) {
	f.Add(int64(5), int64(7), []byte{1}, "n1", "10.0.0.1:7947", true, int64(1761555600123))
	f.Add(int64(1)<<32+5, int64(-1), []byte{}, "", "", false, int64(math.MinInt64))
	f.Fuzz(func(t *testing.T, id, counter int64, key []byte, node, address string, dead bool, millis int64) {
		var uuid gocql.UUID
		copy(uuid[:], key)
		check := func(what string, err error, back columns, row columns) {
			t.Helper()
			switch {
			case err != nil && !errors.Is(err, persistence.ErrCorrupt):
				t.Errorf("%s: %v, want ErrCorrupt", what, err)
			case err == nil:
				for i := range row {
					if b, ok := row[i].([]byte); ok {
						if string(b) != string(back[i].([]byte)) {
							t.Errorf("%s: %x is read as %x", what, b, back[i])
						}
					} else if row[i] != back[i] {
						t.Errorf("%s: %v is read as %v", what, row, back)
					}
				}
			}
		}
		row := columns{id, counter, uuid, gocql.UUID{9}}
		s, _, err := (shardRow{}).scan(row)
		check("shard", err, columns{int64(s.ID), int64(s.Epoch), gocql.UUID(s.Owner), gocql.UUID(s.Successor)}, row)
		row = columns{uuid, node, address, counter, dead}
		l, _, err := (leaseRow{}).scan(row)
		check("lease", err, columns{gocql.UUID(l.Incarnation), l.Node, l.Address, int64(l.Counter), l.Dead}, row)
		row = columns{uuid, gocql.UUID{9}, node, counter}
		v, _, err := (voteRow{}).scan(row)
		check("vote", err, columns{gocql.UUID(v.Accused), gocql.UUID(v.Voter), v.Name, int64(v.Beat)}, row)
		row = columns{key, fromMillis(millis), fromMillis(id)}
		d, _, err := (tombstoneRow{}).scan(row)
		check("tombstone", err, columns{d.Key[:], d.Time, d.Erased}, row)
	})
}
