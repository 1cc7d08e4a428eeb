package gateway_test

import (
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/messages/licensedv1"
)

// TestBothTimes asks for the state as of a time, with all that is known now or was known at another time.
func TestBothTimes(t *testing.T) {
	p := newPast(t)
	from := p.now
	after := func(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(from.Add(d)) }
	fact := func(number uint64, kind licensedv1.FactKind, at time.Duration) *licensedv1.Command {
		return &licensedv1.Command{Command: &licensedv1.Command_SyncDevice{SyncDevice: &licensedv1.SyncDevice{
			DeviceId: "iphone", Facts: []*licensedv1.SyncDevice_Fact{
				{Number: number, Kind: kind, TitleId: "a", AtMs: from.Add(at).UnixMilli()},
			},
		}}}
	}
	// At 1 h, 2 h, 3 h and 4 h.
	for _, c := range []*licensedv1.Command{
		acquires("iphone", "a"), acquires("ipad", "a"),
		fact(1, licensedv1.FactKind_FACT_KIND_DOWNLOADED, 90*time.Minute),
		fact(2, licensedv1.FactKind_FACT_KIND_DELETED, 150*time.Minute),
	} {
		p.give("Bayley", c)
	}
	h := historyOf(p.start())
	for name, test := range map[string]struct {
		request   *licensedv1.GetStateRequest
		sequence  uint64
		downloads uint32
		late      uint64
		active    uint32
	}{
		"now":         {&licensedv1.GetStateRequest{}, 11, 3, 0, 1},
		"as of 2 h":   {asOf(after(2*time.Hour), nil), 8, 3, 1, 2},
		"as of 1:15":  {asOf(after(75*time.Minute), nil), 4, 1, 0, 1},
		"as of 1:45":  {asOf(after(105*time.Minute), nil), 4, 2, 1, 1},
		"as of 2:45":  {asOf(after(165*time.Minute), nil), 8, 3, 2, 1},
		"as of later": {asOf(after(24*time.Hour), nil), 11, 3, 0, 1},
		"known at 2 h": {
			asOf(nil, after(2*time.Hour)), 8, 2, 0, 2,
		},
		"as of 1:45, known at 2:30": {asOf(after(105*time.Minute), after(150*time.Minute)), 4, 1, 0, 1},
		"as of 1:45, known at 3 h":  {asOf(after(105*time.Minute), after(3*time.Hour)), 4, 2, 1, 1},
		"as of 2:45, known at 3:30": {asOf(after(165*time.Minute), after(210*time.Minute)), 8, 3, 1, 2},
		"as of 3 h, known at 1:30":  {asOf(after(3*time.Hour), after(90*time.Minute)), 4, 1, 0, 1},
	} {
		test.request.CustomerId = "Bayley"
		res, err := h.GetState(t.Context(), connect.NewRequest(test.request))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		m, s := res.Msg.Moment, res.Msg.State
		if m.Sequence != test.sequence || m.LateFacts != test.late || s.ActiveLicenses != test.active ||
			s.Titles[0].Downloads != test.downloads {
			t.Errorf("%s: %v, %v", name, m, s)
		}
	}
	if _, err := h.GetState(t.Context(), connect.NewRequest(&licensedv1.GetStateRequest{
		CustomerId: "Bayley", At: &licensedv1.GetStateRequest_Sequence{Sequence: 1}, KnownAt: after(0),
	})); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("a sequence and a time of knowledge: %v", err)
	}
	why := func(at, known *timestamppb.Timestamp) string {
		res, err := h.Why(t.Context(), connect.NewRequest(&licensedv1.WhyRequest{
			CustomerId: "Bayley", DeviceId: "iphone", TitleId: "a", Time: at, KnownAt: known,
		}))
		if err != nil {
			t.Fatal(err)
		}
		text := res.Msg.Verdict
		for _, s := range res.Msg.Steps {
			text += "\n" + s.Text
		}
		return text
	}
	for _, test := range []struct {
		at, known *timestamppb.Timestamp
		late      bool
		released  bool
	}{
		{after(105 * time.Minute), nil, true, false},
		{nil, after(2 * time.Hour), false, false},
		{after(165 * time.Minute), nil, true, true},
		{nil, nil, true, true},
	} {
		text := why(test.at, test.known)
		late, released := strings.Contains(text, "reported later"), strings.HasPrefix(text, "Not active")
		if late != test.late || released != test.released {
			t.Errorf("as of %v, known at %v: %s", test.at, test.known, text)
		}
	}
}

func asOf(at, known *timestamppb.Timestamp) *licensedv1.GetStateRequest {
	r := &licensedv1.GetStateRequest{KnownAt: known}
	if at != nil {
		r.At = &licensedv1.GetStateRequest_Time{Time: at}
	}
	return r
}
