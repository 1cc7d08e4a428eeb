package client

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"licensed/messages/licensedv1"
)

// TestEventProblem notices events that say nothing, or what another event says.
func TestEventProblem(t *testing.T) {
	wrap := func(m proto.Message) *anypb.Any {
		a, err := anypb.New(m)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for _, c := range []struct {
		name string
		data *anypb.Any
		bad  bool
	}{
		{"DeviceActivated", wrap(&licensedv1.DeviceActivated{}), false},
		{"DeviceActivated", nil, true},
		{"DeviceActivated", wrap(&licensedv1.DeviceDeactivated{}), true},
		{"PlanChanged", wrap(&licensedv1.PlanChanged{PlanId: "one"}), false},
	} {
		e, err := Event(&licensedv1.HistoryEvent{Event: c.name, Data: c.data})
		if err != nil || (e.Problem != "") != c.bad {
			t.Errorf("%s with %v: %v, problem %q", c.name, c.data, err, e.Problem)
		}
	}
}
