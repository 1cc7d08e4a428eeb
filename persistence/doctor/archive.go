package doctor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"licensed/persistence"
)

// archive looks after the archiver: what it left in the hot tier, and segments that
// nothing names. Errors: those of a tier that cannot be read or, with repair, written.
func (x *examination) archive(ctx context.Context) error {
	x.report.Segments = len(x.named)
	for i := range x.links {
		l := &x.links[i]
		// The last root is the owner's own, which nothing may be trimmed of.
		if l.mark == nil || i == len(x.links)-1 {
			continue
		}
		if err := x.trimmed(ctx, l); err != nil {
			return err
		}
		if err := x.isStripped(ctx, l); err != nil {
			return err
		}
	}
	if x.Cold == nil || x.unread {
		return nil // Which segments are named is not known.
	}
	return x.orphans(ctx)
}

// trimmed looks for records of an archived partition in the hot tier, and deletes them if
// the examination repairs and has read every one of them from the archive.
func (x *examination) trimmed(ctx context.Context, l *link) error {
	rows, err := x.Hot.ReadRecords(ctx, l.partition(), 0, 1)
	if err == nil && len(rows) == 0 {
		return nil
	}
	if err != nil && !errors.Is(err, persistence.ErrCorrupt) { // One that cannot be decoded is one, too.
		return fmt.Errorf("records of %s: %w", l.key, err)
	}
	f := Finding{Severity: Warning, Check: "archive", From: l.base + 1, To: l.through, Message: fmt.Sprintf(
		"%s is archived and not trimmed from the hot tier; nobody reads those records", l.key)}
	switch {
	// Deleted only if every record was read from the archive: otherwise the hot tier may
	// have the last copy.
	case l.unread:
		f.Severity = Error
		f.Message = fmt.Sprintf("%s is marked as archived, which cannot be read, "+
			"but the hot tier still has records of it; "+
			"they may be the only copy: keep them, and ask for help", l.key)
	case x.Housekeeping != nil:
		if err := x.Housekeeping.DeleteRecords(ctx, l.partition()); err != nil {
			return fmt.Errorf("trim %s: %w", l.key, err)
		}
		f.Repaired = true
	}
	x.find(f)
	return nil
}

// isStripped demands that an archived root has only the fields of the chain, and no snapshot elsewhere.
func (x *examination) isStripped(ctx context.Context, l *link) error {
	if l.stripped && l.snapshotAt == "" {
		return nil
	}
	f := Finding{Severity: Warning, Check: "archive", Message: fmt.Sprintf(
		"root %s is archived and not stripped yet; the archiver will do it", l.key)}
	if l.snapshotAt != "" {
		f.Message = fmt.Sprintf("root %s has a snapshot in the archive, %s, that nothing is recovered from any more; "+
			"the archiver will delete it", l.key, l.snapshotAt)
	}
	// The snapshot goes before the root that names it: interrupted between the two, a
	// repetition finds the name and nothing behind it.
	if x.Housekeeping != nil && !l.unread && (l.snapshotAt == "" || x.Cold != nil) {
		if l.snapshotAt != "" {
			if err := x.Cold.DeleteSegment(ctx, l.snapshotAt); err != nil {
				return fmt.Errorf("delete snapshot %s: %w", l.snapshotAt, err)
			}
		}
		if err := x.Housekeeping.StripRoot(ctx, l.key, ""); err != nil {
			return fmt.Errorf("strip root %s: %w", l.key, err)
		}
		f.Repaired = true
	}
	x.find(f)
	return nil
}

// underWay is how old a segment is at most that an archiver may be about to mark.
const underWay = time.Hour

// orphans lists the aggregate's segments that no root names. It relies on all roots
// having been read.
func (x *examination) orphans(ctx context.Context) error {
	// Names of segments begin with the aggregate's id, so that those of one aggregate
	// follow one another.
	prefix := x.head.Partition.Aggregate + "/"
	const page = 1000
	for after := prefix; ; {
		names, err := x.Cold.Segments(ctx, after, page)
		if err != nil {
			return fmt.Errorf("segments of %s: %w", x.head.Partition.Aggregate, err)
		}
		for _, name := range names {
			if !strings.HasPrefix(name, prefix) {
				return nil
			}
			if after = name; !x.named[name] {
				x.orphan(name)
			}
		}
		if len(names) < page {
			return nil
		}
	}
}

// orphan reports a segment that no root names.
func (x *examination) orphan(name string) {
	severity, age := Warning, "of unknown age"
	if made, ok := madeAt(name); ok {
		old := x.now().Sub(made)
		age = fmt.Sprintf("%s old", old.Round(time.Second))
		if old < underWay {
			severity, age = Note, age+", an archiver may be about to name it"
		}
	}
	x.find(Finding{Severity: severity, Check: "archive", Message: fmt.Sprintf(
		"segment %s is named by no root, %s; it holds nothing that is not elsewhere, and takes only space", name, age)})
}

// madeAt returns when a segment was named, if its name tells: it ends with a UUID of version 7.
func madeAt(name string) (time.Time, bool) {
	u, err := uuid.Parse(name[strings.LastIndexByte(name, '/')+1:])
	if err != nil || u.Version() != 7 {
		return time.Time{}, false
	}
	return time.Unix(u.Time().UnixTime()), true
}
