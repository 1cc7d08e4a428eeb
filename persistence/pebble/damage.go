package pebble

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	pebbledb "github.com/cockroachdb/pebble/v2"

	"licensed/persistence"
)

// DamageSnapshots flips a bit in the newest snapshot of each aggregate ("Bayley:LicenseAggregate") of the store in
// dir, which no process has open: for tests of what survives that. It returns the number damaged; aggregates without
// a root, or whose newest root is stripped or damaged already, are left out. Errors: those of Open, and of a disk
// that cannot be read or written.
func DamageSnapshots(ctx context.Context, dir string, o Options, aggregates ...string) (damaged int, err error) {
	err = damage(dir, o, func(s *Store) error {
		for _, aggregate := range aggregates {
			r, err := s.TopRoot(ctx, aggregate)
			if errors.Is(err, persistence.ErrNotFound) || err == nil && (r.Stripped || r.Damage != nil) {
				continue
			}
			if err == nil {
				err = s.flip(appendSnapshotKey(nil, r.Key))
			}
			if err != nil {
				return fmt.Errorf("damage the snapshot of %s: %w", aggregate, err)
			}
			damaged++
		}
		return nil
	})
	return damaged, err
}

// DamageRoot flips a bit in the newest root of an aggregate, beside its snapshot; otherwise as DamageSnapshots.
// Errors: ErrNotFound.
func DamageRoot(ctx context.Context, dir string, o Options, aggregate string) error {
	return damage(dir, o, func(s *Store) error {
		r, err := s.TopRoot(ctx, aggregate)
		if err == nil {
			err = s.flip(appendRootKey(nil, r.Key))
		}
		if err != nil {
			return fmt.Errorf("damage the root of %s: %w", aggregate, err)
		}
		return nil
	})
}

// DamageRecord flips a bit in the record of an aggregate that has the sequence; otherwise as DamageSnapshots.
// Errors: ErrNotFound if there is no such record.
func DamageRecord(dir string, o Options, aggregate string, sequence uint64) error {
	return damage(dir, o, func(s *Store) error {
		var keys [][]byte
		prefix := appendAggregate(nil, kindRecord, aggregate)
		last := appendNumber(nil, sequence)
		// Records of all roots of the aggregate are looked through: the sequence is the
		// last part of the key.
		err := s.scan(prefix, append(slices.Clone(prefix), 0xff), 1<<30, func(key, _ []byte) error {
			rest := key[len(prefix):]
			for range 2 { // epoch and version
				_, rest, _ = takeNumber(rest)
			}
			if incarnation := len(persistence.Incarnation{}); len(rest) > incarnation &&
				bytes.Equal(rest[incarnation:], last) {
				keys = append(keys, slices.Clone(key))
			}
			return nil
		})
		if err == nil && len(keys) == 0 {
			err = persistence.ErrNotFound
		}
		for _, key := range keys {
			err = firstError(err, s.flip(key))
		}
		if err != nil {
			return fmt.Errorf("damage record %d of %s: %w", sequence, aggregate, err)
		}
		return nil
	})
}

// damage opens the store, does something to it and closes it.
func damage(dir string, o Options, do func(*Store) error) error {
	s, err := Open(dir, o)
	if err != nil {
		return err
	}
	return firstError(do(s), s.Close())
}

// flip flips a bit of a value below the engine's checksums.
func (s *Store) flip(key []byte) error {
	value, closer, err := s.db.Get(key)
	if err != nil {
		return classify(err)
	}
	bad := slices.Clone(value)
	bad[len(bad)/2] ^= 0x20
	return firstError(closer.Close(), s.db.Set(key, bad, pebbledb.Sync))
}
