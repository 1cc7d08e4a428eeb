// Package status keeps what a process knows of itself and its cluster beside what it is asked: the latest events, the
// members and those that left, how many shards are served, and the metrics of the last computed status.
// Package clusterstatus computes that status.
package status

import (
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/messages/licensedv1"
)

// keptEvents is the number that a node remembers: what an operator who looks may want to know.
const keptEvents = 200

// oneMove is the time within which shards that change hands alike are listed as one
// event: a node that joins moves a hundred.
const oneMove = 5 * time.Second

// Events remembers what happened lately. The zero value is empty. It is safe for concurrent use.
type Events struct {
	mu sync.Mutex
	// Oldest first. None is ever changed: readers get the messages without a copy.
	list []*licensedv1.Happening
}

// Add remembers something, and forgets the oldest if there are too many. The happening is then the
// list's, and is never changed.
func (e *Events) Add(at time.Time, what *licensedv1.Happening) {
	what.At = timestamppb.New(at)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.append(what)
}

// append adds an event, and forgets the oldest if there are too many. Requires mu.
func (e *Events) append(what *licensedv1.Happening) {
	e.list = append(e.list, what)
	if excess := len(e.list) - keptEvents; excess > 0 {
		e.list = slices.Delete(e.list, 0, excess)
	}
}

// Count remembers something about one shard, together with what happened to others alike
// within oneMove before. text returns the words for the number of shards in its argument.
func (e *Events) Count(at time.Time, what *licensedv1.Happening, text func(*licensedv1.Happening) string) {
	what.At = timestamppb.New(at)
	e.mu.Lock()
	defer e.mu.Unlock()
	// From the newest: what is older than oneMove is not looked at.
	for i := len(e.list) - 1; i >= 0 && at.Sub(e.list[i].At.AsTime()) < oneMove; i-- {
		last := e.list[i]
		if last.Kind != what.Kind || last.Incarnation != what.Incarnation || last.OtherNode != what.OtherNode {
			continue
		}
		// A copy, since readers may have the former one.
		more := proto.CloneOf(last)
		more.Shards, more.Shard = more.Shards+1, nil
		more.Text = text(more)
		e.list[i] = more
		return
	}
	what.Shards = 1
	what.Text = text(what)
	e.append(what)
}

// NewestFirst returns all.
func (e *Events) NewestFirst() []*licensedv1.Happening {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := slices.Clone(e.list)
	slices.Reverse(out)
	return out
}

// toldEvents is the number that a member tells others of.
const toldEvents = 50

// FirstHand returns what happened to a node itself, newest first, up to toldEvents: what
// members notice of each other every one of them notices.
func FirstHand(name string, all []*licensedv1.Happening) []*licensedv1.Happening {
	var out []*licensedv1.Happening
	for _, h := range all {
		if h.Node == name && len(out) < toldEvents {
			out = append(out, h)
		}
	}
	return out
}

// Merge adds the events of others to its own list, newest first, up to keptEvents. own
// may be changed.
func Merge(own, theirs []*licensedv1.Happening) []*licensedv1.Happening {
	all := append(own, theirs...)
	slices.SortStableFunc(all, func(a, b *licensedv1.Happening) int { return b.At.AsTime().Compare(a.At.AsTime()) })
	return all[:min(len(all), keptEvents)]
}
