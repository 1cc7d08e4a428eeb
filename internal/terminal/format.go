package terminal

import (
	"bytes"
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// JSON returns a message in the protobuf mapping, in one line. (protojson varies its spacing.)
func JSON(m proto.Message) json.RawMessage {
	text, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		text = fmt.Appendf(nil, "%q", err.Error())
	}
	var b bytes.Buffer
	if err := json.Compact(&b, text); err != nil {
		return fmt.Appendf(nil, "%q", err.Error())
	}
	return b.Bytes()
}

// Count writes a number with its noun.
func Count[N int | uint32 | uint64 | int64](n N, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
