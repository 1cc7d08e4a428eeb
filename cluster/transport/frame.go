package transport

import (
	"fmt"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"licensed/messages/clusterv1"
)

// Numbers of the fields of clusterv1.Frame.
const (
	requestsField  protowire.Number = 1
	responsesField protowire.Number = 2
	closingField   protowire.Number = 3
	abandonedField protowire.Number = 4
)

// maxFrameBytes is the size from which on no more messages are added to a frame. A frame is at most that and one
// message large.
const maxFrameBytes = 1 << 20

// part is an encoded field of a frame: a request, a response, a flag, or ids of abandoned requests.
type part []byte

// encode returns a message as the part of a frame that it is. Errors: it has a string that is not UTF-8.
func encode(field protowire.Number, m proto.Message) (part, error) {
	n := proto.Size(m)
	b := make([]byte, 0, protowire.SizeTag(field)+protowire.SizeBytes(n))
	b = protowire.AppendTag(b, field, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(n))
	return proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(b, m)
}

// closingPart says that the sender accepts no more requests.
func closingPart() part {
	return protowire.AppendVarint(protowire.AppendTag(nil, closingField, protowire.VarintType), 1)
}

// abandonedPart says that the callers of requests stopped waiting; nil if there are no such requests.
func abandonedPart(ids []uint64) part {
	if len(ids) == 0 {
		return nil
	}
	var packed []byte
	for _, id := range ids {
		packed = protowire.AppendVarint(packed, id)
	}
	return protowire.AppendBytes(protowire.AppendTag(nil, abandonedField, protowire.BytesType), packed)
}

// outgoing is a frame to be written: its parts are put together when gRPC encodes it.
type outgoing []part

// fits returns the number of first parts that go into one frame.
func fits(parts []part) (n int) {
	for size := 0; n < len(parts) && size < maxFrameBytes; n++ {
		size += len(parts[n])
	}
	return n
}

// incoming is a frame that was read.
type incoming struct {
	requests  []request
	responses []*clusterv1.Response
	closing   bool
	abandoned []uint64 // ids of requests
}

// request is one that was read, with its encoded size.
type request struct {
	*clusterv1.Request
	size int
}

// decode reads a frame. Unknown fields are skipped.
func (f *incoming) decode(b []byte) error {
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(field, kind, b); n < 0 {
			return protowire.ParseError(n)
		}
		if err := f.field(field, kind, b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// field reads a field by its value.
func (f *incoming) field(field protowire.Number, kind protowire.Type, value []byte) error {
	switch {
	case field == requestsField && kind == protowire.BytesType:
		b, _ := protowire.ConsumeBytes(value)
		m := &clusterv1.Request{}
		f.requests = append(f.requests, request{m, len(b)})
		return proto.Unmarshal(b, m)
	case field == responsesField && kind == protowire.BytesType:
		b, _ := protowire.ConsumeBytes(value)
		m := &clusterv1.Response{}
		f.responses = append(f.responses, m)
		return proto.Unmarshal(b, m)
	case field == closingField && kind == protowire.VarintType:
		v, _ := protowire.ConsumeVarint(value)
		f.closing = protowire.DecodeBool(v)
	case field == abandonedField && kind == protowire.VarintType:
		return f.ids(value)
	case field == abandonedField && kind == protowire.BytesType:
		b, _ := protowire.ConsumeBytes(value)
		return f.ids(b)
	}
	return nil
}

// ids reads ids of abandoned requests.
func (f *incoming) ids(b []byte) error {
	for len(b) > 0 {
		id, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		f.abandoned = append(f.abandoned, id)
		b = b[n:]
	}
	return nil
}

// codec is how gRPC encodes and decodes frames: each request is encoded once, by its sender, and decoded once.
type codec struct{}

// Name implements encoding.CodecV2. It is the name of gRPC's own codec for protobuf, since the bytes are those of a
// clusterv1.Frame.
func (codec) Name() string { return "proto" }

// Marshal implements encoding.CodecV2.
func (codec) Marshal(v any) (mem.BufferSlice, error) {
	f, ok := v.(outgoing)
	if !ok {
		return nil, fmt.Errorf("write %T: no frame", v)
	}
	size := 0
	for _, p := range f {
		size += len(p)
	}
	pool := mem.DefaultBufferPool()
	buffer := pool.Get(size)
	b := (*buffer)[:0]
	for _, p := range f {
		b = append(b, p...)
	}
	return mem.BufferSlice{mem.NewBuffer(buffer, pool)}, nil
}

// Unmarshal implements encoding.CodecV2.
func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	f, ok := v.(*incoming)
	if !ok {
		return fmt.Errorf("read %T: no frame", v)
	}
	b := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer b.Free()
	return f.decode(b.ReadOnlyData())
}
