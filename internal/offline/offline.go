// Package offline opens the data of a node that is stopped, for checks that need no service.
package offline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"licensed/actors/license"
	"licensed/actors/license/policy"
	"licensed/internal/customers"
	"licensed/internal/storage"
	"licensed/messages/licensedv1"
	"licensed/persistence"
	"licensed/persistence/doctor"
	"licensed/persistence/pebble"
)

// Store is the data of a node that is stopped. It holds the lock on the directory, so no node can start meanwhile.
// It is safe for concurrent use.
type Store struct {
	hot  *pebble.Store
	cold persistence.Archive // nil if there is none
	kind *license.Kind
}

// Errors of offline checks.
var (
	// ErrNoStore says that a directory holds no store.
	ErrNoStore = errors.New("there is no store")
	// ErrNoHistory says that nothing ever happened to a customer.
	ErrNoHistory = errors.New("no history")
)

// Open opens the data and archive directories of a node that is stopped; of the configuration only these and the logger
// count. An archive that does not exist is none. Errors: storage.ErrLocked if the node is not stopped, ErrNoStore,
// storage.ErrWrongArchive.
func Open(c *storage.Config) (*Store, error) {
	if ok, err := holdsStore(c.Data); err != nil || !ok { // Opening would make one.
		return nil, errors.Join(err, fmt.Errorf("%s: %w", c.Data, ErrNoStore))
	}
	store, err := pebble.Open(c.Data, pebble.Options{Logger: c.Logger})
	if err != nil {
		return nil, err
	}
	// What is stored means the same under every policy.
	s := &Store{hot: store, kind: license.NewKind(policy.Default())}
	dir := c.ArchiveDir()
	if ok, err := holdsStore(dir); err != nil || !ok {
		return s, nil //nolint:nilerr // What was archived is then reported as out of reach.
	}
	id, err := storage.ArchiveID(c.Data)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	cold, err := pebble.OpenArchive(dir, pebble.ArchiveOptions{ID: id, Logger: c.Logger})
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	s.cold = cold
	return s, nil
}

// holdsStore reports whether a directory holds what the engine makes first. Opening would
// make a store where there is none.
func holdsStore(dir string) (bool, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return strings.HasPrefix(e.Name(), "MANIFEST-") }),
		err
}

// Close gives the directories back.
func (s *Store) Close() error {
	var err error
	if s.cold != nil {
		err = s.cold.Close()
	}
	return errors.Join(err, s.hot.Close())
}

// Customers returns up to limit ids of customers with a history, after the last id of the former page.
func (s *Store) Customers(ctx context.Context, after string, limit int) ([]string, error) {
	return customers.List(ctx, s.hot, after, limit)
}

// Verify checks a customer, and repairs what can be repaired with certainty if asked to. Errors:
// ErrNoHistory, and those of a disk that cannot be read.
func (s *Store) Verify(
	ctx context.Context, customer string, repair bool, progress func(checked, total uint64) error,
) (*licensedv1.CustomerReport, error) {
	head, err := doctor.Recover(ctx, s.hot, customers.Aggregate(customer))
	if errors.Is(err, persistence.ErrNotFound) || err == nil && head.Sequence == 0 {
		return nil, fmt.Errorf("customer %s: %w", customer, ErrNoHistory)
	}
	if errors.Is(err, persistence.ErrCorrupt) {
		return customers.Unreadable(customer, err), nil
	}
	if err != nil {
		return nil, err
	}
	d := customers.NewDoctor(s.hot, s.cold, s.kind)
	if repair {
		d.Housekeeping = s.hot
	}
	report, err := d.Examine(ctx, head, nil, func(checked uint64) error { return progress(checked, head.Sequence) })
	if err != nil {
		return nil, err
	}
	return customers.Report(customer, &report), nil
}
