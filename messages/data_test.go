package messages

import (
	"encoding/json"
	"testing"

	"google.golang.org/protobuf/proto"

	"licensed/messages/licensedv1"
)

func TestData(t *testing.T) {
	for _, test := range []struct {
		event proto.Message
		want  string
	}{
		{&licensedv1.LicenseCreated{}, `{}`},
		{
			&licensedv1.LicenseAcquired{StudioId: "netflix", ExpiresAtMs: 1769817600000},
			`{"expiresAt":"2026-01-31T00:00:00.000Z","studioId":"netflix"}`,
		},
		{
			&licensedv1.TitlePlayed{License: terms, Counted: true},
			`{"counted":true,"license":{"acquiredAt":"2026-01-01T00:00:00.000Z","expiresAt":"2026-01-31T00:00:00.000Z",` +
				`"playHours":48,"released":true,"renewals":2,"studioId":"netflix"}}`,
		},
		{
			&licensedv1.CommandRefused{
				Command: licensedv1.CommandKind_COMMAND_KIND_ACQUIRE_LICENSE, Rule: licensedv1.Rule_RULE_YEARLY_LIMIT,
				Limit: 3, YearlyCounts: licensedv1.YearlyCounts_YEARLY_COUNTS_BOTH,
			},
			`{"command":"ACQUIRE_LICENSE","limit":3,"rule":"YEARLY_LIMIT","yearlyCounts":"BOTH"}`,
		},
		{&licensedv1.CommandRefused{Rule: 99}, `{"rule":"unknown"}`},
		{&licensedv1.DeactivateDeviceResponse{ReleasedTitleIds: []string{"a", "b"}}, `{"releasedTitleIds":["a","b"]}`},
	} {
		got, err := json.Marshal(Data(test.event).AsMap())
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != test.want {
			t.Errorf("%T: got  %s\nwant %s", test.event, got, test.want)
		}
	}
}

// TestEveryEventHasData: whatever kind of field an event gets, it is shown.
func TestEveryEventHasData(t *testing.T) {
	for _, m := range samples {
		if got, want := len(Data(m).GetFields()), m.ProtoReflect().Descriptor().Fields().Len(); got != want {
			t.Errorf("%s: %d fields of %d", EventMapper(m), got, want)
		}
	}
}

func BenchmarkData(b *testing.B) {
	for b.Loop() {
		Data(samples[2])
	}
}
