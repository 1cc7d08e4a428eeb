package dashboard

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"slices"

	"golang.org/x/sync/errgroup"

	"licensed/messages/licensedv1"
)

// around is the number of events that are listed on either side of the moment.
const around = 100

// timelineView is the list of events around a moment, newest first, and the strip of all.
type timelineView struct {
	Selection
	Head  uint64
	Items []itemView
	// Later and Earlier are moments from which more can be seen; 0 if there is no more there.
	Later, Earlier uint64
	Strip          stripView
	Refusals       refusalsView
}

// itemView is a command with its events, a gap or the border between the tiers.
type itemView struct {
	// Event is the one that tells most of the command, and Events are all of those that are listed, the oldest first.
	Event  *eventView
	Events []itemEvent
	Gap    *licensedv1.HistoryGap
	// First and Last are the events that it stands for.
	First, Last uint64
	// Chosen marks the moment that is shown, and Open that it lies between two events of the command.
	Chosen, Open bool
	// Border says that from here on, back in time, events are in the archive.
	Border bool
}

// itemEvent is an event of a command.
type itemEvent struct {
	*eventView
	Chosen bool
}

// timeline lists the events around a moment: up to around later ones and around earlier
// ones, the moment's own included.
func (d *Dashboard) timeline(ctx context.Context, s Selection) (timelineView, error) {
	v := timelineView{Selection: s}
	var newer, older []*licensedv1.HistoryItem
	var newerEnd, olderEnd *licensedv1.HistoryEnd
	g, ctx := errgroup.WithContext(ctx)
	// collect returns a function that appends what it is called with.
	collect := func(to *[]*licensedv1.HistoryItem) func(*licensedv1.HistoryItem) error {
		return func(i *licensedv1.HistoryItem) error {
			*to = append(*to, i)
			return nil
		}
	}
	request := func() *licensedv1.ListEventsRequest {
		return &licensedv1.ListEventsRequest{
			CustomerId: s.Customer, DeviceId: s.Device, TitleId: s.Title, Limit: around,
		}
	}
	// At the head there is nothing newer.
	if s.At > 0 {
		g.Go(func() (err error) {
			r := request()
			r.FromSequence = s.At + 1
			newerEnd, err = d.list(ctx, r, collect(&newer))
			return err
		})
	}
	g.Go(func() (err error) {
		r := request()
		r.NewestFirst, r.ToSequence = true, s.At
		olderEnd, err = d.list(ctx, r, collect(&older))
		return err
	})
	g.Go(func() (err error) {
		v.Strip, v.Refusals, err = d.strip(ctx, s)
		return err
	})
	if err := g.Wait(); err != nil {
		return v, err
	}
	v.Head = olderEnd.HeadSequence
	slices.Reverse(newer)
	// newer has the lowest sequence first, as it was listed; the list is shown with the
	// highest first.
	items := append(newer, older...)
	if len(items) > 0 {
		if newerEnd.GetLimited() {
			v.Later = last(items[0])
		}
		if olderEnd.GetLimited() {
			v.Earlier = first(items[len(items)-1])
		}
	}
	v.Items = itemsOf(items, s.At, v.Head)
	return v, nil
}

// first returns the first event of an item, last the last one; a gap has several.
func first(i *licensedv1.HistoryItem) uint64 {
	return max(i.GetEvent().GetSequence(), i.GetGap().GetFromSequence())
}

// last returns the highest sequence of an item: an event's own, or the end of a gap.
func last(i *licensedv1.HistoryItem) uint64 {
	return max(i.GetEvent().GetSequence(), i.GetGap().GetToSequence())
}

// itemsOf makes the list from items, newest first. at is the event whose moment is
// chosen; 0 is the head.
func itemsOf(items []*licensedv1.HistoryItem, at, head uint64) []itemView {
	if at == 0 {
		at = head
	}
	out := make([]itemView, 0, len(items))
	command, tier := "", licensedv1.Tier_TIER_HOT
	// A command is one row for all of its events, and the border to the archive is drawn once.
	for _, i := range items {
		if g := i.GetGap(); g != nil {
			out = append(out, itemView{
				Gap: g, First: g.FromSequence, Last: g.ToSequence, Chosen: g.FromSequence <= at && at <= g.ToSequence,
			})
			command = ""
			continue
		}
		e := eventOf(i.GetEvent())
		border := e.Tier == licensedv1.Tier_TIER_ARCHIVE && tier == licensedv1.Tier_TIER_HOT
		if border || e.CommandId != command {
			out = append(out, itemView{Last: e.Sequence, Border: border})
		}
		row := &out[len(out)-1]
		row.First = e.Sequence
		if row.Event == nil || telling[e.Kind] > telling[row.Event.Kind] {
			row.Event = &e
		}
		row.Events = append(row.Events, itemEvent{&e, e.Sequence == at})
		row.Chosen = row.Chosen || e.Sequence == at
		row.Open = row.Chosen && row.Last != at
		command, tier = e.CommandId, e.Tier
	}
	for _, row := range out {
		slices.Reverse(row.Events)
	}
	return out
}

// telling orders the kinds of events by how much they tell of their command.
var telling = map[string]int{"bad": 6, "good": 5, "device": 4, "end": 3, "use": 2, "other": 1}

// The strip shows the whole history at once: this many bars, and up to this many events are looked at.
const (
	stripBars = 120
	stripMost = 20_000
)

// searchMost is the number of the newest events that are searched in a history that is longer than stripMost.
const searchMost = 5_000

// stripView is the history as bars.
type stripView struct {
	Bars []barView
	// Width of the picture; its height is 32.
	Width int
	// Complete is not set if the history is too long to be drawn.
	Complete bool
	// Archived is the last event in the archive, 0 for none.
	Archived uint64
}

// barView is a bar as it is drawn, in units of the picture.
type barView struct {
	X      int
	Y, H   int
	Class  string // archive, hot or gap
	Refuse int    // height of the part that was refused
	RY     int
}

// bar counts the events in a part of the history.
type bar struct{ events, refused, archived, missing int }

// strip draws a history and lists its refusals, in one reading; what the filter leaves out is left out. Each bar
// stands for the same number of events, not for the same time.
func (d *Dashboard) strip(ctx context.Context, s Selection) (stripView, refusalsView, error) {
	refusals := refusalsView{Selection: s}
	// A history that is longer than stripMost is not drawn, and only its newest events are searched for refusals:
	// otherwise all of it would be read.
	head, err := d.head(ctx, s.Customer)
	if err != nil {
		return stripView{}, refusals, err
	}
	n := min(stripBars, int(head))
	v := stripView{Width: n * 6, Complete: head <= stripMost}
	if !v.Complete {
		refusals.Looked = searchMost
		_, err = d.list(ctx, &licensedv1.ListEventsRequest{
			CustomerId: s.Customer, DeviceId: s.Device, TitleId: s.Title, FromSequence: head - searchMost + 1,
		}, func(i *licensedv1.HistoryItem) error {
			refusals.add(i.GetEvent())
			return nil
		})
		refusals.done()
		return v, refusals, err
	}
	bars := make([]bar, n)
	// Events of one bar are neighbours: bar k has those from k·head/n+1 on.
	at := func(sequence uint64) *bar { return &bars[min(uint64(n-1), (sequence-1)*uint64(n)/head)] }
	_, err = d.list(ctx,
		&licensedv1.ListEventsRequest{CustomerId: s.Customer, DeviceId: s.Device, TitleId: s.Title, ToSequence: head},
		func(i *licensedv1.HistoryItem) error {
			if g := i.GetGap(); g != nil {
				// A gap may be long; the history is not, at most stripMost events.
				for q := g.FromSequence; q <= min(g.ToSequence, head); q++ {
					at(q).missing++
				}
				return nil
			}
			e := i.GetEvent()
			refusals.add(e)
			b := at(e.Sequence)
			b.events++
			if e.Tier == licensedv1.Tier_TIER_ARCHIVE {
				b.archived++
				v.Archived = max(v.Archived, e.Sequence)
			}
			if e.Event == "CommandRefused" {
				b.refused++
			}
			return nil
		})
	if err != nil {
		return stripView{}, refusals, err
	}
	v.Bars = drawn(bars)
	refusals.done()
	return v, refusals, nil
}

// drawn returns the bars in the units of the picture: the highest fills it, and what is
// not empty can be seen.
func drawn(bars []bar) []barView {
	const height = 32
	most := 1
	for _, b := range bars {
		most = max(most, b.events+b.missing)
	}
	out := make([]barView, 0, len(bars))
	for i, b := range bars {
		if b.events+b.missing == 0 {
			continue
		}
		// A bar of few events among many would have no height at all.
		h := max(4, height*(b.events+b.missing)/most)
		v := barView{X: i * 6, Y: height - h, H: h, Class: "hot"}
		switch {
		case b.missing > 0:
			v.Class = "gap"
		case 2*b.archived > b.events:
			v.Class = "archive"
		}
		if b.refused > 0 {
			v.Refuse = max(3, h*b.refused/(b.events+b.missing))
			v.RY = height - v.Refuse
		}
		out = append(out, v)
	}
	return out
}

// download sends all events of a customer as JSON: an array, or what came before an error
// and no end of the array, which no reader takes for whole. It ends with the dashboard.
func (d *Dashboard) download(w http.ResponseWriter, r *http.Request) error {
	s, err := selectionOf(r)
	if err != nil {
		return err
	}
	// The errors of a customer without history come before the header, while a page can
	// still be shown.
	if _, err := d.head(r.Context(), s.Customer); err != nil {
		return noHistoryYet(s.Customer, err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Disposition", attachment(s.Customer+".events.json"))
	to := newWriter(w)
	defer to.finish()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(d.closing, cancel)()
	out, separator := bufio.NewWriter(to), "[\n"
	_, err = d.list(ctx, &licensedv1.ListEventsRequest{CustomerId: s.Customer, DeviceId: s.Device, TitleId: s.Title},
		func(i *licensedv1.HistoryItem) error {
			line, err := itemJSON(s.Customer, i)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(out, "%s%s", separator, line)
			separator = ",\n"
			return err
		})
	// The status was sent. An aborted connection is the only way left to tell that the
	// file is not whole.
	if err != nil {
		d.config.Logger.Warn("dashboard: download aborted", "customer", s.Customer, "error", err)
		panic(http.ErrAbortHandler)
	}
	// No event at all is an empty array.
	if separator == "[\n" {
		_, _ = out.WriteString("[")
	}
	_, _ = out.WriteString("\n]\n")
	_ = out.Flush()
	return nil
}
