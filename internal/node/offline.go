package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

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
	kind  *license.Kind
}

// ErrNoStore says that a directory holds no store.
var ErrNoStore = errors.New("there is no store")

// OpenOffline opens the data directory of a node that is stopped. Errors: ErrLocked if it is not, ErrNoStore.
func OpenOffline(dir string, log *slog.Logger) (*Offline, error) {
	// Opening would make one.
	found, err := filepath.Glob(filepath.Join(dir, "MANIFEST-*"))
	if _, statErr := os.Stat(dir); err != nil || len(found) == 0 && (statErr == nil || errors.Is(statErr, fs.ErrNotExist)) {
		return nil, fmt.Errorf("%s: %w", dir, ErrNoStore)
	} else if statErr != nil {
		return nil, statErr
	}
	store, err := pebble.Open(dir, pebble.Options{Logger: log})
	if err != nil {
		return nil, err
	}
	// What is stored means the same under every policy.
	return &Offline{store: store, kind: license.NewKind(policy.Default())}, nil
}

// Close gives the directory back.
func (o *Offline) Close() error { return o.store.Close() }

// Customers returns up to limit ids of customers with a history, after the last id of the former page.
func (o *Offline) Customers(ctx context.Context, after string, limit int) ([]string, error) {
	return customers(ctx, o.store, after, limit)
}

// Verify checks a customer, and mends what can be mended with certainty if asked to. Errors:
// persistence.ErrNotFound, and those of a disk that cannot be read.
func (o *Offline) Verify(
	ctx context.Context, customer string, mend bool, progress func(checked, total uint64) error,
) (*licensedv1.CustomerReport, error) {
	head, err := doctor.Recover(ctx, o.store, customer+aggregateSuffix)
	if err != nil {
		return nil, err
	}
	d := newDoctor(o.store, nil, o.kind)
	if h, ok := persistence.Store(o.store).(persistence.Housekeeping); ok && mend {
		d.Housekeeping = h
	}
	report, err := d.Examine(ctx, head, nil, func(checked uint64) error { return progress(checked, head.Sequence) })
	if err != nil {
		return nil, err
	}
	return reportOf(customer, &report), nil
}
