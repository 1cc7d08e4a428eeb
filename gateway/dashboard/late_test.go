package dashboard

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
)

// twoTimes is an API on which Bayley has two downloads of a title, one of them reported later.
type twoTimes struct {
	licensedv1connect.HistoryServiceClient
}

func (twoTimes) GetState(
	_ context.Context, r *connect.Request[licensedv1.GetStateRequest],
) (*connect.Response[licensedv1.GetStateResponse], error) {
	at := timestamppb.New(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	m := &licensedv1.Moment{Sequence: 4, HeadSequence: 5, EventTime: at, AsOf: at}
	downloads := uint32(1)
	if r.Msg.GetTime() != nil {
		m.LateFacts, downloads = 1, 2
	}
	return connect.NewResponse(&licensedv1.GetStateResponse{Moment: m, State: &licensedv1.CustomerState{
		CustomerId: "Bayley", Titles: []*licensedv1.TitleState{{TitleId: "GlowS01E01", Downloads: downloads}},
	}}), nil
}

// TestLateFacts: the state is shown as it was known, or with what was reported later.
func TestLateFacts(t *testing.T) {
	d := &Dashboard{config: Config{History: twoTimes{}}}
	for late, want := range map[bool]uint32{false: 1, true: 2} {
		res, err := d.state(t.Context(), Selection{Customer: "Bayley", Late: late}, 4)
		if err != nil || res.State.Titles[0].Downloads != want || res.Moment.LateFacts != uint64(want-1) ||
			res.Moment.Sequence != 4 {
			t.Errorf("late %v: %v, %v", late, res, err)
		}
	}
	s, err := selectionOf(mustRequest(t, "/dashboard/customer?id=Bayley&at=4&late=1"))
	if err != nil || !s.Late || strings.Contains(s.LateLink(), "late") || !strings.Contains(s.AtLink(3), "late=1") {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestFactsAreTold: an event that was reported later says when it happened, and whether it counts.
func TestFactsAreTold(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).UnixMilli()
	for want, event := range map[string]*licensedv1.TitlePlayed{
		"Played at 2026-03-01 12:00, reported later; it counts against the yearly limit.": {
			Counted: true, Occurrence: &licensedv1.Occurrence{OccurredAtMs: at},
		},
		"Played Roma at 2026-03-01 12:00, reported later; no licence was active then, it counts nowhere.": {
			Occurrence: &licensedv1.Occurrence{
				OccurredAtMs: at, TitleId: "Roma", Verdict: licensedv1.FactVerdict_FACT_VERDICT_UNLICENSED,
			},
		},
	} {
		data, err := anypb.New(event)
		if err != nil {
			t.Fatal(err)
		}
		if got := eventOf(&licensedv1.HistoryEvent{Data: data}).Text; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func mustRequest(t *testing.T, url string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
