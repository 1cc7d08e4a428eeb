// Package protolimit refuses protobuf messages that take many times their size in memory when they are decoded.
//
// An empty entry of a list takes two bytes of a message. Decoded, it takes a slice header of 24 bytes, or a struct of a
// few hundred. Budgets of requests count the size of the encoded message, so that the number of such elements must be
// bounded before the message is decoded.
package protolimit

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Elements are entries of lists and maps of messages, strings or bytes, and messages within messages. A message may
// have FreeElements of them, and one more for each BytesPerElement of its encoded size.
const (
	FreeElements    = 1024
	BytesPerElement = 32
)

// ErrElements is the error of messages that have too many elements.
var ErrElements = errors.New("too many elements for the size of the message")

// elements returns the number of elements that a message of a size may have.
func elements(size int) int { return FreeElements + size/BytesPerElement }

func tooMany(size int) error {
	return fmt.Errorf("%w: %d bytes may have %d entries of lists and messages", ErrElements, size, elements(size))
}

// Check returns ErrElements if an encoded message has too many elements. What is malformed is left to the decoder.
// Packed lists of numbers are not counted: they take at most 8 times their encoded size.
func Check(d protoreflect.MessageDescriptor, b []byte) error {
	if len(b) > 2*FreeElements && count(d, b, elements(len(b))) < 0 {
		return tooMany(len(b))
	}
	return nil
}

// count subtracts the elements of a message from what is left. It stops when nothing is left, and so at a depth of as
// many messages within each other.
func count(d protoreflect.MessageDescriptor, b []byte, left int) int {
	for len(b) > 0 && left >= 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return left
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
			return left
		}
		if f := d.Fields().ByNumber(number); f != nil {
			text := f.Kind() == protoreflect.BytesKind || f.Kind() == protoreflect.StringKind
			switch content, _ := protowire.ConsumeBytes(b); {
			case f.Message() != nil && kind == protowire.BytesType:
				left = count(f.Message(), content, left-1)
			case f.IsList() && (text || kind != protowire.BytesType):
				left--
			}
		}
		b = b[n:]
	}
	return left
}

// CheckJSON is Check for the JSON encoding. It counts what begins an object or a list, and what separates the entries
// of a list. What separates the fields of an object is not counted: a field that occurs twice is an error.
func CheckJSON(b []byte) error {
	if len(b) <= 2*FreeElements {
		return nil
	}
	left, quoted := elements(len(b)), false
	var open []byte // The objects and lists around the byte.
	for i := 0; i < len(b) && left >= 0; i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			left--
			open = append(open, c)
		case (c == ']' || c == '}') && len(open) > 0:
			open = open[:len(open)-1]
		case c == ',' && len(open) > 0 && open[len(open)-1] == '[':
			left--
		}
	}
	if left < 0 {
		return tooMany(len(b))
	}
	return nil
}
