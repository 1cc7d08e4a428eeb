// Package wire encodes and decodes the messages of the API's requests, in every protocol. Clients are not trusted: the
// memory of a message is bounded before it is decompressed and decoded.
package wire

import (
	"errors"
	"fmt"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"licensed/internal/protolimit"
)

// Proto and JSON are the codecs of package connect, with a bound on the memory of a decoded request.
var (
	Proto connect.Codec = codec{"proto", proto.MarshalOptions{}.MarshalAppend, decodeProto}
	JSON  connect.Codec = jsonCodec("json")
)

// Codecs has a handler use Proto and JSON.
func Codecs() connect.HandlerOption {
	return connect.WithHandlerOptions(connect.WithCodec(Proto), connect.WithCodec(JSON),
		connect.WithCodec(jsonCodec("json; charset=utf-8")))
}

func jsonCodec(name string) codec {
	return codec{name, protojson.MarshalOptions{}.MarshalAppend, decodeJSON}
}

// codec implements connect.Codec.
type codec struct {
	name   string
	encode func([]byte, proto.Message) ([]byte, error)
	decode func([]byte, proto.Message) error
}

// Name implements connect.Codec.
func (c codec) Name() string { return c.name }

// Marshal implements connect.Codec.
func (c codec) Marshal(v any) ([]byte, error) { return c.MarshalAppend(nil, v) }

// MarshalAppend appends to a buffer that package connect uses again.
func (c codec) MarshalAppend(b []byte, v any) ([]byte, error) {
	m, err := messageOf(v)
	if err != nil {
		return nil, err
	}
	return c.encode(b, m)
}

// Unmarshal implements connect.Codec.
func (c codec) Unmarshal(b []byte, v any) error {
	m, err := messageOf(v)
	if err != nil {
		return err
	}
	return c.decode(b, m)
}

func messageOf(v any) (proto.Message, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("%T is no protobuf message", v)
	}
	return m, nil
}

func decodeProto(b []byte, m proto.Message) error {
	if err := protolimit.Check(m.ProtoReflect().Descriptor(), b); err != nil {
		return err
	}
	return proto.Unmarshal(b, m)
}

// decodeJSON accepts unknown fields: clients of later releases may set them.
func decodeJSON(b []byte, m proto.Message) error {
	if len(b) == 0 {
		return errors.New("zero-length payload is not a valid JSON object")
	}
	if err := protolimit.CheckJSON(b); err != nil {
		return err
	}
	return protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(b, m)
}
