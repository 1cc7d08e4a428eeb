package transport

import (
	"errors"
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

// requestIDField is the number of the id of a clusterv1.Request.
const requestIDField protowire.Number = 50

// Bounds of a frame. A writer adds no more messages to a frame of maxFrameBytes, so that a frame is at most that
// and one message large. Frames of small messages fit into windowBytes, so that they arrive while
// the budget of unfinished frames is used up. A frame has at most maxFrameMessages requests, responses and ids of
// abandoned requests: an empty one takes 2 bytes of a frame, and a hundred times that when it is decoded. A reader
// refuses more; earlier releases write no more than Config.MaxInFlight, which is half of it.
const (
	maxFrameBytes    = 64 << 10
	maxFrameMessages = 16 << 10
)

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

// abandonedPart says that the callers of requests stopped waiting.
func abandonedPart(ids []uint64) part {
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
	for size := 0; n < len(parts) && n < maxFrameMessages && size < maxFrameBytes; n++ {
		size += len(parts[n])
	}
	return n
}

// incoming is a frame that was read. Its requests are not decoded: the reader asks its budget for each of them first.
type incoming struct {
	requests  [][]byte // encoded, in the buffer
	responses []*clusterv1.Response
	closing   bool
	abandoned []uint64 // ids of requests

	messages int        // in all
	buffer   mem.Buffer // nil: the frame is not of a stream
}

// free gives back the memory of the encoded frame. The requests must not be used any more.
func (f *incoming) free() {
	if f.buffer != nil {
		f.buffer.Free()
	}
	f.buffer, f.requests = nil, nil
}

// decode reads a frame. Unknown fields are skipped.
func (f *incoming) decode(b []byte) error {
	return eachField(b, f.field)
}

// eachField calls a function with the fields of an encoded message, until it returns an
// error. Value is the field as it is encoded, without its tag. The slices are parts of b.
func eachField(b []byte, do func(field protowire.Number, kind protowire.Type, value []byte) error) error {
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(field, kind, b); n < 0 {
			return protowire.ParseError(n)
		}
		if err := do(field, kind, b[:n]); err != nil {
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
		// Not decoded yet: requests are decoded one by one, as they are admitted.
		b, _ := protowire.ConsumeBytes(value)
		f.requests = append(f.requests, b)
		return f.count()
	case field == responsesField && kind == protowire.BytesType:
		// Counted before it is decoded: a frame of empty responses takes a hundred times
		// its size.
		if err := f.count(); err != nil {
			return err
		}
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
	// Fields of a later release are passed over.
	return nil
}

// count counts a message of the frame.
func (f *incoming) count() error {
	if f.messages++; f.messages > maxFrameMessages {
		return fmt.Errorf("%w: a frame has at most %d requests, responses and ids", errTooMany, maxFrameMessages)
	}
	return nil
}

// errTooMany refuses a frame.
var errTooMany = errors.New("too many messages in a frame")

// ids reads ids of abandoned requests.
func (f *incoming) ids(b []byte) error {
	for len(b) > 0 {
		id, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		if err := f.count(); err != nil {
			return err
		}
		f.abandoned = append(f.abandoned, id)
		b = b[n:]
	}
	return nil
}

// requestID returns the id of an encoded request.
func requestID(b []byte) (id uint64, err error) {
	err = eachField(b, func(field protowire.Number, kind protowire.Type, value []byte) error {
		if field == requestIDField && kind == protowire.VarintType {
			id, _ = protowire.ConsumeVarint(value)
		}
		return nil
	})
	return id, err
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
		// The parts were encoded when their requests were queued: here they are only
		// joined.
		size += len(p)
	}
	// From the pool of gRPC, which takes the buffer back once it is written.
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
	f.buffer = data.MaterializeToBuffer(mem.DefaultBufferPool())
	err := f.decode(f.buffer.ReadOnlyData())
	if err != nil || len(f.requests) == 0 {
		f.free()
	}
	return err
}
