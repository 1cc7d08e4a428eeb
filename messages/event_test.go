package messages

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/messages/licensedv1"
)

var writeGoldenFiles = flag.Bool("write-golden", false,
	"write golden files that are missing; never change one that was released")

var terms = &licensedv1.LicenseTerms{
	StudioId: "netflix", AcquiredAtMs: 1767225600000, ExpiresAtMs: 1769817600000, Renewals: 2, Released: true,
	PlayHours: 48,
}

var occurrence = &licensedv1.Occurrence{
	OccurredAtMs: 1767225600000, DeviceTimeMs: 1767229200000, Number: 7,
	Verdict: licensedv1.FactVerdict_FACT_VERDICT_UNLICENSED, TitleId: "GlowS01E01", ReportedBy: "phone",
}

var exception = &licensedv1.Exception{
	Number: 2, Reason: "ticket 7", GrantedAt: timestamppb.New(time.UnixMilli(1767225600123)),
	Until: timestamppb.New(time.UnixMilli(1769817600123)),
	Kind: &licensedv1.Exception_Limit{Limit: &licensedv1.OtherLimit{
		Kind: licensedv1.LimitKind_LIMIT_KIND_YEARLY, Limit: proto.Uint32(5), TitleId: "GlowS01E01",
		StudioId: "netflix", PlanId: "premium",
	}},
}

// samples has an event of each type as it is stored today, with every field set.
var samples = []proto.Message{
	&licensedv1.LicenseCreated{},
	&licensedv1.LicenseAcquired{StudioId: "netflix", ExpiresAtMs: 1769817600000, IssuedAtMs: 1767225599000,
		PlayHours: 48, Exceptions: []uint64{2, 300}},
	&licensedv1.LicenseRenewed{License: terms, Exceptions: []uint64{2, 300}},
	&licensedv1.LicenseShortened{License: terms, Cause: licensedv1.ShortenedBy_SHORTENED_BY_TITLE_END},
	&licensedv1.LicenseReleased{License: terms},
	&licensedv1.TitleDownloaded{License: terms, Occurrence: occurrence, IssuedAtMs: 1767225599000,
		Exceptions: []uint64{2, 300}},
	&licensedv1.TitlePlayed{License: terms, Counted: true, Occurrence: occurrence, StartsHours: true,
		Exceptions: []uint64{2, 300}},
	&licensedv1.TitleDeleted{Occurrence: occurrence},
	&licensedv1.DeviceActivated{IssuedAtMs: 1767225599000},
	&licensedv1.DeviceLabeled{DeviceName: "Anna's iPad", DeviceType: licensedv1.DeviceType_DEVICE_TYPE_TABLET},
	&licensedv1.DeviceDeactivated{Removal: &licensedv1.Removal{
		Counted: true, Removals: 2, Limit: proto.Uint32(4), DevicesInUse: 1, DeviceLimit: 3,
	}, Exceptions: []uint64{2, 300}},
	&licensedv1.PlanChanged{PlanId: "premium", DeviceLimit: 4, IssuedAtMs: 1767225599000,
		StayingDeviceIds: []string{"ipad", "iphone"}, GraceUntilMs: 1767830400000},
	&licensedv1.DevicesSelected{StayingDeviceIds: []string{"ipad", "iphone"}, Binding: true, Chosen: true},
	&licensedv1.AllowanceLent{Number: 7, GatewayId: "gw-1", UntilMs: 1769817600000,
		Units: []*licensedv1.AllowanceLent_Unit{{TitleId: "GlowS01E01", StudioId: "netflix"}}},
	&licensedv1.AllowanceRedeemed{Number: 7, License: terms, RedeemedAtMs: 1767225600000,
		ShortenedBy: licensedv1.Rule_RULE_DEVICE_DEACTIVATED, IssuedAtMs: 1767225599000},
	&licensedv1.AllowanceReturned{Number: 7, TitleIds: []string{"GlowS01E01"}},
	&licensedv1.ExceptionGranted{Exception: exception},
	&licensedv1.ExceptionWithdrawn{Exception: exception, Reason: "ticket 8"},
	&licensedv1.CommandAccepted{
		Command:  licensedv1.CommandKind_COMMAND_KIND_RELEASE_LICENSE,
		DeviceId: "iphone", TitleId: "GlowS01E01", PlanId: "premium", License: terms, DeviceLimit: 4,
		Superseded: true, HighestNumber: 7, PlanChangedAtMs: 1767225600000, IssuedAtMs: 1767225599000,
		StayingDeviceIds: []string{"ipad"}, Binding: true,
	},
	&licensedv1.CommandRefused{
		Command:  licensedv1.CommandKind_COMMAND_KIND_ACQUIRE_LICENSE,
		DeviceId: "iphone", TitleId: "GlowS01E01", PlanId: "basic",
		Rule: licensedv1.Rule_RULE_STUDIO_LIMIT, Limit: 3, Current: 4, NextAllowedAtMs: 1769817600000,
		StudioId: "netflix", YearlyCounts: licensedv1.YearlyCounts_YEARLY_COUNTS_BOTH,
		Broken: []*licensedv1.BrokenRule{{
			Rule: licensedv1.Rule_RULE_STUDIO_LIMIT, Limit: 3, Current: 4, NextAllowedAtMs: 1769817600000,
			PlanId: "basic", StudioId: "netflix", YearlyCounts: licensedv1.YearlyCounts_YEARLY_COUNTS_BOTH,
			FreedBy: []string{"iphone/GlowS01E01", "ipad"}, Needed: 2,
			StayingDeviceIds: []string{"laptop"}, Selectable: true, ExceptionNumber: 2, ExceptionUntilMs: 1769817600000,
		}},
		ExceptionNumber: 3,
		Devices: []*licensedv1.DeviceLabel{{
			DeviceId: "ipad", DeviceName: "Anna's iPad", DeviceType: licensedv1.DeviceType_DEVICE_TYPE_TABLET,
		}},
	},
}

func goldenFile(mapper string) string {
	return filepath.Join("testdata", "golden", strings.ReplaceAll(mapper, "/", ".")+".txt")
}

// golden is a file with the stored bytes of an event, in hexadecimal, and with what they mean.
func golden(t *testing.T, mapper, file string) (data []byte, event proto.Message) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("an event mapper without a golden file (go test ./messages -write-golden makes it): %v", err)
	}
	digits, meaning, _ := strings.Cut(string(text), "\n")
	if data, err = hex.DecodeString(digits); err != nil {
		t.Fatal(err)
	}
	event, err = DecodeEvent(mapper, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := protojson.Unmarshal([]byte(meaning), event); err != nil {
		t.Fatal(err)
	}
	return data, event
}

// TestGolden reads the bytes that every release stored, and writes those of this one.
func TestGolden(t *testing.T) {
	if *writeGoldenFiles {
		writeGolden(t)
	}
	current := map[string]proto.Message{}
	for _, m := range samples {
		current[EventMapper(m)] = m
	}
	for _, mapper := range EventMappers() {
		t.Run(mapper, func(t *testing.T) {
			data := readGolden(t, mapper, goldenFile(mapper))
			// NAME.1-before-FIELD.txt has the bytes from before the message had a field more.
			before, err := filepath.Glob(strings.TrimSuffix(goldenFile(mapper), ".txt") + "-*.txt")
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range before {
				readGolden(t, mapper, file)
			}
			sample, ok := current[mapper]
			if !ok {
				return // a former version is read, but not written
			}
			if written, err := AppendEvent(nil, sample); err != nil || !bytes.Equal(written, data) {
				t.Errorf("written %x (%v)\nwant    %x", written, err, data)
			}
		})
	}
	for mapper := range current {
		if _, ok := mappers[mapper]; !ok {
			t.Errorf("events are written as %q and cannot be read", mapper)
		}
	}
}

// readGolden holds what is read from the bytes of a golden file against their meaning, and returns the bytes.
func readGolden(t *testing.T, mapper, file string) []byte {
	t.Helper()
	data, want := golden(t, mapper, file)
	got, err := DecodeEvent(mapper, data)
	if err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(got, want) {
		t.Errorf("%s: read %v\nwant %v", file, got, want)
	}
	return data
}

func writeGolden(t *testing.T) {
	for _, m := range samples {
		name := goldenFile(EventMapper(m))
		if _, err := os.Stat(name); err == nil {
			continue
		}
		data, err := AppendEvent(nil, m)
		if err != nil {
			t.Fatal(err)
		}
		// protojson varies its spacing on purpose; the meaning is compared, not the text.
		text := hex.EncodeToString(data) + "\n" + protojson.Format(m) + "\n"
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSamplesAreFull keeps the golden files meaningful: a field that no sample sets is not tested.
func TestSamplesAreFull(t *testing.T) {
	var full func(m protoreflect.Message)
	full = func(m protoreflect.Message) {
		fields := m.Descriptor().Fields()
		for i := range fields.Len() {
			field := fields.Get(i)
			if field.ContainingOneof() != nil && m.WhichOneof(field.ContainingOneof()) != field {
				continue // another member of it is set
			}
			if !m.Has(field) {
				t.Errorf("%s is not set", field.FullName())
			} else if field.IsList() && field.Message() != nil {
				for i := range m.Get(field).List().Len() {
					full(m.Get(field).List().Get(i).Message())
				}
			} else if !field.IsList() && field.Message() != nil {
				full(m.Get(field).Message())
			}
		}
	}
	for _, m := range samples {
		full(m.ProtoReflect())
	}
}

// TestEveryEventIsMapped finds messages of events.proto that have no event mapper.
func TestEveryEventIsMapped(t *testing.T) {
	messages := licensedv1.File_licensed_v1_events_proto.Messages()
	for i := range messages.Len() {
		name := string(messages.Get(i).Name())
		if name == "LicenseTerms" || name == "BrokenRule" || name == "Occurrence" {
			continue // a part of events
		}
		if _, ok := mappers[name+"/1"]; !ok {
			t.Errorf("%s has no event mapper", name)
		}
	}
}

func TestEventMapperOfOthers(t *testing.T) {
	if got := EventMapper(terms); got != "" {
		t.Errorf("LicenseTerms is stored as %q", got)
	}
}

func TestDecodeEventErrors(t *testing.T) {
	if _, err := DecodeEvent("LicenseAcquired/9", nil); !errors.Is(err, ErrUnknownMapper) {
		t.Errorf("a mapper of the future: %v", err)
	}
	if _, err := DecodeEvent("LicenseAcquired/1", []byte{0xff}); err == nil {
		t.Error("malformed data was read")
	}
	if _, err := AppendEvent(nil, &licensedv1.PlanChanged{PlanId: "\xff"}); err == nil {
		t.Error("a string that is not UTF-8 was written")
	}
}

func FuzzDecodeEvent(f *testing.F) {
	for _, m := range samples {
		data, err := AppendEvent(nil, m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(EventMapper(m), data)
	}
	f.Fuzz(func(t *testing.T, mapper string, data []byte) {
		event, err := DecodeEvent(mapper, data)
		if err != nil {
			return
		}
		again, err := AppendEvent(nil, event)
		if err != nil {
			t.Fatal(err)
		}
		second, err := DecodeEvent(EventMapper(event), again)
		if err != nil || !proto.Equal(event, second) {
			t.Fatalf("%v became %v (%v)", event, second, err)
		}
	})
}
