package gateway_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/gateway"
	"licensed/messages/licensedv1"
)

// commands returns one of each command, with all its fields as set makes them.
func commands(set func(m protoreflect.Message, f protoreflect.FieldDescriptor)) []*licensedv1.Command {
	var all []*licensedv1.Command
	oneof := (&licensedv1.Command{}).ProtoReflect().Descriptor().Oneofs().ByName("command").Fields()
	for i := range oneof.Len() {
		c := &licensedv1.Command{}
		m := c.ProtoReflect().Mutable(oneof.Get(i)).Message()
		setFields(m, set)
		all = append(all, c)
	}
	return all
}

// setFields sets the fields of a message, and adds one element to each list.
func setFields(m protoreflect.Message, set func(m protoreflect.Message, f protoreflect.FieldDescriptor)) {
	for j := range m.Descriptor().Fields().Len() {
		if f := m.Descriptor().Fields().Get(j); f.IsList() && f.Kind() == protoreflect.StringKind {
			m.Mutable(f).List().Append(protoreflect.ValueOfString(string(f.Name())))
		} else if f.IsList() {
			setFields(m.Mutable(f).List().AppendMutable().Message(), set)
		} else if f.Message() != nil { // of several kinds, the last one
			setFields(m.Mutable(f).Message(), set)
		} else {
			set(m, f)
		}
	}
}

func value(t testing.TB, f protoreflect.FieldDescriptor, s string) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(s)
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(int64(f.Number()))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(f.Number()))
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(f.Number()))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(uint64(f.Number()))
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(2)
	default:
		t.Fatalf("%s has a kind that the fingerprint does not know", f.FullName())
		panic("unreachable")
	}
}

// TestFingerprintCoversEveryField fails when a command or field is added and the fingerprint forgets it.
func TestFingerprintCoversEveryField(t *testing.T) {
	seen := map[uint64]string{}
	note := func(what string, c *licensedv1.Command, at *timestamppb.Timestamp) {
		t.Helper()
		f := gateway.Fingerprint(c, at)
		if other, ok := seen[f]; ok {
			t.Errorf("%s has the fingerprint of %s", what, other)
		}
		seen[f] = what
	}
	full := commands(func(m protoreflect.Message, f protoreflect.FieldDescriptor) { m.Set(f, value(t, f, "x")) })
	for _, c := range full {
		note(c.String(), c, nil)
		note(c.String()+" at 0", c, &timestamppb.Timestamp{})
		note(c.String()+" at 1 s", c, &timestamppb.Timestamp{Seconds: 1})
		note(c.String()+" at 1 ns", c, &timestamppb.Timestamp{Nanos: 1})
		field := c.ProtoReflect().WhichOneof(c.ProtoReflect().Descriptor().Oneofs().ByName("command"))
		fields := c.ProtoReflect().Get(field).Message().Descriptor().Fields()
		for i := range fields.Len() {
			switch fields.Get(i).Name() {
			case "received_at_ms", "allowance", "gateway_id", "redeemed_at_ms": // The gateway sets it.
				continue
			}
			if !c.ProtoReflect().Get(field).Message().Has(fields.Get(i)) {
				continue // another kind of exception
			}
			without := proto.Clone(c).(*licensedv1.Command)
			without.ProtoReflect().Mutable(field).Message().Clear(fields.Get(i))
			note(c.String()+" without "+string(fields.Get(i).Name()), without, nil)
		}
	}
	if len(full) != 12 {
		t.Errorf("%d commands, this test knows 12: give the new one a number in fingerprint and a line in "+
			"TestFingerprintIsStable", len(full))
	}
}

// TestFingerprintIsStable holds what is stored in journals forever.
func TestFingerprintIsStable(t *testing.T) {
	at := &timestamppb.Timestamp{Seconds: 1_700_000_000, Nanos: 5}
	// With the fields of the first release, and with all.
	former := []uint64{
		0x5f30eec9536182cc, 0xe72ed216f38ea1cc, 0x2278d87b48a189f7,
		0x8352e0cf1f243440, 0xe8d31fba156563d0, 0x445ccff9975de750,
	}
	want := []uint64{
		0x5f30eec9536182cc, 0x21bbb8dbc9fb2d77, 0x4efd5b9f296e5086, 0x6fd7dcda8095cd8a,
		0xd4dd29c42ba459a4, 0xb538bbe66c6c6a4a, 0x5f9fa30efe31485f, 0x79ed9d28be8ac569,
		0x2b6102db380c3781, 0x4f8c079f67d3bef4,
		0xae13c15eca15e3da, 0x16b6681e088455cf,
	}
	for i, c := range commands(func(m protoreflect.Message, f protoreflect.FieldDescriptor) {
		if f.Kind() == protoreflect.StringKind || f.Kind() == protoreflect.BoolKind {
			m.Set(f, value(t, f, string(f.Name())))
		}
	}) {
		if i < len(former) && gateway.Fingerprint(c, at) != former[i] {
			t.Errorf("%v: %#x, want %#x", c, gateway.Fingerprint(c, at), former[i])
		}
	}
	for i, c := range commands(func(m protoreflect.Message, f protoreflect.FieldDescriptor) {
		m.Set(f, value(t, f, string(f.Name())))
	}) {
		if got := gateway.Fingerprint(c, at); got != want[i] {
			t.Errorf("%v: %#x, want %#x", c, got, want[i])
		}
	}
}

// TestFingerprintOfException: each kind of exception has its own, and each field of it changes it, but those that the
// service sets.
func TestFingerprintOfException(t *testing.T) {
	at := timestamppb.New(time.UnixMilli(1_700_000_000_123))
	limit := &licensedv1.OtherLimit{
		Kind: licensedv1.LimitKind_LIMIT_KIND_YEARLY, Limit: proto.Uint32(0), TitleId: "t", StudioId: "s", PlanId: "p",
	}
	seen := map[uint64]string{}
	note := func(c *licensedv1.GrantException) {
		t.Helper()
		f := gateway.Fingerprint(&licensedv1.Command{
			Command: &licensedv1.Command_GrantException{GrantException: c},
		}, nil)
		if other, ok := seen[f]; ok {
			t.Errorf("%v has the fingerprint of %s", c, other)
		}
		seen[f] = c.String()
	}
	for _, c := range []*licensedv1.GrantException{
		{Kind: &licensedv1.GrantException_Limit{Limit: limit}},
		{Kind: &licensedv1.GrantException_Removal{Removal: &licensedv1.ForgivenRemoval{RemovedAt: at}}},
		{Kind: &licensedv1.GrantException_Use{Use: &licensedv1.ForgivenUse{
			TitleId: "t", DeviceId: "d", UsedAt: at, Playback: true,
		}}},
		{Kind: &licensedv1.GrantException_Merge{
			Merge: &licensedv1.MergedDevice{OldDeviceId: "d", NewDeviceId: "e", Licenses: 2},
		}},
	} {
		note(c)
		m := c.ProtoReflect()
		kind := m.WhichOneof(m.Descriptor().Oneofs().ByName("kind"))
		fields := kind.Message().Fields()
		for i := range fields.Len() {
			if name := fields.Get(i).Name(); name == "plan_id" || name == "licenses" {
				continue
			}
			without := proto.CloneOf(c)
			without.ProtoReflect().Mutable(kind).Message().Clear(fields.Get(i))
			note(without)
		}
	}
}
