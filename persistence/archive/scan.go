package archive

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"licensed/persistence"
)

// due says what there is to do for an aggregate.
type due uint8

const (
	dueNothing due = iota
	dueHistory     // there is closed history worth moving
	dueAll         // it is idle: move all, also its snapshot
	dueForget      // it was forgotten, and something of it is left
)

// scans looks through all aggregates, again and again, one after the other, at low
// priority. What it finds to do it does itself, so that the scan is never far ahead of
// the work. A first pass starts after a random pause of up to a minute, so that nodes
// which start together do not scan together.
func (w *Worker) scans() {
	position := w.o.Position
	if position == "" && !w.sleep(time.Duration(rand.Int64N(1+int64(min(w.o.Config.ScanEvery, time.Minute))))) {
		return
	}
	for ok := true; ok; {
		if position, ok = w.pass(position); ok {
			w.o.SavePosition(position)
			ok = w.sleep(jittered(w.o.Config.ScanEvery))
		}
	}
}

// maxListings bounds the attempts to list the same aggregates before a pass ends.
const maxListings = 5

// pass visits the aggregates after a position and returns where the next pass begins: at the first one,
// or, if aggregates cannot be listed, where this pass had to end. Only what does not even begin there
// starts over: the damage that is in the way of what comes after it must not hold up what comes before.
// It returns false if the worker closes.
func (w *Worker) pass(position string) (next string, ok bool) {
	began, start, failed, info := time.Now(), position, 0, ScannedInfo{}
	for {
		page, err := w.o.Hot.Aggregates(w.context, position, w.o.Config.Page)
		if err != nil {
			w.settle("", fmt.Errorf("list aggregates after %q: %w", position, err))
			if failed++; failed < maxListings {
				// Whatever settle makes of it: nothing else slows this down.
				if !w.sleep(w.o.Config.RetryMax) {
					return "", false
				}
				continue
			}
			if position == start {
				position = ""
			}
			return position, true
		}
		failed = 0
		for _, position = range page {
			if w.scan.Wait(w.context) != nil || !w.visit(position, &info) {
				return "", false
			}
		}
		if len(page) < w.o.Config.Page {
			break
		}
		w.o.SavePosition(position)
	}
	info.Duration = time.Since(began)
	w.o.Listener.Scanned(info)
	return "", true
}

// visit does what is due for an aggregate. It returns false if the worker closes.
func (w *Worker) visit(aggregate string, info *ScannedInfo) bool {
	// Asked again for each attempt: another attempt may have archived it.
	info.Aggregates++
	what := dueNothing
	ok := w.insist(func() (err error) {
		if what, err = w.look(aggregate); err != nil {
			w.settle(aggregate, err)
		}
		return err
	})
	if !ok || what == dueNothing || !w.reserve(aggregate) {
		return ok
	}
	defer w.free(aggregate)
	info.Due++
	if what == dueForget {
		return w.insist(func() error {
			err := w.o.Owner.Forget(w.context, aggregate)
			w.settle(aggregate, err)
			return err
		})
	}
	resident := w.o.Owner.Resident(aggregate)
	if resident && what == dueAll {
		return true // it is in use again
	}
	// It stays in memory between attempts: each waking writes a root.
	ok = w.insist(func() error { return w.wake(aggregate, what == dueAll) })
	if !resident {
		w.o.Owner.Release(w.context, aggregate)
	}
	return ok
}

// insist tries again while a tier is at fault, up to a point. It returns false if the worker closes.
func (w *Worker) insist(do func() error) bool {
	for range maxAttempts {
		if !w.rest() {
			return false
		}
		if err := do(); err == nil || !isRetryable(err) {
			break
		}
	}
	return w.context.Err() == nil
}

// reserve takes an aggregate for the scan, unless it waits because it was evicted just now.
func (w *Worker) reserve(aggregate string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.busy[aggregate] {
		return false
	}
	w.busy[aggregate] = true
	return true
}

// free gives back an aggregate that reserve took.
func (w *Worker) free(aggregate string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.busy, aggregate)
}

// look finds out what is due, with one read for most aggregates: the top root and the one
// below. It does not load the aggregate, and may see roots that are not final; wake asks
// the owner.
func (w *Worker) look(aggregate string) (due, error) {
	if !w.o.Owner.Owns(aggregate) {
		return dueNothing, nil
	}
	roots, err := w.o.Hot.ReadRoots(w.context, aggregate, persistence.RootKey{}, 2)
	if errors.Is(err, persistence.ErrForgotten) {
		return dueForget, nil
	}
	if err != nil {
		return dueNothing, fmt.Errorf("read roots of %s: %w", aggregate, err)
	}
	if len(roots) == 0 || roots[0].Stripped {
		return dueNothing, nil // it is in the archive altogether
	}
	top, now, c := &roots[0], w.o.Now(), &w.o.Config
	if c.SnapshotAfter > 0 && now.Sub(top.Time) >= c.SnapshotAfter && !w.o.Owner.Resident(aggregate) {
		return dueAll, nil
	}
	if top.Parent.IsZero() || len(roots) > 1 && roots[1].IsArchived() {
		return dueNothing, nil
	}
	return w.lookBack(aggregate, now.Add(-c.After))
}

// lookBack looks for history that is old, or enough for a segment. It reads roots
// downwards until one is archived.
func (w *Worker) lookBack(aggregate string, old time.Time) (due, error) {
	const page = 32
	var below persistence.RootKey
	var head uint64
	for {
		roots, err := w.o.Hot.ReadRoots(w.context, aggregate, below, page)
		if err != nil {
			return dueNothing, fmt.Errorf("read roots of %s: %w", aggregate, err)
		}
		for i := range roots {
			r := &roots[i]
			if below.IsZero() && i == 0 {
				head = r.Base // the top root is closed by the waking
				continue
			}
			if r.IsArchived() {
				return dueNothing, nil
			}
			if r.Time.Before(old) || head >= r.Base+w.segmentEvents() {
				return dueHistory, nil
			}
		}
		if len(roots) < page {
			return dueNothing, nil
		}
		below = roots[len(roots)-1].Key
	}
}

// wake asks the owner for the head, which loads the aggregate, and archives; whole moves
// also the snapshot.
func (w *Worker) wake(aggregate string, whole bool) error {
	const patience = time.Minute
	ctx, cancel := context.WithTimeout(w.context, patience)
	defer cancel()
	head, err := w.o.Owner.Head(ctx, aggregate)
	if err != nil {
		// Without a head nothing may be moved: only the owner knows what is final.
		err = fmt.Errorf("%w of %s: %w", errNoHead, aggregate, err)
		if !w.o.Owner.Owns(aggregate) {
			err = errors.Join(ErrNotHeld, err)
		}
		w.settle(aggregate, err)
		return err
	}
	_, err = w.archive(w.context, aggregate, head, whole, whole)
	return err
}
