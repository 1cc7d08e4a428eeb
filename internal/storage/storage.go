// Package storage opens what a process keeps histories in: the store and the archive that its settings name.
//
// # The model
//
//	Config ─► Open ─► Hot   the embedded store, which locks its directory, or the one that a cluster shares
//	                  Cold  the archive tier: a directory, or a keyspace; nil for none
//
// A store on Cassandra that cannot be reached yet is awaited ([Await]). Operators apply the schemas of keyspaces
// ([ApplySchema]); in development a process does so when it starts.
package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"licensed/internal/failpoint"
	"licensed/internal/planted"
	"licensed/internal/tlsfiles"
	"licensed/messages/licensedv1"
	"licensed/persistence"
	"licensed/persistence/cassandra"
	"licensed/persistence/pebble"
	"licensed/persistence/tiered"
)

// Errors of Open, besides those of a store or archive that cannot be reached.
var (
	// ErrLocked says that another process has the data directory.
	ErrLocked = persistence.ErrLocked
	// ErrUnsafe says that the setup of a keyspace can lose acknowledged events; the error names what it is accepted by.
	ErrUnsafe = cassandra.ErrUnsafe
	// ErrSchema says that the keyspace, or its schema, is missing or of another version.
	ErrSchema = cassandra.ErrSchema
	// ErrCredentials says that Cassandra refuses user or password.
	ErrCredentials = cassandra.ErrCredentials
	// ErrWrongArchive says that the archive's directory does not hold the archive that the history is in.
	ErrWrongArchive = pebble.ErrWrongArchive
)

// Options of Open are what does not come from settings.
type Options struct {
	// StoreFiles and ArchiveFiles are the files that an embedded store and archive may have open.
	StoreFiles, ArchiveFiles int
	// Listener hears what happens.
	Listener Listener
	// Registry gets the metrics of the store.
	Registry prometheus.Registerer
	// Now is the wall clock.
	Now func() time.Time
	Log *slog.Logger
}

// Listener hears what happens. Functions that are nil are not called.
type Listener struct {
	// Failed hears, at most once, that the embedded store stopped: a disk error, after which it can no longer tell what
	// is durable.
	Failed func(error)
}

// withDefaults fills in functions that are nil.
func (l Listener) withDefaults() Listener {
	if l.Failed == nil {
		l.Failed = func(error) {}
	}
	return l
}

// Storage is an open store with its archive. It is safe for concurrent use.
type Storage struct {
	// Hot is the store.
	Hot persistence.Store
	// Cold is the archive; nil for none.
	Cold persistence.Archive
	// ArchiveLocation says where the archive is: a directory, or contact points and keyspace.
	ArchiveLocation string
	// ArchiveSize returns the bytes of the archive's files; nil if they are not on this machine.
	ArchiveSize func(context.Context) (uint64, error)

	// Certificates of connections to Cassandra, by tier: store, archive.
	Certificates map[string]*tlsfiles.Certificates

	config  *Config
	options Options
	status  func(context.Context) *licensedv1.StoreStatus
	risks   []cassandra.Risk // that were logged
	// closers close what was opened, the last first.
	closers []func() error
}

// Open opens the store, then the archive. After an error nothing is left open.
func Open(ctx context.Context, c Config, o Options) (*Storage, error) {
	o.Listener = o.Listener.withDefaults()
	s := &Storage{config: &c, options: o, Certificates: make(map[string]*tlsfiles.Certificates)}
	for _, open := range []func(context.Context) error{s.openStore, s.openArchive} {
		if err := open(ctx); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

// Close closes the archive, then the store.
func (s *Storage) Close() error {
	var errs []error
	for _, c := range slices.Backward(s.closers) {
		errs = append(errs, c())
	}
	return errors.Join(errs...)
}

// Status returns kind, location and figures of the store.
func (s *Storage) Status(ctx context.Context) *licensedv1.StoreStatus { return s.status(ctx) }

// Remains are what is left, or may be left, of a customer that was forgotten, for people.
func (s *Storage) Remains() []string {
	remains := []string{
		"the tombstone: an HMAC of the customer id, and the time; it keeps the id from coming back",
		"the record of this call in the audit log, with the customer id and the reason",
		"log lines and traces that name the customer, until they expire",
		"backups and exports made before: delete them, or forget the customer again after each restore",
		"commands that a gateway accepted while the owner was unavailable, until it hands them in and they are refused",
	}
	if s.config.Store == "" && s.config.Shared == nil {
		remains = append(remains, "the list of tables (MANIFEST) of the embedded store and archive, which may have "+
			"the customer id, and nothing else, until the second start from now")
	}
	if s.config.Store != "" || isCassandra(s.config.Archive) {
		remains = append(remains, "files of Cassandra, until it compacts them after gc_grace_seconds (10 days), and "+
			"its own snapshots", "events below a root that was never recorded, which no reader finds")
	}
	return remains
}

// Reader returns a reader of histories in both tiers.
func (s *Storage) Reader() *tiered.Reader {
	if planted.Bug(planted.HistoryWithoutArchive) {
		return tiered.NewReader(s.Hot, nil, s.options.Now)
	}
	return tiered.NewReader(s.Hot, s.Cold, s.options.Now)
}

// Journal returns what histories are recorded in, and read from when customers are loaded.
func (s *Storage) Journal() persistence.Journal { return tiered.NewJournal(s.Hot, s.Cold) }

// openStore opens the store that the settings name.
func (s *Storage) openStore(ctx context.Context) error {
	switch {
	case s.config.Shared != nil:
		s.Hot = s.config.Shared
		s.status = func(context.Context) *licensedv1.StoreStatus { return &licensedv1.StoreStatus{Kind: "shared"} }
		return nil
	case s.config.Store == "":
		return s.openPebble()
	}
	return s.openCassandra(ctx)
}

// openPebble opens the embedded store, which locks its directory.
func (s *Storage) openPebble() error {
	store, err := pebble.Open(s.config.Data, pebble.Options{
		Logger: s.options.Log, MaxOpenFiles: s.options.StoreFiles,
		Listener: pebble.Listener{
			Failed: func(err error) { s.options.Listener.Failed(fmt.Errorf("the store stopped: %w", err)) },
		},
	})
	if err != nil {
		return err
	}
	s.closers = append(s.closers, store.Close)
	s.Hot = failpoint.Store(store)
	s.status = func(ctx context.Context) *licensedv1.StoreStatus { return pebbleStatus(ctx, s.config.Data, store) }
	s.options.Registry.MustRegister(newPebbleMetrics(store))
	return nil
}

// pebbleStatus returns the figures of the embedded store.
func pebbleStatus(ctx context.Context, dir string, store *pebble.Store) *licensedv1.StoreStatus {
	s := &licensedv1.StoreStatus{Kind: "pebble", Location: dir}
	if m, err := store.Metrics(ctx); err == nil { // If it stopped, the node's state tells.
		s.DiskBytes, s.Writes, s.Syncs = m.Engine.DiskSpaceUsage(), m.Writes, m.Groups
	}
	return s
}

// openArchive opens the archive tier, if there is one. That it fails later is no reason for the process to stop.
func (s *Storage) openArchive(ctx context.Context) error {
	if dir := s.config.ArchiveDir(); dir != "" {
		return s.openArchiveDir(dir)
	}
	o, ok, err := s.config.archiveOptions()
	if err != nil || !ok {
		return err
	}
	store, err := Await(ctx, s.config.StoreWait, s.options.Log, "archive", func() (*cassandra.Archive, error) {
		if err := s.develop(ctx, o, cassandra.ArchiveSchema); err != nil {
			return nil, err
		}
		return cassandra.OpenArchive(ctx, o)
	})
	if err != nil {
		return err
	}
	s.closers = append(s.closers, store.Close)
	s.Certificates["archive"] = o.Certificates
	s.tellRisks(store.Risks())
	s.Cold, s.ArchiveLocation = failpoint.Archive(store), cassandraLocation(&o)
	return nil
}

// archiveIDFile, beside the embedded store, has the id of the archive that the history is in.
const archiveIDFile = "archive.id"

// ArchiveID returns the id of the archive that the history in a data directory is in; empty if it has none yet.
func ArchiveID(data string) (string, error) {
	id, err := os.ReadFile(filepath.Join(data, archiveIDFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	return strings.TrimSpace(string(id)), nil
}

// openArchiveDir opens an archive in a directory. That another archive, or none, is where this history's
// should be, is a reason not to start: every archived event would seem lost, and new ones would be
// written to the wrong place.
func (s *Storage) openArchiveDir(dir string) error {
	id, err := ArchiveID(s.config.Data)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.config.Data, 0o700); err != nil {
		return err
	}
	// It refuses the archive of another id, and an empty directory where one is expected.
	store, err := pebble.OpenArchive(dir,
		pebble.ArchiveOptions{ID: id, Logger: s.options.Log, Now: s.options.Now, MaxOpenFiles: s.options.ArchiveFiles})
	if err != nil {
		return err
	}
	s.closers = append(s.closers, store.Close)
	if id == "" && store.ID() != "" {
		if err := writeDurably(filepath.Join(s.config.Data, archiveIDFile), store.ID()+"\n"); err != nil {
			return fmt.Errorf("remember the archive: %w", err)
		}
	}
	s.Cold, s.ArchiveLocation, s.ArchiveSize = failpoint.Archive(store), dir, store.Size
	return nil
}

// writeDurably writes a small file that appears as a whole, and survives a power loss
// once the function returns: file and directory are synced.
func writeDurably(path, content string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	// A crash in between leaves a file that nobody reads.
	_, err = f.WriteString(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
