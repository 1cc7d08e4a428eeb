package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"licensed/persistence"
)

// child is what a root says about its parent.
type child struct {
	key         persistence.RootKey
	base        uint64
	parent      persistence.RootKey
	incarnation persistence.Incarnation
}

// roots follows the chain from the head to the first root, and counts the roots beside
// it. It needs all roots of the aggregate, highest first. Errors: those of a store that
// cannot be read.
func (x *examination) roots(ctx context.Context) error {
	h := &x.head
	// The head is the owner's word for its own root, which is checked like a parent.
	// So the same checks apply to it as to all others.
	last := child{base: h.Sequence, parent: h.Partition.RootKey, incarnation: h.Partition.Incarnation}
	if last.parent.Version == 0 { // The owner found no root.
		last = child{}
	}
	page := x.Page
	if page == 0 {
		page = 32
	}
	// All roots of the aggregate, the highest first: below is the last one seen.
	var below persistence.RootKey
	for {
		roots, err := x.Hot.ReadRoots(ctx, h.Partition.Aggregate, below, page)
		if errors.Is(err, persistence.ErrCorrupt) {
			return x.oneByOne(ctx, &last, err)
		}
		if err != nil {
			return fmt.Errorf("roots of %s: %w", h.Partition.Aggregate, err)
		}
		for i := range roots {
			x.root(&roots[i], &last)
			below = roots[i].Key
		}
		if len(roots) < page {
			break
		}
	}
	if !last.parent.IsZero() {
		x.lost(&last, errors.New("it is missing"))
	}
	x.complete(&last)
	return nil
}

// oneByOne follows the rest of the chain where a page of roots cannot be read, because one among them is
// damaged.
func (x *examination) oneByOne(ctx context.Context, last *child, damage error) error {
	x.unread = true
	for !last.parent.IsZero() {
		// Only those of the chain: strays are passed over.
		r, err := x.Hot.ReadRoot(ctx, last.parent)
		if errors.Is(err, persistence.ErrCorrupt) || errors.Is(err, persistence.ErrNotFound) {
			x.lost(last, err)
			break
		}
		if err != nil {
			return fmt.Errorf("root %s: %w", last.parent, err)
		}
		x.root(&r, last)
	}
	if last.parent.IsZero() {
		x.find(Finding{Severity: Warning, Check: "roots", Message: fmt.Sprintf(
			"a root that is no part of the history cannot be read, so not all of them were counted: %v", damage)})
	}
	x.complete(last)
	return nil
}

// complete puts the chain in order and says whether it begins at the beginning.
func (x *examination) complete(last *child) {
	slices.Reverse(x.links)
	if len(x.links) > 0 && last.parent.IsZero() && x.links[0].base > 0 {
		x.broken = x.links[0].base
		x.find(Finding{Severity: Error, Check: "roots", From: 1, To: x.broken, Message: fmt.Sprintf(
			"root %s has base %d and no parent: what was before is lost; restore it from a backup", x.links[0].key,
			x.broken)})
	}
}

// root processes the next root, from the highest down. One that its child does not name
// as its parent is a stray, whatever it contains. last is the child; the root becomes it.
func (x *examination) root(r *persistence.Root, last *child) {
	// Also the segments of strays are named: they are not orphans.
	for _, name := range []string{segmentOf(r.Archive), r.SnapshotAt} {
		if name != "" {
			x.named[name] = true
		}
	}
	if r.Key != last.parent {
		x.report.Strays++
		if len(x.links) == 0 {
			x.find(Finding{Severity: Note, Check: "roots", Message: fmt.Sprintf(
				"root %s is above the head, %s: the customer was taken over or woken meanwhile", r.Key,
				x.head.Partition.RootKey)})
		}
		return
	}
	// The partition ends at the base of the next root, the last one at the head.
	through := last.base
	if len(x.links) == 0 {
		through = max(r.Base, x.head.Sequence)
	}
	x.report.Roots++
	x.links = append(x.links, link{
		key: r.Key, incarnation: r.Incarnation, base: r.Base, through: through, time: r.Time, mark: r.Archive,
		stripped: r.Stripped, snapshotAt: r.SnapshotAt, damaged: r.Damage != nil, bare: r.IsBare(),
	})
	for _, problem := range x.problems(r, last) {
		x.find(Finding{
			Severity: Error, Check: "roots", From: r.Base + 1, To: through,
			Message: fmt.Sprintf("root %s %s", r.Key, problem),
		})
	}
	*last = child{key: r.Key, base: r.Base, parent: r.Parent, incarnation: r.ParentIncarnation}
}

// segmentOf returns the segment of a mark, if any.
func segmentOf(m *persistence.ArchiveMark) string {
	if m == nil {
		return ""
	}
	return m.Segment
}

// problems returns what does not fit between a root and its child.
func (x *examination) problems(r *persistence.Root, c *child) (out []string) {
	if r.Incarnation != c.incarnation {
		out = append(out, fmt.Sprintf("is of incarnation %s, its child names %s", r.Incarnation, c.incarnation))
	}
	if r.Base > c.base {
		out = append(out, fmt.Sprintf("has base %d, its child %d", r.Base, c.base))
	}
	if n := len(x.links); n == 1 && (r.Base != x.head.Base || r.Parent != x.head.Parent) {
		out = append(out, fmt.Sprintf("has base %d and parent %v, its owner says %d and %v",
			r.Base, r.Parent, x.head.Base, x.head.Parent))
	}
	// A cycle would not end.
	if !r.Parent.IsZero() && !r.Parent.Less(r.Key) {
		out = append(out, fmt.Sprintf("continues %v, which is not before it", r.Parent))
	}
	if r.Archive != nil && len(x.links) == 1 {
		out = append(out, "is the last one and marked as archived: its records are still being written")
	}
	return out
}

// lost records that a root of the chain cannot be read: what was before cannot be found.
func (x *examination) lost(c *child, err error) {
	x.broken, x.unread = c.base, true
	x.find(Finding{Severity: Error, Check: "roots", From: 1, To: c.base, Message: fmt.Sprintf(
		"root %s cannot be read: %v; the events before %d cannot be found without it; restore it from a backup",
		c.parent, err, c.base+1)})
}
