package dashboard

import (
	"slices"
	"sync"
	"time"

	"licensed/internal/clusterrates"
	"licensed/messages/licensedv1"
)

// update is what the cluster page is sent after a reading: its parts, each as the event that brings it. A
// part that did not change is the very event of the update before. Updates are shared and never changed.
type update struct {
	// reading that the update is made of, by its number.
	reading uint64
	// sample is the latest one, taken at a time, for viewers that have all that were taken before; nil if
	// there is none yet.
	sample     *event
	at, before int64
	// parts of the page, in the order in which they are sent.
	parts [3]*event
}

// updates makes an update of each reading that somebody looks at, once for all who do. Safe for
// concurrent use.
type updates struct {
	// part renders a part of a page.
	part func(page, part string, v any) ([]byte, error)
	now  func() time.Time

	mu     sync.Mutex
	latest update
	status *licensedv1.ClusterStatus // that the latest is made of
}

// of returns the update of a reading, or a later one if it was asked for already. It
// renders under the lock: other viewers need the same update, and would only render it
// again.
func (u *updates) of(r *reading) (update, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	// Several viewers wake up for one reading: the first of them renders.
	if u.latest.reading >= r.number {
		return u.latest, nil
	}
	next := update{reading: r.number, before: r.before, parts: u.latest.parts}
	// Before the first update no part exists, changed or not.
	fresh := u.latest.reading == 0
	board := boardOf(*r, u.now())
	var err error
	event := func(i int, name string, changed bool, view func() any) {
		if err != nil || !changed && !fresh {
			return
		}
		var html []byte
		if html, err = u.part("cluster", name, view()); err == nil {
			next.parts[i], err = newEvent(name, string(html))
		}
	}
	event(0, "board", true, func() any { return board })
	event(1, "happenings", !sameHappenings(u.status, r.Status), func() any { return board })
	event(2, "map", !sameMap(u.status, r.Status), func() any { return mapOf(r.Status) })
	// Without two readings there is no sample, and the page draws none.
	if r.Latest != nil && err == nil {
		next.at = r.Latest.At
		next.sample, err = newEvent("samples", []clusterrates.Sample{*r.Latest})
	}
	if err != nil {
		return update{}, err
	}
	u.latest, u.status = next, r.Status
	return next, nil
}

// sameHappenings reports whether two readings list the same happenings.
func sameHappenings(a, b *licensedv1.ClusterStatus) bool {
	return slices.EqualFunc(a.GetHappenings(), b.GetHappenings(), func(a, b *licensedv1.Happening) bool {
		return a == b || a.Kind == b.Kind && a.Text == b.Text && a.At.AsTime().Equal(b.At.AsTime())
	})
}

// sameMap reports whether the pictures of two readings are the same. Shards rarely move, and to draw all
// of them is most of the work.
func sameMap(a, b *licensedv1.ClusterStatus) bool {
	return a.GetShards() == b.GetShards() &&
		slices.EqualFunc(a.GetNodes(), b.GetNodes(), func(a, b *licensedv1.NodeStatus) bool {
			return a.Name == b.Name && a.Incarnation == b.Incarnation
		}) &&
		slices.EqualFunc(a.GetShardMap(), b.GetShardMap(), func(a, b *licensedv1.ShardStatus) bool {
			return a.Id == b.Id && a.Epoch == b.Epoch &&
				a.State == b.State && a.Owner == b.Owner && a.Successor == b.Successor
		})
}
