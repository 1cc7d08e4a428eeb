package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"licensed/actors/license"
	"licensed/actors/license/policy"
	"licensed/messages/licensedv1"
	"licensed/persistence"
	"licensed/persistence/doctor"
	"licensed/persistence/pebble"
)

// Offline is the data of a node that is stopped, for checks that need no service. It holds the lock on
// the directory, so no node can start meanwhile. It is safe for concurrent use.
type Offline struct {
	store *pebble.Store
	cold  persistence.Archive // nil if there is none
	kind  *license.Kind
}

// Errors of offline checks.
var (
	// ErrNoStore says that a directory holds no store.
	ErrNoStore = errors.New("there is no store")
	// ErrNoHistory says that nothing ever happened to a customer.
	ErrNoHistory = errors.New("no history")
)

// OpenOffline opens the data and archive directories of a node that is stopped; of the configuration
// only these and the logger count. An archive that is missing is none. Errors: ErrLocked if the node
// is not stopped, ErrNoStore, ErrWrongArchive.
func OpenOffline(c Config) (*Offline, error) {
	if ok, err := holdsStore(c.Data); err != nil || !ok { // Opening would make one.
		return nil, errors.Join(err, fmt.Errorf("%s: %w", c.Data, ErrNoStore))
	}
	store, err := pebble.Open(c.Data, pebble.Options{Logger: c.Logger})
	if err != nil {
		return nil, err
	}
	// What is stored means the same under every policy.
	o := &Offline{store: store, kind: license.NewKind(policy.Default())}
	dir := c.ArchiveDir()
	if ok, err := holdsStore(dir); err != nil || !ok {
		return o, nil //nolint:nilerr // What was archived is then reported as out of reach.
	}
	id, err := os.ReadFile(filepath.Join(c.Data, archiveIDFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(err, store.Close())
	}
	cold, err := pebble.OpenArchive(dir, pebble.ArchiveOptions{ID: strings.TrimSpace(string(id)), Logger: c.Logger})
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	o.cold = cold
	return o, nil
}

// holdsStore reports whether a directory holds what the engine makes first.
func holdsStore(dir string) (bool, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return strings.HasPrefix(e.Name(), "MANIFEST-") }), err
}

// Close gives the directories back.
func (o *Offline) Close() error {
	var err error
	if o.cold != nil {
		err = o.cold.Close()
	}
	return errors.Join(err, o.store.Close())
}

// Customers returns up to limit ids of customers with a history, after the last id of the former page.
func (o *Offline) Customers(ctx context.Context, after string, limit int) ([]string, error) {
	return customers(ctx, o.store, after, limit)
}

// Verify checks a customer, and repairs what can be repaired with certainty if asked to. Errors:
// ErrNoHistory, and those of a disk that cannot be read.
func (o *Offline) Verify(
	ctx context.Context, customer string, repair bool, progress func(checked, total uint64) error,
) (*licensedv1.CustomerReport, error) {
	head, err := doctor.Recover(ctx, o.store, customer+aggregateSuffix)
	if errors.Is(err, persistence.ErrNotFound) || err == nil && head.Sequence == 0 {
		return nil, fmt.Errorf("customer %s: %w", customer, ErrNoHistory)
	}
	if errors.Is(err, persistence.ErrCorrupt) {
		return unreadable(customer, err), nil
	}
	if err != nil {
		return nil, err
	}
	d := newDoctor(o.store, o.cold, o.kind)
	if repair {
		d.Housekeeping = o.store
	}
	report, err := d.Examine(ctx, head, nil, func(checked uint64) error { return progress(checked, head.Sequence) })
	if err != nil {
		return nil, err
	}
	return reportOf(customer, &report), nil
}
