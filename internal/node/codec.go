package node

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"licensed/actors/license"
	"licensed/messages/licensedv1"
)

// codec turns the commands, queries and answers of license aggregates into bytes, for requests between
// the processes of a cluster. It implements transport.Codec.
//
// Names and layouts are spoken between releases one apart: a name never changes its meaning, fields are
// only added.
type codec struct{}

// messages that travel under their protobuf names.
var messages = func() map[string]proto.Message {
	all := make(map[string]proto.Message)
	for _, m := range []proto.Message{
		(*licensedv1.Command)(nil), (*licensedv1.Query)(nil), (*licensedv1.ListLicensesResponse)(nil),
		(*licensedv1.ListDevicesResponse)(nil), (*licensedv1.CustomerState)(nil), (*licensedv1.NodeStatus)(nil),
		(*licensedv1.ArchiveCustomerResponse)(nil),
	} {
		all[string(m.ProtoReflect().Descriptor().FullName())] = m
	}
	return all
}()

// requests, and answers to them, travel as JSON under these names.
var errands = map[string]func() any{
	"node.Passivate": func() any { return new(passivateErrand) }, "node.Passivated": func() any { return new(passivated) },
	"node.Archive": func() any { return new(archiveErrand) },
	"node.Import":  func() any { return new(importErrand) }, "node.Imported": func() any { return new(imported) },
}

// downloadsName is the name of *license.Downloads: one byte of flags, the time in milliseconds, and the
// response in protobuf.
const (
	downloadsName   = "license.Downloads"
	downloadsHeader = 1 + 8
	downloadsOlder  = 1
)

var errUnknownType = errors.New("this release does not know that type")

// Marshal implements transport.Codec.
func (codec) Marshal(value any) (name string, data []byte, err error) {
	switch v := value.(type) {
	case *license.Downloads:
		return marshalDownloads(v)
	case *passivateErrand:
		name = "node.Passivate"
	case *passivated:
		name = "node.Passivated"
	case *archiveErrand:
		name = "node.Archive"
	case *importErrand:
		name = "node.Import"
	case *imported:
		name = "node.Imported"
	case proto.Message:
		name = string(v.ProtoReflect().Descriptor().FullName())
		if messages[name] == nil {
			return "", nil, fmt.Errorf("%s: %w", name, errUnknownType)
		}
		data, err = proto.Marshal(v)
		return name, data, err
	default:
		return "", nil, fmt.Errorf("%T: %w", value, errUnknownType)
	}
	data, err = json.Marshal(value)
	return name, data, err
}

// Unmarshal implements transport.Codec.
func (codec) Unmarshal(name string, data []byte) (any, error) {
	if m := messages[name]; m != nil {
		out := m.ProtoReflect().New().Interface()
		if err := proto.Unmarshal(data, out); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return out, understood(out)
	}
	if make := errands[name]; make != nil {
		out := make()
		if err := json.Unmarshal(data, out); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return out, nil
	}
	if name == downloadsName {
		return unmarshalDownloads(data)
	}
	return nil, fmt.Errorf("%q: %w", name, errUnknownType)
}

// understood returns an error for a command or query of a kind that a later release has: to this one it
// looks as if there were none.
func understood(m proto.Message) error {
	known := true
	switch m := m.(type) {
	case *licensedv1.Command:
		known = m.GetCommand() != nil
	case *licensedv1.Query:
		known = m.GetQuery() != nil
	}
	if !known {
		return fmt.Errorf("kind of %s: %w", m.ProtoReflect().Descriptor().FullName(), errUnknownType)
	}
	return nil
}

func marshalDownloads(d *license.Downloads) (string, []byte, error) {
	data := make([]byte, downloadsHeader, downloadsHeader+proto.Size(d.Response))
	if d.Older {
		data[0] |= downloadsOlder
	}
	binary.BigEndian.PutUint64(data[1:], uint64(d.Since.UnixMilli()))
	data, err := proto.MarshalOptions{}.MarshalAppend(data, d.Response)
	return downloadsName, data, err
}

func unmarshalDownloads(data []byte) (*license.Downloads, error) {
	if len(data) < downloadsHeader {
		return nil, fmt.Errorf("%s of %d bytes", downloadsName, len(data))
	}
	d := &license.Downloads{
		Response: new(licensedv1.ListDownloadsResponse), Older: data[0]&downloadsOlder != 0,
		Since: time.UnixMilli(int64(binary.BigEndian.Uint64(data[1:]))).UTC(),
	}
	return d, proto.Unmarshal(data[downloadsHeader:], d.Response)
}
