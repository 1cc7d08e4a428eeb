package gateway

import (
	"fmt"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
)

// sessionCodecs bound the number of calls in a message before it is decoded: an empty call takes two bytes there, and
// fifty times that in memory.
var sessionCodecs = connect.WithConditionalHandlerOptions(func(spec connect.Spec) []connect.HandlerOption {
	if spec.Procedure != licensedv1connect.LicenseServiceSessionProcedure {
		return nil
	}
	return []connect.HandlerOption{
		connect.WithCodec(binaryCodec{}), connect.WithCodec(jsonCodec("json")),
		connect.WithCodec(jsonCodec("json; charset=utf-8")),
	}
})

func tooManyCalls() error { return fmt.Errorf("a message has more than %d calls", maxMessageCalls) }

// binaryCodec is that of package connect, with the bound.
type binaryCodec struct{}

// Name implements connect.Codec.
func (binaryCodec) Name() string { return "proto" }

// Marshal implements connect.Codec.
func (binaryCodec) Marshal(m any) ([]byte, error) { return proto.Marshal(m.(proto.Message)) }

// MarshalAppend lets package connect use its buffers again.
func (binaryCodec) MarshalAppend(b []byte, m any) ([]byte, error) {
	return proto.MarshalOptions{}.MarshalAppend(b, m.(proto.Message))
}

// Unmarshal implements connect.Codec.
func (binaryCodec) Unmarshal(data []byte, m any) error {
	calls := (*licensedv1.SessionRequest)(nil).ProtoReflect().Descriptor().Fields().ByName("calls").Number()
	count := 0
	for b := data; len(b) > 0; {
		field, _, n := protowire.ConsumeField(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		if b = b[n:]; field != calls {
			continue
		}
		if count++; count > maxMessageCalls {
			return tooManyCalls()
		}
	}
	return proto.Unmarshal(data, m.(proto.Message))
}

// jsonCodec is that of package connect, with the bound.
type jsonCodec string

// Name implements connect.Codec.
func (c jsonCodec) Name() string { return string(c) }

// Marshal implements connect.Codec.
func (jsonCodec) Marshal(m any) ([]byte, error) { return protojson.Marshal(m.(proto.Message)) }

// Unmarshal implements connect.Codec.
func (jsonCodec) Unmarshal(data []byte, m any) error {
	// A call has its own object and that of its request.
	if objects(data) > 1+2*maxMessageCalls {
		return tooManyCalls()
	}
	return protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(data, m.(proto.Message))
}

// objects counts the objects in JSON.
func objects(data []byte) (n int) {
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '{':
			n++
		case '"':
			for i++; i < len(data) && data[i] != '"'; i++ {
				if data[i] == '\\' {
					i++
				}
			}
		}
	}
	return n
}
