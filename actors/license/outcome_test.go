package license

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"licensed/actors"
	"licensed/messages/licensedv1"
	"licensed/persistence"
)

// sampleOutcomes has a command and its events for each form of an outcome. Packed outcomes are stored:
// the window of remembered commands travels in snapshots.
func sampleOutcomes() []struct {
	name    string
	command *licensedv1.Command
	events  []actors.Event
} {
	at := epoch.UnixMilli()
	terms := &licensedv1.LicenseTerms{
		StudioId: "netflix", AcquiredAtMs: at - 5*day - 1, ExpiresAtMs: at + 25*day + 1, Renewals: 3, Released: true,
	}
	on := func(id string, values ...proto.Message) (events []actors.Event) {
		for i, v := range values {
			events = append(events, actors.Event{AggregateID: id, Order: uint64(i), Time: epoch, Value: v})
		}
		return events
	}
	refused := func(rule licensedv1.Rule, next int64) []actors.Event {
		return on(customer, &licensedv1.CommandRefused{
			Rule: rule, Limit: 2, Current: 300, NextAllowedAtMs: next, StudioId: "netflix", PlanId: "basic",
			YearlyCounts: licensedv1.YearlyCounts_YEARLY_COUNTS_BOTH,
		})
	}
	merged := &licensedv1.Exception{
		Number: 2, Reason: "ticket 1", GrantedAt: timestamp(at), Until: timestamp(at + 365*day),
		Kind: &licensedv1.Exception_Merge{
			Merge: &licensedv1.MergedDevice{OldDeviceId: "d", NewDeviceId: "e", Licenses: 3},
		},
	}
	labels := []*licensedv1.DeviceLabel{
		{DeviceId: "d", DeviceName: "Anna's iPad", DeviceType: licensedv1.DeviceType_DEVICE_TYPE_TABLET},
		{DeviceId: "dd", DeviceType: licensedv1.DeviceType_DEVICE_TYPE_OTHER},
	}
	accepted := func(kind licensedv1.CommandKind) []actors.Event {
		return on(customer, &licensedv1.CommandAccepted{Command: kind, License: terms, DeviceLimit: 4})
	}
	return []struct {
		name    string
		command *licensedv1.Command
		events  []actors.Event
	}{
		{"acquired", acquire("d", "t"),
			append(on("d", &licensedv1.DeviceActivated{}), on("d/t", &licensedv1.LicenseCreated{},
				&licensedv1.LicenseAcquired{StudioId: "netflix", ExpiresAtMs: at + 30*day},
				&licensedv1.TitleDownloaded{})...)},
		{
			"acquired until",
			acquire("d", "t"),
			on("d/t", &licensedv1.LicenseAcquired{StudioId: "netflix", ExpiresAtMs: at + 123456789}),
		},
		{"downloaded", download("d", "t"), on("d/t", &licensedv1.TitleDownloaded{License: terms})},
		{"renewed", renew("d", "t"), on("d/t", &licensedv1.LicenseRenewed{License: terms})},
		{"released", release("d", "t"), on("d/t", &licensedv1.LicenseReleased{License: terms})},
		{"played", play("d", "t"), on("d/t", &licensedv1.TitlePlayed{License: terms, Counted: true})},
		{"deactivated", deactivate("d"), append(on("d", &licensedv1.DeviceDeactivated{}), slices.Concat(
			on("d/GlowS01E01", &licensedv1.LicenseReleased{License: terms}),
			on("d/GlowS01E02", &licensedv1.LicenseReleased{License: terms}),
			on("d/Roma", &licensedv1.LicenseReleased{License: terms}))...)},
		{"deactivated at a cost", deactivate("d"), append(on("d", &licensedv1.DeviceDeactivated{
			Removal: &licensedv1.Removal{
				Counted: true, Removals: 2, Limit: proto.Uint32(4), DevicesInUse: 1, DeviceLimit: 300,
			},
		}), on("d/Roma", &licensedv1.LicenseReleased{License: terms})...)},
		{"plan that is exceeded", changePlan("basic"), on(customer, &licensedv1.PlanChanged{
			PlanId: "basic", DeviceLimit: 2, StayingDeviceIds: []string{"ipad", "iphone"},
		})},
		{"selected", selectDevices("ipad", "iphone"), on(customer, &licensedv1.DevicesSelected{
			StayingDeviceIds: []string{"ipad", "iphone"}, Binding: true, Chosen: true,
		})},
		{"selected already", selectDevices("ipad"), on(customer, &licensedv1.CommandAccepted{
			Command: licensedv1.CommandKind_COMMAND_KIND_SELECT_DEVICES, StayingDeviceIds: []string{"ipad"},
		})},
		{"not selected", renew("d", "t"), on(customer, &licensedv1.CommandRefused{
			Rule: licensedv1.Rule_RULE_DEVICE_NOT_SELECTED, Limit: 2, Current: 3, PlanId: "basic",
			Broken: []*licensedv1.BrokenRule{{
				Rule: licensedv1.Rule_RULE_DEVICE_NOT_SELECTED, Limit: 2, Current: 3, PlanId: "basic",
				FreedBy: []string{"tv", "ipad"}, Needed: 1, StayingDeviceIds: []string{"ipad", "tv"}, Selectable: true,
			}},
		})},
		{"acquired with hours", acquire("d", "t"), on("d/t", &licensedv1.LicenseShortened{License: terms},
			&licensedv1.LicenseAcquired{StudioId: "netflix", ExpiresAtMs: at + 30*day, PlayHours: 48})},
		{"played first", play("d", "t"), on("d/t", &licensedv1.TitlePlayed{License: &licensedv1.LicenseTerms{
			StudioId: "netflix", AcquiredAtMs: at - 5*day, ExpiresAtMs: at + 2*day, PlayHours: 48,
		}})},
		{"not renewed after a playback", renew("d", "t"), on(customer, &licensedv1.CommandRefused{
			Rule: licensedv1.Rule_RULE_PLAYED, Limit: 48, Current: 47,
		})},
		{"plan with grace", changePlan("ended"), append(on(customer, &licensedv1.PlanChanged{
			PlanId: "ended", GraceUntilMs: at + 7*day,
		}), on("d/t", &licensedv1.LicenseShortened{License: terms})...)},
		{"plan", changePlan("basic"), on(customer, &licensedv1.PlanChanged{PlanId: "basic", DeviceLimit: 200})},
		{"unchanged", acquire("d", "t"), accepted(licensedv1.CommandKind_COMMAND_KIND_ACQUIRE_LICENSE)},
		{"unchanged device", deactivate("d"), accepted(licensedv1.CommandKind_COMMAND_KIND_DEACTIVATE_DEVICE)},
		{"unchanged plan", changePlan("basic"), accepted(licensedv1.CommandKind_COMMAND_KIND_CHANGE_PLAN)},
		{"superseded", release("d", "t"), on(customer, &licensedv1.CommandAccepted{
			Command: licensedv1.CommandKind_COMMAND_KIND_RELEASE_LICENSE, License: terms, Superseded: true,
		})},
		{"superseded device", deactivate("d"), on(customer, &licensedv1.CommandAccepted{
			Command: licensedv1.CommandKind_COMMAND_KIND_DEACTIVATE_DEVICE, Superseded: true,
		})},
		{"superseded plan", changePlan("basic"), on(customer, &licensedv1.CommandAccepted{
			Command: licensedv1.CommandKind_COMMAND_KIND_CHANGE_PLAN, PlanId: "premium", DeviceLimit: 4,
			PlanChangedAtMs: at - 12345, Superseded: true,
		})},
		{"synced", sync("d", fact(1, played, "t", epoch)), append(on("d/t",
			&licensedv1.TitlePlayed{Occurrence: &licensedv1.Occurrence{OccurredAtMs: at - 1, Number: 1}},
			&licensedv1.TitleDeleted{Occurrence: &licensedv1.Occurrence{OccurredAtMs: at, Number: 300}},
			&licensedv1.LicenseReleased{License: terms}),
			on("d", &licensedv1.TitleDownloaded{
				Occurrence: &licensedv1.Occurrence{Number: 301, Verdict: unlicensed, TitleId: "u"},
			})...)},
		{"synced before", sync("d"), on(customer, &licensedv1.CommandAccepted{
			Command: licensedv1.CommandKind_COMMAND_KIND_SYNC_DEVICE, HighestNumber: 301,
		})},
		{"played before", play("d", "t"), on("d/t", &licensedv1.TitlePlayed{
			License: terms, Counted: true, Occurrence: &licensedv1.Occurrence{OccurredAtMs: at - 1},
		})},
		{"device limit", acquire("d", "t"), refused(licensedv1.Rule_RULE_DEVICE_LIMIT, at+5*day)},
		{"studio limit", renew("d", "t"), refused(licensedv1.Rule_RULE_STUDIO_LIMIT, at+5*day+1)},
		{"yearly limit", play("d", "t"), refused(licensedv1.Rule_RULE_YEARLY_LIMIT, 0)},
		{"deactivation limit", deactivate("d"), refused(licensedv1.Rule_RULE_DEACTIVATION_LIMIT, at+364*day)},
		{"remembered limit", acquire("d", "t"), refused(licensedv1.Rule_RULE_REMEMBERED_LIMIT, at+5*day)},
		{"several rules", acquire("d", "t"), on(customer, &licensedv1.CommandRefused{
			Rule: licensedv1.Rule_RULE_DEVICE_LIMIT, Limit: 2, Current: 3, PlanId: "basic",
			NextAllowedAtMs: at + 300*day,
			Broken: []*licensedv1.BrokenRule{
				{
					Rule: licensedv1.Rule_RULE_DEVICE_LIMIT, Limit: 2, Current: 3, PlanId: "basic",
					NextAllowedAtMs: at + 5*day, FreedBy: []string{"ipad", "iphone", "laptop"}, Needed: 2,
				},
				{
					Rule: licensedv1.Rule_RULE_STUDIO_LIMIT, Limit: 1, Current: 1, StudioId: "netflix",
					NextAllowedAtMs: at + 5*day + 1, FreedBy: []string{"ipad/GlowS01E01"}, Needed: 1,
				},
				{
					Rule: licensedv1.Rule_RULE_YEARLY_LIMIT, Limit: 3, Current: 3, NextAllowedAtMs: at + 300*day,
					YearlyCounts: licensedv1.YearlyCounts_YEARLY_COUNTS_BOTH,
				},
				{Rule: licensedv1.Rule_RULE_TITLE_UNAVAILABLE},
			},
		})},
		{"limit by exception", acquire("d", "t"), on(customer, &licensedv1.CommandRefused{
			Rule: licensedv1.Rule_RULE_DEVICE_LIMIT, Limit: 2, Current: 3, PlanId: "basic",
			Broken: []*licensedv1.BrokenRule{
				{
					Rule: licensedv1.Rule_RULE_DEVICE_LIMIT, Limit: 2, Current: 3, PlanId: "basic",
					ExceptionNumber: 300, ExceptionUntilMs: at + 5*day,
				},
				{Rule: licensedv1.Rule_RULE_TITLE_UNAVAILABLE},
			},
		})},
		{"limit with device names", acquire("d", "t"), on(customer, &licensedv1.CommandRefused{
			Rule: licensedv1.Rule_RULE_DEVICE_LIMIT, Limit: 2, Current: 3, PlanId: "basic", Devices: labels,
			Broken: []*licensedv1.BrokenRule{
				{
					Rule: licensedv1.Rule_RULE_DEVICE_LIMIT, Limit: 2, Current: 3, PlanId: "basic",
					FreedBy: []string{"dd"}, Needed: 1,
				},
				{Rule: licensedv1.Rule_RULE_TITLE_UNAVAILABLE},
			},
		})},
		{"no licence of a named device", release("d", "t"), on(customer, &licensedv1.CommandRefused{
			Command: licensedv1.CommandKind_COMMAND_KIND_RELEASE_LICENSE, DeviceId: "d", TitleId: "t",
			Rule: licensedv1.Rule_RULE_NO_LICENSE, Devices: labels[:1],
		})},
		{"exception granted", merge("d", "e"), append(on("e", &licensedv1.DeviceActivated{}), on(customer,
			&licensedv1.ExceptionGranted{Exception: merged})...)},
		{"exception withdrawn", withdraw(2), on(customer, &licensedv1.ExceptionWithdrawn{Exception: merged})},
		{"unknown exception", withdraw(2), refused(licensedv1.Rule_RULE_UNKNOWN_EXCEPTION, 0)},
		{"no licence", release("d", "t"), refused(licensedv1.Rule_RULE_NO_LICENSE, 0)},
		{"unknown plan", changePlan("gold"), refused(licensedv1.Rule_RULE_UNKNOWN_PLAN, 0)},
	}
}

// words writes an outcome on a line.
func words(o Outcome) string {
	next := ""
	if o.Refusal != nil {
		next = fmt.Sprintf("; rule %v, limit %d, current %d, next %v", o.Refusal.Rule, o.Refusal.Limit,
			o.Refusal.Current, o.Refusal.NextAllowedAt.AsTime().UnixMilli())
		for _, v := range o.Refusal.Violations[1:] {
			next += fmt.Sprintf("; rule %v, limit %d, current %d, next %v, needed %d of %d", v.Rule, v.Limit, v.Current,
				v.NextAllowedAt.AsTime().UnixMilli(), v.Needed, len(v.FreedBy))
		}
	}
	return reply(o) + next
}

func TestOutcomeGolden(t *testing.T) {
	k := NewKind(roomy)
	for _, s := range sampleOutcomes() {
		t.Run(s.name, func(t *testing.T) {
			packed := k.Outcome(s.events)
			o, err := DecodeOutcome(customerID, s.command, epoch, packed)
			if err != nil {
				t.Fatal(err)
			}
			stored, described := golden(t, strings.ReplaceAll("outcome "+s.name, " ", "-")+".golden", packed,
				words(o)+"\n")
			if !bytes.Equal(packed, stored) {
				t.Errorf("packed %x, want %x", packed, stored)
			}
			read, err := DecodeOutcome(customerID, s.command, epoch, stored)
			if err != nil || words(read)+"\n" != described {
				t.Errorf("read %s (%v)\nwant %s", words(read), err, described)
			}
		})
	}
}

func TestOutcomeSize(t *testing.T) {
	k := NewKind(roomy)
	for _, s := range sampleOutcomes() {
		limit := 20 + len("netflix")
		switch s.name {
		case "acquired":
			limit = 3 + len("netflix")
		case "several rules":
			limit = 100
		case "not selected":
			limit = 40
		case "limit with device names":
			limit = 50
		case "exception granted", "exception withdrawn":
			limit = 60
		}
		if n := len(k.Outcome(s.events)); n > limit {
			t.Errorf("%s takes %d bytes, want at most %d", s.name, n, limit)
		}
	}
}

// TestOutcomeIsThatOfItsCommand refuses an outcome under a command that cannot have produced it.
func TestOutcomeIsThatOfItsCommand(t *testing.T) {
	k := NewKind(roomy)
	for _, s := range sampleOutcomes() {
		packed := k.Outcome(s.events)
		for _, c := range []*licensedv1.Command{
			deactivate("d"), changePlan("p"), acquire("d", "t"), selectDevices("d"), withdraw(2), merge("d", "e"), {},
		} {
			same := reflect.TypeOf(c.GetCommand()) == reflect.TypeOf(s.command.GetCommand()) ||
				excepts(c) && excepts(s.command)
			_, err := DecodeOutcome(customerID, c, epoch, packed)
			aboutTitle := subjectOf(s.command).title != "" && subjectOf(c).title != ""
			kind := packed[0] & outcomeKind
			if refusal := kind == outcomeRefusal || kind == outcomeBroken; !refusal && !same && !aboutTitle &&
				!errors.Is(err, persistence.ErrCorrupt) {
				t.Errorf("%s read as an outcome of %v: %v", s.name, c, err)
			}
		}
	}
	if packed := k.Outcome(nil); len(packed) > 0 {
		t.Errorf("no events came to %x", packed)
	}
	if _, err := DecodeOutcome(customerID, acquire("d", "t"), epoch, nil); !errors.Is(err, persistence.ErrCorrupt) {
		t.Errorf("an empty outcome: %v", err)
	}
}

// excepts reports whether a command is about an exception: both kinds have outcomes of one form.
func excepts(c *licensedv1.Command) bool {
	return c.GetGrantException() != nil || c.GetWithdrawException() != nil
}

// TestMessages wants a sentence of its own for every rule.
func TestMessages(t *testing.T) {
	seen := map[string]licensedv1.Rule{}
	for n := range licensedv1.Rule_name {
		rule := licensedv1.Rule(n)
		text := RefusalOf(
			&licensedv1.CommandRefused{Rule: rule, DeviceId: "d", TitleId: "t", PlanId: "p", StudioId: "s"},
		).Message
		if other, ok := seen[text]; ok {
			t.Errorf("%v and %v: %s", rule, other, text)
		}
		seen[text] = rule
		if rule != licensedv1.Rule_RULE_UNSPECIFIED && strings.Contains(text, "RULE_") {
			t.Errorf("%v has no words: %s", rule, text)
		}
	}
}

func FuzzDecodeOutcome(f *testing.F) {
	k := NewKind(roomy)
	for _, s := range sampleOutcomes() {
		f.Add(k.Outcome(s.events), uint8(subjectOf(s.command).kind), epoch.UnixMilli())
	}
	f.Fuzz(func(t *testing.T, packed []byte, kind uint8, at int64) {
		commands := []*licensedv1.Command{
			{}, acquire("d", "t"), renew("d", "t"), release("d", "t"), play("d", "t"), deactivate("d"), changePlan("p"),
			selectDevices("d"), withdraw(1), merge("d", "e"),
		}
		at %= maxTime
		o, err := DecodeOutcome(customerID, commands[int(kind)%len(commands)], time.UnixMilli(at), packed)
		if err != nil {
			if !errors.Is(err, persistence.ErrCorrupt) || !reflect.DeepEqual(o, Outcome{}) {
				t.Fatalf("%v with %v", err, o)
			}
			return
		}
		if o.Refusal != nil && o.Refusal.Message == "" || words(o) == "" {
			t.Fatalf("%x was read as %v", packed, o)
		}
		for _, m := range []proto.Message{o.Refusal, o.License} {
			if _, err := proto.Marshal(m); err != nil {
				t.Fatalf("%x cannot be sent: %v", packed, err)
			}
		}
	})
}
