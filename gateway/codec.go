package gateway

import (
	"errors"
	"fmt"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"licensed/internal/protolimit"
)

// codecs are those of package connect, with a bound on the memory of a decoded request.
func codecs() []connect.HandlerOption {
	return []connect.HandlerOption{
		connect.WithCodec(boundedProto{}), connect.WithCodec(boundedJSON{"json"}),
		connect.WithCodec(boundedJSON{"json; charset=utf-8"}),
	}
}

func messageOf(v any) (proto.Message, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("%T is no protobuf message", v)
	}
	return m, nil
}

// boundedProto implements connect.Codec.
type boundedProto struct{}

// Name implements connect.Codec.
func (boundedProto) Name() string { return "proto" }

// Marshal implements connect.Codec.
func (c boundedProto) Marshal(v any) ([]byte, error) { return c.MarshalAppend(nil, v) }

// MarshalAppend appends to a buffer that package connect uses again.
func (boundedProto) MarshalAppend(b []byte, v any) ([]byte, error) {
	m, err := messageOf(v)
	if err != nil {
		return nil, err
	}
	return proto.MarshalOptions{}.MarshalAppend(b, m)
}

// Unmarshal implements connect.Codec.
func (boundedProto) Unmarshal(b []byte, v any) error {
	m, err := messageOf(v)
	if err == nil {
		err = protolimit.Check(m.ProtoReflect().Descriptor(), b)
	}
	if err == nil {
		err = proto.Unmarshal(b, m)
	}
	return err
}

// boundedJSON implements connect.Codec.
type boundedJSON struct{ name string }

// Name implements connect.Codec.
func (c boundedJSON) Name() string { return c.name }

// Marshal implements connect.Codec.
func (c boundedJSON) Marshal(v any) ([]byte, error) { return c.MarshalAppend(nil, v) }

// MarshalAppend appends to a buffer that package connect uses again.
func (boundedJSON) MarshalAppend(b []byte, v any) ([]byte, error) {
	m, err := messageOf(v)
	if err != nil {
		return nil, err
	}
	return protojson.MarshalOptions{}.MarshalAppend(b, m)
}

// Unmarshal implements connect.Codec. Clients of later releases may set fields that are not known here.
func (boundedJSON) Unmarshal(b []byte, v any) error {
	if len(b) == 0 {
		return errors.New("zero-length payload is not a valid JSON object")
	}
	m, err := messageOf(v)
	if err == nil {
		err = protolimit.CheckJSON(b)
	}
	if err == nil {
		err = protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(b, m)
	}
	return err
}
