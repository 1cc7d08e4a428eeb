package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"licensed/actors"
	"licensed/internal/customers"
	"licensed/messages/licensedv1"
	"licensed/persistence"
	"licensed/persistence/archive"
)

// archiveScanFile, beside the embedded store, says where the archiver's scan stood.
const archiveScanFile = "archive.scan"

// archiveSource is what is told of the archive, and its metrics.
type archiveSource struct {
	metrics *archiveMetrics

	mu        sync.Mutex
	totals    archive.Result // since the start
	failures  uint64
	lastError string
}

// startArchiver starts moving closed history to the archive.
func (h *Host) startArchiver() {
	s := h.hosts
	o := archive.WorkerOptions{
		// The owner answers for the customers that this host holds: the archiver asks it
		// before each step.
		Hot: s.Storage.Hot, Cold: s.Storage.Cold, Owner: &archiveOwner{h}, Config: s.Archiver, Now: s.Now,
		Retention: func() (time.Duration, bool) { return s.Policy.Kind().Policy().History() },
		Listener:  archive.WorkerListener{Archived: s.archived, Failed: s.archiveFailed, Scanned: s.archiveScanned},
	}
	if s.Data != "" {
		s.keepScan(&o)
	}
	w := archive.NewWorker(o)
	w.Start()
	h.archiver.Store(w)
}

// keepScan keeps where the archiver's scan is in the data directory. A lost position costs a longer way round.
func (s *Hosts) keepScan(o *archive.WorkerOptions) {
	scanFile := filepath.Join(s.Data, archiveScanFile)
	position, err := os.ReadFile(scanFile)
	// Without a position, the scan begins anew.
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.Log.Warn("archiver: scan restarted", "error", err)
	}
	o.Position = string(position)
	o.SavePosition = func(p string) {
		if err := os.WriteFile(scanFile, []byte(p), 0o600); err != nil {
			s.Log.Warn("archiver: scan position not saved", "error", err)
		}
	}
}

// forgetScan sees to it that the file with the position of the archiver's scan does not name a customer that was
// forgotten. The scan then begins anew after a restart.
func (s *Hosts) forgetScan(aggregate string) {
	if s.Data == "" {
		return
	}
	scanFile := filepath.Join(s.Data, archiveScanFile)
	if position, err := os.ReadFile(scanFile); err != nil || string(position) != aggregate {
		return // the next start tells if the file cannot be read
	}
	if err := os.Remove(scanFile); err != nil {
		s.Log.Error("scan position of the archiver names a customer that was forgotten; delete the file",
			"file", scanFile, "error", err)
	}
}

// archived counts what was moved.
func (s *Hosts) archived(i archive.ArchivedInfo) {
	a := s.archive
	a.metrics.archived(i)
	a.mu.Lock()
	a.totals.Partitions += i.Partitions
	a.totals.Records += i.Records
	a.totals.Segments += i.Segments
	a.totals.Bytes += i.Bytes
	a.lastError = ""
	a.mu.Unlock()
	s.Log.Debug("archived", "customer", customers.ID(i.Aggregate), "events", i.Records, "segments", i.Segments,
		"bytes", i.Bytes, "through", i.Through, "snapshot", i.Snapshot, "duration", i.Duration)
}

// archiveFailed reports a failure: of a tier once until it is well again, of a customer each time.
func (s *Hosts) archiveFailed(i archive.FailedInfo) {
	a := s.archive
	a.metrics.failures.WithLabelValues(archiveCauses.of(i.Err)).Inc()
	a.mu.Lock()
	first := a.lastError == ""
	// Only the first of a series is logged as such: a tier that is down fails for every
	// customer.
	a.failures++
	a.lastError = i.Err.Error()
	a.mu.Unlock()
	switch {
	case !i.Retry:
		s.Log.Error("history not archived, kept in the hot tier", "customer", customers.ID(i.Aggregate), "error", i.Err)
	case first:
		s.Log.Warn("archiving paused; requests are not affected", "error", i.Err)
	}
}

// archiveScanned counts a complete scan.
func (s *Hosts) archiveScanned(i archive.ScannedInfo) {
	s.archive.metrics.scanned.Add(float64(i.Aggregates))
	s.Log.Debug("archiver: scan completed", "customers", i.Aggregates, "due", i.Due, "duration", i.Duration)
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

// ArchiveStatus returns what operators want to know of the archive; nil if there is none, or no host yet.
func (s *Hosts) ArchiveStatus() *licensedv1.ArchiveStatus {
	if s.archive == nil || s.present.Load() == nil {
		return nil
	}
	st, a := s.archiverStats(), s.archive
	a.mu.Lock()
	defer a.mu.Unlock()
	out := &licensedv1.ArchiveStatus{
		Location:         s.Storage.ArchiveLocation,
		WaitingCustomers: uint64(st.Waiting),
		// The longer of the two: while archiving fails, no customer's lag is measured.
		Lag:            durationpb.New(max(st.Lag, st.Failing).Round(time.Millisecond)),
		ArchivedEvents: uint64(a.totals.Records),
		Segments:       uint64(a.totals.Segments),
		SegmentBytes:   uint64(a.totals.Bytes),
		Failures:       a.failures,
	}
	if st.Failing > 0 {
		out.LastError = a.lastError
	}
	return out
}

// archiveOwner lets the archiver ask the host. It implements archive.Owner.
type archiveOwner struct{ h *Host }

// Owns implements archive.Owner.
func (o *archiveOwner) Owns(aggregate string) bool {
	return o.h.owns(aggregate) && customers.Is(aggregate)
}

// Resident implements archive.Owner.
func (o *archiveOwner) Resident(aggregate string) bool {
	return o.h.Resident(customers.ID(aggregate))
}

// Head implements archive.Owner.
func (o *archiveOwner) Head(ctx context.Context, aggregate string) (persistence.Head, error) {
	a, err := o.h.Query(ctx, customers.ID(aggregate), actors.HeadQuery{Closed: true})
	return a.Head, err
}

// Holds implements archive.Owner. The confirmation comes first: it is that of whatever incarnation the
// process has now, and only then is it certain that the host's is still that one.
func (o *archiveOwner) Holds(ctx context.Context, h persistence.Head) bool {
	return o.h.hosts.Confirmed(ctx) && o.h.holds(h)
}

// Archived implements archive.Owner.
func (o *archiveOwner) Archived(aggregate string, through uint64) {
	o.h.NoteArchived(customers.ID(aggregate), through)
}

// Forget implements archive.Owner.
func (o *archiveOwner) Forget(ctx context.Context, aggregate string) error {
	a, err := o.h.forget(ctx, customers.ID(aggregate))
	if errors.Is(err, actors.ErrNotOwner) {
		return fmt.Errorf("%w: %w", archive.ErrNotHeld, err)
	}
	if r, ok := a.Value.(*licensedv1.ForgetCustomerResponse); ok && err == nil {
		o.h.hosts.Log.Info("deleted what was left of a forgotten customer", "tombstone", r.Tombstone,
			"events", r.Events, "roots", r.Roots, "segments", r.Segments)
	}
	return err
}

// Release implements archive.Owner.
func (o *archiveOwner) Release(ctx context.Context, aggregate string) {
	o.h.Passivate(ctx, customers.ID(aggregate))
}
