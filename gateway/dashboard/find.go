package dashboard

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/messages/licensedv1"
)

// errFound ends a listing at what was searched for.
var errFound = errors.New("found")

// find leads to a moment of a customer: an event by its number or the id of its command, or the last event before a
// time. The time is in UTC; a script of the page converts it.
func (d *Dashboard) find(w http.ResponseWriter, r *http.Request) error {
	s, err := selectionOf(r)
	if err != nil {
		return err
	}
	if what := strings.TrimSpace(r.FormValue("what")); what != "" {
		s.At, err = d.numbered(r.Context(), s.Customer, what)
	} else {
		s.At, err = d.before(r.Context(), s.Customer, r.FormValue("time"))
	}
	if err != nil {
		return noHistoryYet(s.Customer, err)
	}
	http.Redirect(w, r, s.link(), http.StatusSeeOther)
	return nil
}

// numbered returns the event of a number, or the last one of the command of an id. Errors: a page.
func (d *Dashboard) numbered(ctx context.Context, customer, what string) (found uint64, err error) {
	head, err := d.head(ctx, customer)
	if err != nil {
		return 0, err
	}
	request := &licensedv1.ListEventsRequest{CustomerId: customer, NewestFirst: true}
	if head > stripMost {
		request.FromSequence = head - stripMost + 1
	}
	_, err = d.list(ctx, request, func(i *licensedv1.HistoryItem) error {
		if e := i.GetEvent(); e.GetCommandId() == what {
			found = e.Sequence
			return errFound
		}
		return nil
	})
	if err != nil && !errors.Is(err, errFound) {
		return 0, err
	}
	if found > 0 {
		return found, nil
	}
	// The id of a command may be a number, too, and comes first.
	if n, err := strconv.ParseUint(what, 10, 64); err == nil && n > 0 && n <= head {
		return n, nil
	}
	return 0, &pageError{
		status: http.StatusNotFound, title: "No such command", customer: customer,
		text: "No event of this customer has that number or that command id. " +
			"Of a long history the newest 20,000 events are searched.",
	}
}

// before returns the last event at or before a time. Errors: a page.
func (d *Dashboard) before(ctx context.Context, customer, text string) (found uint64, err error) {
	var at time.Time
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04", "2006-01-02T15:04:05", time.DateOnly} {
		if at, err = time.ParseInLocation(layout, text, time.UTC); err == nil {
			break
		}
	}
	if err != nil {
		return 0, &pageError{status: http.StatusBadRequest, title: "No such moment", customer: customer,
			text: "Give the number of an event, the id of a command, or a time such as 2026-03-01T20:15."}
	}
	_, err = d.list(ctx, &licensedv1.ListEventsRequest{
		CustomerId: customer, NewestFirst: true, Limit: 1, ToTime: timestamppb.New(at.Add(time.Millisecond)),
	}, func(i *licensedv1.HistoryItem) error {
		found = max(i.GetEvent().GetSequence(), i.GetGap().GetToSequence())
		return nil
	})
	if err == nil && found == 0 {
		err = &pageError{status: http.StatusNotFound, title: "Before the first event", customer: customer,
			text: "Nothing had been recorded of this customer at that time."}
	}
	return found, err
}
