package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"licensed/actors"
	"licensed/internal/failpoint"
	"licensed/messages/licensedv1"
	"licensed/persistence"
	"licensed/persistence/archive"
	"licensed/persistence/cassandra"
	"licensed/persistence/pebble"
)

// Files beside the embedded store that belong to the archive: the id of the one that the history is in,
// and where the archiver's scan stood.
const (
	archiveIDFile   = "archive.id"
	archiveScanFile = "archive.scan"
)

// ErrWrongArchive says that the archive's directory does not hold the archive that the history is in.
var ErrWrongArchive = pebble.ErrWrongArchive

// archiveSource is the archive and what is told of it.
type archiveSource struct {
	location string
	size     func(context.Context) (uint64, error) // of its files; nil if that is not known here
	metrics  *archiveMetrics

	mu        sync.Mutex
	totals    archive.Result // since the start
	failures  uint64
	lastError string
}

// openArchive opens the archive tier, if there is one. That it fails later is no reason for the node to
// stop.
func (n *Node) openArchive(ctx context.Context) error {
	if dir := n.config.ArchiveDir(); dir != "" {
		return n.openArchiveDir(dir)
	}
	o, ok, err := n.config.archiveOptions()
	if err != nil || !ok {
		return err
	}
	store, err := awaitStore(ctx, n, "archive", func() (*cassandra.Archive, error) {
		if err := n.develop(ctx, o, cassandra.ArchiveSchema); err != nil {
			return nil, err
		}
		return cassandra.OpenArchive(ctx, o)
	})
	if err != nil {
		return err
	}
	n.noteRisks(store.Risks())
	n.push("archive", func(context.Context) error { return store.Close() })
	n.cold, n.archive = failpoint.Archive(store), &archiveSource{location: cassandraLocation(&o)}
	return nil
}

// openArchiveDir opens an archive in a directory. That another archive, or none, is where this history's
// should be, is a reason not to start: every archived event would seem lost, and new ones would be
// written to the wrong place.
func (n *Node) openArchiveDir(dir string) error {
	idFile := filepath.Join(n.config.Data, archiveIDFile)
	id, err := os.ReadFile(idFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(n.config.Data, 0o755); err != nil {
		return err
	}
	store, err := pebble.OpenArchive(dir, pebble.ArchiveOptions{ID: strings.TrimSpace(string(id)), Logger: n.log, Now: n.config.Now, MaxOpenFiles: n.files.archive})
	if err != nil {
		return err
	}
	n.push("archive", func(context.Context) error { return store.Close() })
	if len(id) == 0 && store.ID() != "" {
		if err := writeDurably(idFile, store.ID()+"\n"); err != nil {
			return fmt.Errorf("remember the archive: %w", err)
		}
	}
	n.cold, n.archive = failpoint.Archive(store), &archiveSource{location: dir, size: store.Size}
	return nil
}

// writeDurably writes a small file that appears as a whole.
func writeDurably(path, content string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
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

// startArchiver starts moving closed history to the archive.
func (h *host) startArchiver() {
	n := h.node
	o := archive.WorkerOptions{
		Hot: n.store, Cold: n.cold, Owner: &archiveOwner{h}, Config: n.config.Archiver, Now: n.config.Now,
		Retention: func() (time.Duration, bool) { return n.policy.Kind().Policy().History() },
		Listener:  archive.WorkerListener{Archived: n.archived, Failed: n.archiveFailed, Scanned: n.archiveScanned},
	}
	if n.config.Store == "" {
		n.keepScan(&o)
	}
	w := archive.NewWorker(o)
	w.Start()
	h.archiver.Store(w)
}

// keepScan keeps where the archiver's scan is in the data directory. A lost position costs a longer way
// round; with other stores a process has no directory, and each run begins anew.
func (n *Node) keepScan(o *archive.WorkerOptions) {
	scanFile := filepath.Join(n.config.Data, archiveScanFile)
	position, err := os.ReadFile(scanFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		n.log.Warn("archiver: scan restarted", "error", err)
	}
	o.Position = string(position)
	o.SavePosition = func(p string) {
		if err := os.WriteFile(scanFile, []byte(p), 0o644); err != nil {
			n.log.Warn("archiver: scan position not saved", "error", err)
		}
	}
}

func (n *Node) archived(i archive.ArchivedInfo) {
	a := n.archive
	a.metrics.archived(i)
	a.mu.Lock()
	a.totals.Partitions += i.Partitions
	a.totals.Records += i.Records
	a.totals.Segments += i.Segments
	a.totals.Bytes += i.Bytes
	a.lastError = ""
	a.mu.Unlock()
	n.log.Debug("archived", "customer", customerOf(i.Aggregate), "events", i.Records, "segments", i.Segments,
		"bytes", i.Bytes, "through", i.Through, "snapshot", i.Snapshot, "duration", i.Duration)
}

// archiveFailed reports a failure: of a tier once until it is well again, of a customer each time.
func (n *Node) archiveFailed(i archive.FailedInfo) {
	a := n.archive
	a.metrics.failures.WithLabelValues(archiveCauses.of(i.Err)).Inc()
	a.mu.Lock()
	first := a.lastError == ""
	a.failures++
	a.lastError = i.Err.Error()
	a.mu.Unlock()
	switch {
	case !i.Retry:
		n.log.Error("history not archived, kept in the hot tier", "customer", customerOf(i.Aggregate), "error", i.Err)
	case first:
		n.log.Warn("archiving paused; requests are not affected", "error", i.Err)
	}
}

func (n *Node) archiveScanned(i archive.ScannedInfo) {
	n.archive.metrics.scanned.Add(float64(i.Aggregates))
	n.log.Debug("archiver: scan completed", "customers", i.Aggregates, "due", i.Due, "duration", i.Duration)
}

// archiveCauses are why something could not be archived.
var archiveCauses = causes{
	{archive.ErrShortfall, "shortfall"},
	{archive.ErrMismatch, "mismatch"},
	{persistence.ErrCorrupt, "corrupt"},
	{persistence.ErrClosed, "closed"},
	{persistence.ErrUnknownOutcome, "unknown_outcome"},
	{persistence.ErrUnavailable, "unavailable"},
}

// archiveStatus returns what operators want to know of the archive, nil if there is none.
func (n *Node) archiveStatus(context.Context) *licensedv1.ArchiveStatus {
	if n.archive == nil || n.host.Load() == nil {
		return nil
	}
	st, a := n.archiverStats(), n.archive
	a.mu.Lock()
	defer a.mu.Unlock()
	out := &licensedv1.ArchiveStatus{
		Location: a.location, WaitingCustomers: uint64(st.Waiting), Lag: durationpb.New(max(st.Lag, st.Failing).Round(time.Millisecond)),
		ArchivedEvents: uint64(a.totals.Records), Segments: uint64(a.totals.Segments), SegmentBytes: uint64(a.totals.Bytes),
		Failures: a.failures,
	}
	if st.Failing > 0 {
		out.LastError = a.lastError
	}
	return out
}

// archiveOwner lets the archiver ask the host. It implements archive.Owner.
type archiveOwner struct{ h *host }

func customerOf(aggregate string) string { return strings.TrimSuffix(aggregate, aggregateSuffix) }

// Owns implements archive.Owner.
func (o *archiveOwner) Owns(aggregate string) bool {
	return o.h.owns(aggregate) && strings.HasSuffix(aggregate, aggregateSuffix)
}

// Resident implements archive.Owner.
func (o *archiveOwner) Resident(aggregate string) bool {
	return o.h.Resident(customerOf(aggregate))
}

// Head implements archive.Owner.
func (o *archiveOwner) Head(ctx context.Context, aggregate string) (persistence.Head, error) {
	a, err := o.h.Query(ctx, customerOf(aggregate), actors.HeadQuery{Closed: true})
	return a.Head, err
}

// Holds implements archive.Owner. The confirmation comes first: it is that of whatever incarnation the
// process has now, and only then is it certain that the host's is still that one.
func (o *archiveOwner) Holds(ctx context.Context, h persistence.Head) bool {
	return o.h.node.confirmed(ctx) && o.h.holds(h)
}

// Archived implements archive.Owner.
func (o *archiveOwner) Archived(aggregate string, through uint64) {
	o.h.NoteArchived(customerOf(aggregate), through)
}

// Release implements archive.Owner.
func (o *archiveOwner) Release(ctx context.Context, aggregate string) {
	o.h.Passivate(ctx, customerOf(aggregate))
}
