// Package payload turns the commands, queries and operators' requests about license aggregates, and their answers,
// into bytes, for requests between the processes of a cluster: the cluster itself does not know their types.
//
// All are protobuf messages, named by their full names. A name never changes its meaning, fields are only added.
// The functions beside the codec build and read those of operators' requests.
package payload

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/actors"
	"licensed/actors/license"
	"licensed/internal/protolimit"
	"licensed/messages/licensedv1"
	"licensed/messages/nodev1"
	"licensed/persistence"
)

// Codec implements transport.Codec. It has no state.
type Codec struct{}

// messages are what travels, by full name.
var messages = func() map[string]proto.Message {
	all := make(map[string]proto.Message)
	for _, m := range []proto.Message{
		(*licensedv1.Command)(nil), (*licensedv1.Query)(nil), (*licensedv1.ListLicensesResponse)(nil),
		(*licensedv1.ListDevicesResponse)(nil), (*licensedv1.CustomerState)(nil), (*licensedv1.NodeStatus)(nil),
		(*licensedv1.GetCustomerResponse)(nil),
		(*licensedv1.ArchiveCustomerResponse)(nil), (*licensedv1.ForgetCustomerResponse)(nil),
		(*nodev1.Downloads)(nil), (*nodev1.PassivateRequest)(nil), (*nodev1.PassivateResponse)(nil),
		(*nodev1.ArchiveRequest)(nil),
		(*nodev1.ImportRequest)(nil), (*nodev1.ImportResponse)(nil), (*nodev1.ForgetRequest)(nil),
	} {
		all[nameOf(m)] = m
	}
	return all
}()

// requests are those of the messages that ask for something.
var requests = func() map[string]bool {
	all := make(map[string]bool)
	for _, m := range []proto.Message{
		(*licensedv1.Command)(nil), (*licensedv1.Query)(nil),
		(*nodev1.PassivateRequest)(nil), (*nodev1.ArchiveRequest)(nil), (*nodev1.ImportRequest)(nil),
		(*nodev1.ForgetRequest)(nil),
	} {
		all[nameOf(m)] = true
	}
	return all
}()

// nameOf returns the full name of a message's type.
func nameOf(m proto.Message) string { return string(m.ProtoReflect().Descriptor().FullName()) }

// errUnknownType is wrapped by the errors about types that only another release knows.
var errUnknownType = errors.New("this release does not know that type")

// Marshal implements transport.Codec. The only value that is no message is the answer
// about downloads, which has a message of its own.
func (Codec) Marshal(value any) (name string, data []byte, err error) {
	if d, ok := value.(*license.Downloads); ok {
		value = &nodev1.Downloads{Response: d.Response, Older: d.Older, Since: timestamppb.New(d.Since)}
	}
	m, ok := value.(proto.Message)
	if !ok {
		return "", nil, fmt.Errorf("%T: %w", value, errUnknownType)
	}
	if name = nameOf(m); messages[name] == nil {
		return "", nil, fmt.Errorf("%s: %w", name, errUnknownType)
	}
	data, err = proto.Marshal(m)
	return name, data, err
}

// UnmarshalRequest implements transport.Codec.
func (c Codec) UnmarshalRequest(name string, data []byte) (any, error) {
	if !requests[name] {
		return nil, fmt.Errorf("request %q: %w", name, errUnknownType)
	}
	if err := protolimit.Check(messages[name].ProtoReflect().Descriptor(), data); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return c.Unmarshal(name, data)
}

// Unmarshal implements transport.Codec. Errors: errUnknownType, also for a command or
// query of a kind that only a later release knows: it must not be executed as nothing.
func (Codec) Unmarshal(name string, data []byte) (any, error) {
	known := messages[name]
	if known == nil {
		return nil, fmt.Errorf("%q: %w", name, errUnknownType)
	}
	m := known.ProtoReflect().New().Interface()
	if err := proto.Unmarshal(data, m); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	switch m := m.(type) {
	case *licensedv1.Command: // A kind of a later release looks like none.
		if m.GetCommand() == nil {
			return nil, fmt.Errorf("kind of %s: %w", name, errUnknownType)
		}
	case *licensedv1.Query:
		if m.GetQuery() == nil {
			return nil, fmt.Errorf("kind of %s: %w", name, errUnknownType)
		}
	case *nodev1.Downloads:
		d := &license.Downloads{Response: m.Response, Older: m.Older, Since: m.Since.AsTime()}
		if d.Response == nil {
			d.Response = new(licensedv1.ListDownloadsResponse)
		}
		return d, nil
	}
	return m, nil
}

// ImportRequest returns the request for an import.
func ImportRequest(i actors.Import) *nodev1.ImportRequest {
	r := &nodev1.ImportRequest{After: i.After, End: i.End}
	for n := range i.Records {
		r.Records = append(r.Records, persistence.AppendRecord(nil, &i.Records[n]))
	}
	return r
}

// Import returns the import in a request. Errors: those of records that cannot be decoded.
func Import(r *nodev1.ImportRequest) (actors.Import, error) {
	i := actors.Import{After: r.After, End: r.End}
	for _, b := range r.Records {
		record, err := persistence.DecodeRecord(b)
		if err != nil {
			return i, err
		}
		i.Records = append(i.Records, record)
	}
	return i, nil
}

// importFailures are the errors of an import that are answers.
var importFailures = map[nodev1.ImportFailure]error{
	nodev1.ImportFailure_IMPORT_FAILURE_NOT_CONTINUED: actors.ErrNotContinued,
	nodev1.ImportFailure_IMPORT_FAILURE_NO_HISTORY:    actors.ErrNoHistory,
}

// ImportResponse returns the answer to an import; false if its error is no answer.
func ImportResponse(err error) (*nodev1.ImportResponse, bool) {
	for failure, is := range importFailures {
		if errors.Is(err, is) {
			return &nodev1.ImportResponse{Failure: failure, Message: err.Error()}, true
		}
	}
	return &nodev1.ImportResponse{}, err == nil
}

// ImportError returns the error of an import in its answer, as actors.Runtime returned
// it; nil for none. errors.Is finds the same sentinel as at the owner.
func ImportError(r *nodev1.ImportResponse) error {
	if r.Failure == nodev1.ImportFailure_IMPORT_FAILURE_UNSPECIFIED {
		return nil
	}
	return &remoteError{r.Message, importFailures[r.Failure]}
}

// remoteError is an error with the owner's text, and the sentinel that it stands for.
type remoteError struct {
	text string
	is   error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.is }
