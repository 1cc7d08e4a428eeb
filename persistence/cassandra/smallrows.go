package cassandra

import (
	"fmt"
	"math"
	"time"

	"github.com/gocql/gocql"

	"licensed/persistence"
)

// The rows of ownership, votes and erasure as they are stored, in the order of the columns that are selected. They have
// no checksums, so what no release writes is corrupt: a number that does not fit must not be taken for that of another
// row.

// scanner reads columns, as *gocql.Iter does.
type scanner interface{ Scan(to ...any) bool }

// collect returns what appends row after row to a list; scan reads one, and reports whether there was one.
func collect[Row, T any](to *[]T, scan func(Row, scanner) (T, bool, error)) func(*gocql.Iter) (bool, error) {
	return func(iter *gocql.Iter) (bool, error) {
		var row Row
		value, more, err := scan(row, iter)
		if more && err == nil {
			*to = append(*to, value)
		}
		return more, err
	}
}

// corruptRow is the error of a row that no release wrote.
func corruptRow(what string, values ...any) error {
	return fmt.Errorf("%s %v: %w", what, values, persistence.ErrCorrupt)
}

// shardNumber returns a number or count of shards. Errors: ErrCorrupt.
func shardNumber(n int64) (uint32, error) {
	if n < 0 || n > math.MaxUint32 {
		return 0, corruptRow("number of a shard", n)
	}
	return uint32(n), nil
}

// leaseRow is a row of selectLeases.
type leaseRow struct {
	incarnation   gocql.UUID
	node, address string
	counter       int64
	dead          bool
}

func (w leaseRow) scan(from scanner) (persistence.Lease, bool, error) {
	if !from.Scan(&w.incarnation, &w.node, &w.address, &w.counter, &w.dead) {
		return persistence.Lease{}, false, nil
	}
	l, err := w.lease()
	return l, true, err
}

// lease returns the row as a lease. Errors: ErrCorrupt.
func (w leaseRow) lease() (persistence.Lease, error) {
	if w.counter < 0 || w.incarnation == (gocql.UUID{}) {
		return persistence.Lease{}, corruptRow("lease", w.incarnation, w.counter)
	}
	return persistence.Lease{
		Incarnation: persistence.Incarnation(w.incarnation), Node: w.node, Address: w.address,
		Counter: uint64(w.counter), Dead: w.dead,
	}, nil
}

// shardRow is a row of selectShards.
type shardRow struct {
	id, epoch        int64
	owner, successor gocql.UUID
}

func (w shardRow) scan(from scanner) (persistence.Shard, bool, error) {
	if !from.Scan(&w.id, &w.epoch, &w.owner, &w.successor) {
		return persistence.Shard{}, false, nil
	}
	s, err := w.shard()
	return s, true, err
}

// shard returns the row as a shard. Errors: ErrCorrupt.
func (w shardRow) shard() (persistence.Shard, error) {
	id, err := shardNumber(w.id)
	if err == nil && w.epoch < 0 {
		err = corruptRow("shard", w.id, "epoch", w.epoch)
	}
	if err != nil {
		return persistence.Shard{}, err
	}
	return persistence.Shard{
		ID: id, Epoch: uint64(w.epoch), Owner: persistence.Incarnation(w.owner),
		Successor: persistence.Incarnation(w.successor),
	}, nil
}

// voteRow is a row of selectVotes.
type voteRow struct {
	accused, voter gocql.UUID
	name           string
	beat           int64
}

func (w voteRow) scan(from scanner) (persistence.Vote, bool, error) {
	if !from.Scan(&w.accused, &w.voter, &w.name, &w.beat) {
		return persistence.Vote{}, false, nil
	}
	v, err := w.vote()
	return v, true, err
}

// vote returns the row as a vote. Errors: ErrCorrupt.
func (w voteRow) vote() (persistence.Vote, error) {
	if w.beat < 0 {
		return persistence.Vote{}, corruptRow("vote", w.accused, w.voter, w.beat)
	}
	return persistence.Vote{
		Accused: persistence.Incarnation(w.accused), Voter: persistence.Incarnation(w.voter), Name: w.name,
		Beat: uint64(w.beat),
	}, nil
}

// tombstoneRow is a row of selectTombstones.
type tombstoneRow struct {
	key                []byte
	forgotten, erasure time.Time
}

func (w tombstoneRow) scan(from scanner) (persistence.Tombstone, bool, error) {
	if !from.Scan(&w.key, &w.forgotten, &w.erasure) {
		return persistence.Tombstone{}, false, nil
	}
	t, err := w.tombstone()
	return t, true, err
}

// tombstone returns the row as a tombstone. Errors: ErrCorrupt.
func (w tombstoneRow) tombstone() (persistence.Tombstone, error) {
	t := persistence.Tombstone{Time: w.forgotten, Erased: w.erasure}
	if len(w.key) != len(t.Key) {
		return persistence.Tombstone{}, corruptRow("tombstone", w.key)
	}
	copy(t.Key[:], w.key)
	return t, nil
}
