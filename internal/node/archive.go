package node

import (
	"context"
	"errors"
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

// archiveSource is what is told of the archive.
type archiveSource struct {
	metrics *archiveMetrics

	mu        sync.Mutex
	totals    archive.Result // since the start
	failures  uint64
	lastError string
}

// startArchiver starts moving closed history to the archive.
func (h *host) startArchiver() {
	n := h.node
	o := archive.WorkerOptions{
		Hot: n.storage.Hot, Cold: n.storage.Cold, Owner: &archiveOwner{h}, Config: n.config.Archiver, Now: n.config.Now,
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
	n.log.Debug("archived", "customer", customers.ID(i.Aggregate), "events", i.Records, "segments", i.Segments,
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
		n.log.Error("history not archived, kept in the hot tier", "customer", customers.ID(i.Aggregate), "error", i.Err)
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
		Location: n.storage.ArchiveLocation, WaitingCustomers: uint64(st.Waiting), Lag: durationpb.New(max(st.Lag, st.Failing).Round(time.Millisecond)),
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
	return o.h.node.confirmed(ctx) && o.h.holds(h)
}

// Archived implements archive.Owner.
func (o *archiveOwner) Archived(aggregate string, through uint64) {
	o.h.NoteArchived(customers.ID(aggregate), through)
}

// Release implements archive.Owner.
func (o *archiveOwner) Release(ctx context.Context, aggregate string) {
	o.h.Passivate(ctx, customers.ID(aggregate))
}
