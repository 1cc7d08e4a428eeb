package messages

import (
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// timeFormat of times in the data of events: RFC 3339, milliseconds.
const timeFormat = "2006-01-02T15:04:05.000Z07:00"

// Data returns what an event says, for people: the fields that are set, with times instead of
// milliseconds (expires_at_ms is "expiresAt"), and names of enumerations without what they all begin
// with ("STUDIO_LIMIT").
func Data(event proto.Message) *structpb.Struct { return data(event.ProtoReflect()) }

// data is Data for a message within a message.
func data(m protoreflect.Message) *structpb.Struct {
	s := &structpb.Struct{}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if s.Fields == nil {
			s.Fields = make(map[string]*structpb.Value, 4)
		}
		name, value := dataField(f, v)
		s.Fields[name] = value
		return true
	})
	return s
}

// dataField returns the name and the value of a field that is set.
func dataField(f protoreflect.FieldDescriptor, v protoreflect.Value) (name string, _ *structpb.Value) {
	name = f.JSONName()
	if f.IsList() {
		list := &structpb.ListValue{}
		for i := range v.List().Len() {
			_, element := dataScalar(name, f, v.List().Get(i))
			list.Values = append(list.Values, element)
		}
		return name, structpb.NewListValue(list)
	}
	return dataScalar(name, f, v)
}

// dataScalar returns a value that is no list, and its name, which changes for times.
func dataScalar(name string, f protoreflect.FieldDescriptor, v protoreflect.Value) (string, *structpb.Value) {
	switch f.Kind() {
	case protoreflect.StringKind:
		return name, structpb.NewStringValue(v.String())
	case protoreflect.BoolKind:
		return name, structpb.NewBoolValue(v.Bool())
	case protoreflect.MessageKind:
		if t, ok := v.Message().Interface().(*timestamppb.Timestamp); ok {
			return name, structpb.NewStringValue(t.AsTime().Format(timeFormat))
		}
		return name, structpb.NewStructValue(data(v.Message()))
	case protoreflect.EnumKind:
		return name, structpb.NewStringValue(enumName(f.Enum(), v.Enum()))
	case protoreflect.Int64Kind:
		if short, ok := strings.CutSuffix(name, "Ms"); ok {
			return short, structpb.NewStringValue(time.UnixMilli(v.Int()).UTC().Format(timeFormat))
		}
		return name, structpb.NewNumberValue(float64(v.Int()))
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind:
		return name, structpb.NewNumberValue(float64(v.Uint()))
	default:
		return name, structpb.NewStringValue(v.String())
	}
}

// enumName returns RULE_STUDIO_LIMIT of Rule as STUDIO_LIMIT, and "unknown" for a value that this release does not
// know.
func enumName(e protoreflect.EnumDescriptor, n protoreflect.EnumNumber) string {
	value := e.Values().ByNumber(n)
	if value == nil {
		return "unknown"
	}
	prefix := strings.TrimSuffix(string(e.Values().ByNumber(0).Name()), "UNSPECIFIED")
	return strings.TrimPrefix(string(value.Name()), prefix)
}
