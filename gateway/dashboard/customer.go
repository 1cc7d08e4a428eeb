package dashboard

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	"licensed/messages/licensedv1"
)

// Selection is what the address of a customer's page selects: a moment and what to show
// of it. Every link is made from one, so that a view can be passed on as its address.
type Selection struct {
	Customer string
	// At is the event whose moment is shown; 0 is now.
	At uint64
	// Late counts in the state what had happened by the moment and was reported later.
	Late bool
	// Device and Title filter the timeline, Rule the refusals.
	Device, Title, Rule string
	// WhyDevice and WhyTitle name the licence that is explained.
	WhyDevice, WhyTitle string
	// Try names the command that is tried at the moment: "acquire", …
	Try, TryDevice, TryTitle, TryPlan string
}

// errNoMoment says that an address does not name a moment.
var errNoMoment = &pageError{
	status: http.StatusBadRequest, title: "No such moment", text: "A moment is the number of an event, from 1 on.",
}

// sequenceOf reads the number of an event; "" is 0, which stands for now.
func sequenceOf(s string) (uint64, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, errNoMoment
	}
	return n, nil
}

// selectionOf reads the selection from a request.
func selectionOf(r *http.Request) (s Selection, err error) {
	s = Selection{
		Customer: r.FormValue("id"), Rule: r.FormValue("rule"),
		Device: strings.TrimSpace(r.FormValue("device")), Title: strings.TrimSpace(r.FormValue("title")),
		WhyDevice: r.FormValue("whydevice"), WhyTitle: r.FormValue("whytitle"),
		Try:       r.FormValue("try"),
		TryDevice: r.FormValue("trydevice"),
		TryTitle:  r.FormValue("trytitle"),
		TryPlan:   r.FormValue("tryplan"),
		Late:      r.FormValue("late") != "",
	}
	s.At, err = sequenceOf(r.FormValue("at"))
	return s, err
}

// link returns the address of the selection.
func (s Selection) link() string {
	// Only what is set: addresses are read by people, and kept in tickets.
	q := url.Values{"id": {s.Customer}}
	if s.At > 0 {
		q.Set("at", strconv.FormatUint(s.At, 10))
	}
	if s.Late {
		q.Set("late", "1")
	}
	for name, value := range map[string]string{
		"device": s.Device, "title": s.Title, "rule": s.Rule, "whydevice": s.WhyDevice, "whytitle": s.WhyTitle,
		"try": s.Try, "trydevice": s.TryDevice, "trytitle": s.TryTitle, "tryplan": s.TryPlan,
	} {
		if value != "" {
			q.Set(name, value)
		}
	}
	return Path + "customer?" + q.Encode()
}

// AtLink returns the address of another moment.
func (s Selection) AtLink(at uint64) string {
	s.At = at
	return s.link()
}

// LateLink returns the address with the state as it was known then, or with what was reported later.
func (s Selection) LateLink() string {
	s.Late = !s.Late
	return s.link()
}

// WhyLink returns the address of the explanation of a licence.
func (s Selection) WhyLink(device, title string) string {
	s.WhyDevice, s.WhyTitle = device, title
	return s.link() + "#why"
}

// RuleLink returns the address with the refusals of one rule; "" for all.
func (s Selection) RuleLink(rule string) string {
	s.Rule = rule
	return s.link()
}

// Filtered says that the timeline leaves something out.
func (s Selection) Filtered() bool { return s.Device != "" || s.Title != "" }

// Unfiltered returns the address without the filter.
func (s Selection) Unfiltered() string {
	s.Device, s.Title = "", ""
	return s.link()
}

// customerView is the page of a customer.
type customerView struct {
	Selection
	Timeline timelineView
	Moment   momentView
}

// momentView is what is shown of one moment.
type momentView struct {
	Selection
	// Head is where the history ends, Shown the event whose moment it is: At, or the head if it is now.
	Head, Shown uint64
	Now         bool
	// When is the time of the moment, in words.
	Moment *licensedv1.Moment
	// Event is the one before the moment; nil if it cannot be read.
	Event *eventView
	Gap   *licensedv1.HistoryGap
	// Problem says why there is no state.
	Problem string
	State   stateView
	// Devices and Titles are offered for filters.
	Devices, Titles []string
	Why             *whyView
	Try             *tryView
	// Refused explains the refusal that is selected, or now the latest one.
	Refused *refusedView
}

// customer shows a customer at a moment. The part that a script asks for is the moment alone.
func (d *Dashboard) customer(w http.ResponseWriter, r *http.Request) error {
	s, err := selectionOf(r)
	if err != nil {
		return err
	}
	if s.Customer == "" {
		http.Redirect(w, r, Path+"customers", http.StatusSeeOther)
		return nil
	}
	// Both parts ask the customer's owner, and take as long as the slower one.
	g, ctx := errgroup.WithContext(r.Context())
	var v customerView
	v.Selection = s
	part := r.FormValue("part")
	if part != "moment" {
		part = ""
		g.Go(func() (err error) {
			v.Timeline, err = d.timeline(ctx, s)
			return err
		})
	}
	g.Go(func() (err error) {
		v.Moment, err = d.moment(ctx, s)
		return err
	})
	if err := g.Wait(); err != nil {
		return noHistoryYet(s.Customer, err)
	}
	if v.Moment.Refused, err = d.refused(r.Context(), &v); err != nil {
		return err
	}
	out := view{Title: s.Customer, Customer: s.Customer, Section: "customers", Body: v}
	if part == "moment" {
		return d.render(w, http.StatusOK, "customer", part, view{Body: v.Moment})
	}
	return d.render(w, http.StatusOK, "customer", "", out)
}

// refused explains the refusal at the moment that is shown or, now, the latest refusal that is listed.
func (d *Dashboard) refused(ctx context.Context, v *customerView) (*refusedView, error) {
	m, listed := &v.Moment, v.Timeline.Refusals.Items
	switch {
	case m.Event != nil && refusedBy(m.Event.HistoryEvent) != nil:
		return d.explainRefusal(ctx, v.Selection, m.Event.HistoryEvent)
	case !m.Now || len(listed) == 0 || v.Moment.Why != nil || v.Selection.Try != "":
		return nil, nil
	}
	latest, _, err := d.event(ctx, v.Customer, listed[0].Sequence)
	if err != nil || latest == nil {
		return nil, err
	}
	out, err := d.explainRefusal(ctx, v.Selection, latest.HistoryEvent)
	if out != nil {
		out.Latest = true
	}
	return out, err
}

// noHistoryYet makes a page of its own of the error that a customer has no history; other
// errors it returns as they are.
func noHistoryYet(customer string, err error) error {
	if connect.CodeOf(err) != connect.CodeNotFound {
		return err
	}
	return &pageError{
		status: http.StatusNotFound, title: "No events recorded for " + customer, customer: customer,
		text: "No command of this customer was ever recorded. Ids are exact: capitals and blanks count.",
	}
}

// moment gathers what is shown of a moment. The state comes first: it resolves "now" to
// an event, for which the rest is asked.
func (d *Dashboard) moment(ctx context.Context, s Selection) (momentView, error) {
	v := momentView{Selection: s, Now: s.At == 0}
	now, err := d.state(ctx, s, s.At)
	var api *connect.Error
	switch {
	// Shown is the sequence that the answer is for, also if the selection is "now".
	case err == nil:
		v.Moment, v.Head, v.Shown = now.Moment, now.Moment.HeadSequence, now.Moment.Sequence
	case errors.As(err, &api) && unreadable[api.Code()]:
		// The state cannot be told; what else is known can be shown.
		v.Problem = sentence(api.Message())
		if v.Head, err = d.head(ctx, s.Customer); err != nil {
			return v, err
		}
		if v.Shown = s.At; v.Now {
			v.Shown = v.Head
		}
		if v.Shown > v.Head {
			return v, api
		}
	default:
		return v, err
	}
	g, ctx := errgroup.WithContext(ctx)
	var before *licensedv1.CustomerState
	if v.Problem == "" {
		g.Go(func() (err error) {
			before, err = d.stateBefore(ctx, &v)
			return err
		})
	}
	g.Go(func() (err error) {
		v.Event, v.Gap, err = d.event(ctx, s.Customer, v.Shown)
		return err
	})
	g.Go(func() (err error) {
		v.Why, err = d.why(ctx, s)
		return err
	})
	g.Go(func() (err error) {
		v.Try, err = d.try(ctx, s)
		return err
	})
	if err := g.Wait(); err != nil {
		return v, err
	}
	// Marks need the state itself; where it cannot be told there is nothing to mark.
	if v.Problem == "" {
		v.State = compare(before, now.State)
		v.State.explained(s)
		v.Devices, v.Titles = named(now.State)
	}
	return v, nil
}

// unreadable are the codes of a state that cannot be told, though the customer is present.
var unreadable = map[connect.Code]bool{
	connect.CodeOutOfRange: true, connect.CodeDataLoss: true, connect.CodeUnavailable: true,
}

// stateBefore returns what the state is compared with: that before the event or, now, that after the
// last event. Before the first event there is nothing, and the result is an empty state;
// where it cannot be told it is nil.
func (d *Dashboard) stateBefore(ctx context.Context, v *momentView) (*licensedv1.CustomerState, error) {
	at := v.Shown - 1
	if v.Now {
		at = v.Shown
	}
	if at == 0 {
		return new(licensedv1.CustomerState), nil
	}
	res, err := d.state(ctx, v.Selection, at)
	var api *connect.Error
	if errors.As(err, &api) && unreadable[api.Code()] {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return res.State, nil
}

// state asks for a state after an event; 0 is now. With Late, what had happened by the time of the event
// and was reported later counts as well.
func (d *Dashboard) state(ctx context.Context, s Selection, at uint64) (*licensedv1.GetStateResponse, error) {
	r := &licensedv1.GetStateRequest{CustomerId: s.Customer}
	if at > 0 {
		r.At = &licensedv1.GetStateRequest_Sequence{Sequence: at}
	}
	res, err := d.config.History.GetState(ctx, connect.NewRequest(r))
	if err != nil {
		return nil, err
	}
	if !s.Late || at == 0 || res.Msg.Moment.EventTime == nil {
		return res.Msg, nil
	}
	r.At = &licensedv1.GetStateRequest_Time{Time: res.Msg.Moment.EventTime}
	later, err := d.config.History.GetState(ctx, connect.NewRequest(r))
	if err != nil {
		return nil, err
	}
	res.Msg.State, res.Msg.Moment.LateFacts = later.Msg.State, later.Msg.Moment.LateFacts
	return res.Msg, nil
}

// head asks where a history ends.
func (d *Dashboard) head(ctx context.Context, customer string) (uint64, error) {
	end, err := d.list(ctx, &licensedv1.ListEventsRequest{CustomerId: customer, NewestFirst: true, Limit: 1}, nil)
	return end.GetHeadSequence(), err
}

// list calls f with the items of a listing and returns its end; f may be nil. Errors:
// those of f and of the API, and errCutOff: a stream without an end was cut off, and what
// came of it is not the whole.
func (d *Dashboard) list(
	ctx context.Context, r *licensedv1.ListEventsRequest, f func(*licensedv1.HistoryItem) error,
) (*licensedv1.HistoryEnd, error) {
	ctx, cancel := context.WithCancel(ctx) // Also where f has enough.
	defer cancel()
	stream, err := d.config.History.ListEvents(ctx, connect.NewRequest(r))
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	var end *licensedv1.HistoryEnd
	for stream.Receive() {
		for _, i := range stream.Msg().Items {
			if f == nil {
				continue
			}
			if err := f(i); err != nil {
				return nil, err
			}
		}
		end = stream.Msg().End
	}
	if err := stream.Err(); err != nil {
		return nil, err
	}
	if end == nil {
		return nil, fmt.Errorf("list events of %s: %w", r.CustomerId, errCutOff)
	}
	return end, nil
}

// errCutOff ends a listing that broke off without an error.
var errCutOff = errors.New("the answer was cut off")

// event reads one event, with the bytes that are stored, or the gap that it lies in.
func (d *Dashboard) event(
	ctx context.Context, customer string, sequence uint64,
) (e *eventView, gap *licensedv1.HistoryGap, err error) {
	_, err = d.list(ctx, &licensedv1.ListEventsRequest{
		CustomerId: customer, FromSequence: sequence, ToSequence: sequence, IncludeRecord: true,
	}, func(i *licensedv1.HistoryItem) error {
		if gap = i.GetGap(); gap == nil {
			view := eventOf(i.GetEvent())
			e = &view
		}
		return nil
	})
	return e, gap, err
}
