package doctor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"licensed/persistence"
	"licensed/persistence/tiered"
)

// Severity of a finding.
type Severity uint8

// Severities. Note: nothing is wrong. Warning: nothing is lost, something should be cleaned up. Error: the
// history is damaged or incomplete.
const (
	Note Severity = iota
	Warning
	Error
)

// Finding is something that an examination came across.
type Finding struct {
	Severity Severity
	// Check names the check, "roots", "records", "archive", …
	Check string
	// Message says what is wrong, where, and what to do.
	Message string
	// From and To are the events it concerns; 0 if none in particular.
	From, To uint64
	// Repaired says that the finding was repaired.
	Repaired bool
}

// Report of an examination.
type Report struct {
	// Head is the sequence of the last event, Events how many could be read, Archived those among them
	// from the archive.
	Head, Events, Archived uint64
	// Roots of the history, and those that are not part of it: left by fenced writers, or by activations
	// that ended before their root was durable.
	Roots, Strays int
	// Segments that roots name.
	Segments int
	// Snapshots that equal the replay.
	Snapshots int
	// Live says that the live state was compared.
	Live bool
	// ReplayedFrom is the event after which the replay began; 0 unless earlier ones are missing.
	ReplayedFrom uint64
	Findings     []Finding
}

// Replay follows the events of one aggregate; *actors.Replay does.
type Replay interface {
	// Restore starts again at a root's snapshot.
	Restore(root *persistence.Root) error
	// Apply applies the next event.
	Apply(r *persistence.Record) error
	// Check compares the state with the snapshot of a root at that position, and Pass does to it what
	// writing the root did, where there is no snapshot to compare with.
	Check(root *persistence.Root) error
	Pass(root *persistence.Root)
}

// Doctor examines aggregates. It is safe for concurrent use. Hot and NewReplay must be set.
type Doctor struct {
	Hot tiered.HotTier
	// Cold is nil where there is no archive.
	Cold persistence.Archive
	// Housekeeping repairs; nil for reports only.
	Housekeeping persistence.Housekeeping
	// NewReplay returns a replay of an aggregate before its first event.
	NewReplay func(aggregate string) Replay
	// Now is the clock (nil: time.Now).
	Now func() time.Time
	// Page is the number of roots that are read at once (0: 32).
	Page int
}

// maxFindings is the number of findings of a check that are listed.
const maxFindings = 20

// Examine checks the aggregate whose history ends at the head. Live, if not nil, is called after the last
// event with the replay and the head's root, to compare the state in memory as of that event. Progress,
// if not nil, is called now and then; its error ends the examination. Errors: its, and those of a store
// that cannot be read (persistence.ErrUnavailable); what is damaged is a finding.
func (d *Doctor) Examine(
	ctx context.Context, head persistence.Head, live func(Replay, *persistence.Root) error,
	progress func(checked uint64) error,
) (Report, error) {
	x := &examination{
		Doctor: d, head: head, live: live, progress: progress, report: Report{Head: head.Sequence},
		named: map[string]bool{}, counts: map[string]int{},
	}
	if err := x.roots(ctx); err != nil {
		return x.report, err
	}
	if err := x.events(ctx); err != nil {
		return x.report, err
	}
	if err := x.archive(ctx); err != nil {
		return x.report, err
	}
	for check, n := range x.counts {
		if n > maxFindings {
			x.report.Findings = append(x.report.Findings, Finding{
				Severity: Warning,
				Check:    check,
				Message:  fmt.Sprintf("%d more findings of this check are not listed", n-maxFindings),
			})
		}
	}
	return x.report, nil
}

// Recover returns where the history of an aggregate ends in a store that nobody writes to, as its next
// owner would find it. Errors: persistence.ErrNotFound if it has none, persistence.ErrCorrupt.
func Recover(ctx context.Context, hot persistence.Journal, aggregate string) (persistence.Head, error) {
	root, err := hot.TopRoot(ctx, aggregate)
	if err != nil {
		return persistence.Head{}, err
	}
	head := persistence.Head{
		Partition: root.Partition(), Base: root.Base, Parent: root.Parent, ParentIncarnation: root.ParentIncarnation,
		Sequence: root.Base,
	}
	const page = 512
	// As an activation does ([R4]): the history ends with the last whole command.
	for at := root.Base; ; {
		rows, err := hot.ReadRecords(ctx, root.Partition(), at, page)
		if errors.Is(err, persistence.ErrCorrupt) {
			// The end cannot be told; the last whole command before is as far as one can vouch.
			return head, nil
		}
		if err != nil {
			return head, err
		}
		for i := range rows {
			if rows[i].Sequence != at+1 {
				return head, nil
			}
			if at++; rows[i].Index+1 == rows[i].Count { // a command that is not whole was not acknowledged
				head.Sequence = at
			}
		}
		if len(rows) < page {
			return head, nil
		}
	}
}

// examination of one aggregate. It is used by one goroutine: that of Examine.
type examination struct {
	*Doctor
	head     persistence.Head
	live     func(Replay, *persistence.Root) error
	progress func(uint64) error
	report   Report
	counts   map[string]int // findings by check

	links  []link          // oldest first
	named  map[string]bool // segments that a root names, of the history or not
	broken uint64          // the chain of roots is broken below that event
	unread bool            // some root could not be read, so its segments are not in named
}

// link is what is kept of a root of the history; the snapshot is read again when it is compared.
type link struct {
	key         persistence.RootKey
	incarnation persistence.Incarnation
	base        uint64
	through     uint64 // the base of its child
	time        time.Time
	mark        *persistence.ArchiveMark
	stripped    bool
	snapshotAt  string
	damaged     bool // its snapshot cannot be read
	bare        bool // it has no snapshot
	unread      bool // some of its records could not be read
}

// partition returns the partition below the root.
func (l *link) partition() persistence.Partition {
	return persistence.Partition{RootKey: l.key, Incarnation: l.incarnation}
}

// find adds a finding, or only counts it if the check has enough of them.
func (x *examination) find(f Finding) {
	if x.counts[f.Check]++; x.counts[f.Check] <= maxFindings {
		x.report.Findings = append(x.report.Findings, f)
	}
}

// now returns the time of the examination's clock.
func (x *examination) now() time.Time {
	if x.Now == nil {
		return time.Now()
	}
	return x.Now()
}
