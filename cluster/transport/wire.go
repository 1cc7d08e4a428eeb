package transport

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"licensed/actors"
	"licensed/cluster"
	"licensed/internal/caller"
	"licensed/internal/planted"
	"licensed/messages/clusterv1"
	"licensed/persistence"
)

// Names of payloads that the runtime itself knows.
const (
	headQueryName     = "actors.HeadQuery"
	snapshotQueryName = "actors.SnapshotQuery"
	snapshotName      = "actors.Snapshot"
)

// errorCodes are the errors that travel, in the order in which they are looked for: an error may match two.
var errorCodes = []struct {
	code clusterv1.Code
	err  error
}{
	{clusterv1.Code_CODE_UNKNOWN_OUTCOME, actors.ErrUnknownOutcome},
	{clusterv1.Code_CODE_NOT_OWNER, actors.ErrNotOwner},
	{clusterv1.Code_CODE_OVERLOADED, actors.ErrOverloaded},
	{clusterv1.Code_CODE_EXPIRED, actors.ErrExpired},
	{clusterv1.Code_CODE_ID_REUSED, actors.ErrIDReused},
	{clusterv1.Code_CODE_TOO_OLD, actors.ErrTooOld},
	{clusterv1.Code_CODE_ISSUED_AHEAD, actors.ErrIssuedAhead},
	{clusterv1.Code_CODE_CORRUPT, actors.ErrCorrupt},
	{clusterv1.Code_CODE_CORRUPT, persistence.ErrCorrupt},
	{clusterv1.Code_CODE_PANIC, actors.ErrPanic},
	{clusterv1.Code_CODE_NOT_SUPPORTED, actors.ErrNotSupported},
	{clusterv1.Code_CODE_REJECTED, actors.ErrRejected},
	{clusterv1.Code_CODE_IMPORTING, actors.ErrImporting},
	{clusterv1.Code_CODE_FORGOTTEN, actors.ErrForgotten},
	{clusterv1.Code_CODE_UNAVAILABLE, actors.ErrUnavailable},
	// What is left of these: a query that was not answered.
	{clusterv1.Code_CODE_UNKNOWN_OUTCOME, context.DeadlineExceeded},
	{clusterv1.Code_CODE_UNKNOWN_OUTCOME, context.Canceled},
	{clusterv1.Code_CODE_UNAVAILABLE, persistence.ErrUnavailable},
}

// failure returns the response that carries an error.
func failure(err error) *clusterv1.Response {
	r := &clusterv1.Response{Code: clusterv1.Code_CODE_INTERNAL, Message: text(err.Error())}
	var limited *actors.RateLimitedError
	if errors.As(err, &limited) && !errors.Is(err, actors.ErrUnknownOutcome) {
		r.Code, r.Message = clusterv1.Code_CODE_RATE_LIMITED, text(limited.Reason)
		r.RetryAfterMicros = limited.RetryAfter.Microseconds()
		return r
	}
	var denied *actors.DeniedError
	if errors.As(err, &denied) {
		r.Code, r.Message = clusterv1.Code_CODE_DENIED, text(denied.Text)
		return r
	}
	for _, c := range errorCodes {
		if errors.Is(err, c.err) {
			r.Code = c.code
			break
		}
	}
	var stamp *actors.StampError
	if r.Code == clusterv1.Code_CODE_TOO_OLD && errors.As(err, &stamp) {
		r.StampAt = millis(stamp.At)
	}
	var forgotten *persistence.ForgottenError
	if r.Code == clusterv1.Code_CODE_FORGOTTEN && errors.As(err, &forgotten) {
		r.ForgottenAt = millis(forgotten.At)
	}
	var owner *cluster.NotOwnerError
	if r.Code == clusterv1.Code_CODE_NOT_OWNER && errors.As(err, &owner) {
		r.Shard = cluster.ShardMessage(owner.Row)
	}
	return r
}

// maxText bounds what is said for people.
const maxText = 1 << 10

// text returns a string that can travel.
func text(s string) string {
	if len(s) > maxText {
		s = s[:maxText]
	}
	return strings.ToValidUTF8(s, "?")
}

// RemoteError is an error of another process. It matches that of package actors, or of this one, which
// it existed.
type RemoteError struct {
	// Message is what the other process said, for people.
	Message string
	cause   error
}

func (e *RemoteError) Error() string { return e.Message }

// Unwrap returns the error that it was.
func (e *RemoteError) Unwrap() error { return e.cause }

// errorOf returns the error in a response; nil if it has none. A code that is not known is ErrInternal.
func errorOf(r *clusterv1.Response) error {
	switch r.GetCode() {
	case clusterv1.Code_CODE_OK:
		return nil
	case clusterv1.Code_CODE_NOT_OWNER:
		return notOwner(r)
	case clusterv1.Code_CODE_TOO_OLD:
		if at := r.GetStampAt(); at != 0 {
			return &actors.StampError{At: moment(at)}
		}
	case clusterv1.Code_CODE_DENIED:
		return &actors.DeniedError{Text: r.GetMessage()}
	case clusterv1.Code_CODE_FORGOTTEN:
		return &persistence.ForgottenError{At: moment(r.GetForgottenAt())}
	case clusterv1.Code_CODE_RATE_LIMITED:
		after := time.Duration(min(max(r.GetRetryAfterMicros(), 0), int64(time.Hour/time.Microsecond))) * time.Microsecond
		return &actors.RateLimitedError{Reason: r.GetMessage(), RetryAfter: after}
	}
	for _, c := range errorCodes {
		if c.code == r.GetCode() {
			return &RemoteError{r.GetMessage(), c.err}
		}
	}
	message := fmt.Sprintf("answer with code %d: %s", r.GetCode(), r.GetMessage())
	return &RemoteError{message, ErrInternal}
}

func notOwner(r *clusterv1.Response) error {
	if r.GetShard() == nil {
		return &RemoteError{r.GetMessage(), actors.ErrNotOwner}
	}
	row, err := cluster.ShardRow(r.GetShard())
	if err != nil {
		return &RemoteError{r.GetMessage(), actors.ErrNotOwner}
	}
	return &cluster.NotOwnerError{Row: row}
}

// commandMessage returns a command as it travels.
func commandMessage(codec Codec, c actors.Command) (*clusterv1.Command, error) {
	p, err := payloadOf(codec, c.Payload)
	if err != nil {
		return nil, fmt.Errorf("command: %w", err)
	}
	if planted.Bug(planted.ForgetCommandID) {
		c.ID += time.Now().Format("-05.000000")
	}
	return &clusterv1.Command{
		Id: c.ID, Fingerprint: c.Fingerprint, IssuedAt: millis(c.IssuedAt), ValidateOnly: c.ValidateOnly,
		Stamped: c.Stamped, Payload: p,
	}, nil
}

// commandOf returns the command in a message.
func commandOf(codec Codec, m *clusterv1.Command) (actors.Command, error) {
	payload, err := codec.UnmarshalRequest(m.GetPayload().GetType(), m.GetPayload().GetData())
	if err != nil {
		return actors.Command{}, fmt.Errorf("%w: command: %w", actors.ErrNotSupported, err)
	}
	return actors.Command{
		ID: m.GetId(), Fingerprint: m.GetFingerprint(), IssuedAt: moment(m.GetIssuedAt()), ValidateOnly: m.GetValidateOnly(),
		Stamped: m.GetStamped(), Payload: payload,
	}, nil
}

// callerMessage returns who a request acts for as it travels; nil for nobody.
func callerMessage(c *caller.Caller) *clusterv1.Caller {
	if c == nil {
		return nil
	}
	return &clusterv1.Caller{
		Principal: c.Principal, Roles: c.Roles, Customer: c.Customer, Reason: c.Reason, Method: c.Method, Token: c.Token,
	}
}

// callerOf is the inverse of callerMessage.
func callerOf(m *clusterv1.Caller) *caller.Caller {
	return &caller.Caller{
		Principal: m.GetPrincipal(), Roles: m.GetRoles(), Customer: m.GetCustomer(), Reason: m.GetReason(),
		Method: m.GetMethod(), Token: m.GetToken(),
	}
}

// millis returns a time in Unix milliseconds; the zero time is 0.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// moment is the inverse of millis.
func moment(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

func replyMessage(r actors.Reply) *clusterv1.Reply {
	return &clusterv1.Reply{Outcome: r.Outcome, Sequence: r.Sequence, Time: millis(r.Time), Duplicate: r.Duplicate}
}

func replyOf(m *clusterv1.Reply) actors.Reply {
	return actors.Reply{Outcome: m.GetOutcome(), Sequence: m.GetSequence(), Time: moment(m.GetTime()), Duplicate: m.GetDuplicate()}
}

// queryMessage returns a query as it travels.
func queryMessage(codec Codec, query any) (*clusterv1.Query, error) {
	switch query := query.(type) {
	case actors.HeadQuery:
		return &clusterv1.Query{Payload: &clusterv1.Payload{Type: headQueryName}}, nil
	case actors.SnapshotQuery:
		p := &clusterv1.Payload{Type: snapshotQueryName}
		if query.InMemory {
			p.Data = []byte{1}
		}
		return &clusterv1.Query{Payload: p}, nil
	}
	p, err := payloadOf(codec, query)
	if err != nil {
		return nil, fmt.Errorf("query: %w", err)
	}
	return &clusterv1.Query{Payload: p}, nil
}

// payloadOf returns a value as it travels.
func payloadOf(codec Codec, value any) (*clusterv1.Payload, error) {
	name, data, err := codec.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("%T: %w", value, err)
	}
	return &clusterv1.Payload{Type: name, Data: data}, nil
}

// queryOf returns the query in a message.
func queryOf(codec Codec, m *clusterv1.Query) (any, error) {
	switch name := m.GetPayload().GetType(); name {
	case headQueryName:
		return actors.HeadQuery{}, nil
	case snapshotQueryName:
		return actors.SnapshotQuery{InMemory: len(m.GetPayload().GetData()) > 0}, nil
	default:
		query, err := codec.UnmarshalRequest(name, m.GetPayload().GetData())
		if err != nil {
			return nil, fmt.Errorf("%w: query: %w", actors.ErrNotSupported, err)
		}
		return query, nil
	}
}

// answerMessage returns an answer as it travels.
func answerMessage(codec Codec, a actors.Answer) (*clusterv1.Answer, error) {
	m := &clusterv1.Answer{Head: headMessage(&a.Head)}
	switch v := a.Value.(type) {
	case nil:
		return m, nil
	case actors.Snapshot:
		data, err := snapshotBytes(v)
		m.Value = &clusterv1.Payload{Type: snapshotName, Data: data}
		return m, err
	}
	var err error
	if m.Value, err = payloadOf(codec, a.Value); err != nil {
		return nil, fmt.Errorf("answer: %w", err)
	}
	return m, nil
}

// answerOf returns the answer in a message.
func answerOf(codec Codec, m *clusterv1.Answer) (a actors.Answer, err error) {
	if a.Head, err = headOf(m.GetHead()); err != nil {
		return a, err
	}
	p := m.GetValue()
	switch {
	case p == nil:
	case p.GetType() == snapshotName:
		a.Value, err = snapshotOf(p.GetData())
	default:
		a.Value, err = codec.Unmarshal(p.GetType(), p.GetData())
	}
	if err != nil {
		return actors.Answer{}, fmt.Errorf("%w: answer: %w", actors.ErrNotSupported, err)
	}
	return a, nil
}

func headMessage(h *persistence.Head) *clusterv1.Head {
	if *h == (persistence.Head{}) {
		return nil
	}
	m := &clusterv1.Head{
		Aggregate: h.Partition.Aggregate, Root: rootMessage(h.Partition.RootKey, h.Partition.Incarnation),
		Base: h.Base, Sequence: h.Sequence,
	}
	if h.Parent != (persistence.RootKey{}) || !h.ParentIncarnation.IsZero() {
		m.Parent = rootMessage(h.Parent, h.ParentIncarnation)
	}
	return m
}

func rootMessage(k persistence.RootKey, i persistence.Incarnation) *clusterv1.Root {
	return &clusterv1.Root{Epoch: k.Epoch, Version: k.Version, Incarnation: i[:]}
}

// headOf returns the head in a message; none is the zero head. The parent is of the same aggregate.
func headOf(m *clusterv1.Head) (h persistence.Head, err error) {
	if m == nil {
		return h, nil
	}
	h.Base, h.Sequence = m.GetBase(), m.GetSequence()
	h.Partition.RootKey, h.Partition.Incarnation, err = rootOf(m.GetAggregate(), m.GetRoot())
	if err == nil && m.GetParent() != nil {
		h.Parent, h.ParentIncarnation, err = rootOf(m.GetAggregate(), m.GetParent())
	}
	if err != nil {
		return persistence.Head{}, fmt.Errorf("head of %s: %w", m.GetAggregate(), err)
	}
	return h, nil
}

func rootOf(aggregate string, m *clusterv1.Root) (persistence.RootKey, persistence.Incarnation, error) {
	i, err := cluster.IncarnationOf(m.GetIncarnation())
	return persistence.RootKey{Aggregate: aggregate, Epoch: m.GetEpoch(), Version: m.GetVersion()}, i, err
}

func snapshotBytes(s actors.Snapshot) ([]byte, error) {
	return proto.Marshal(&clusterv1.Snapshot{Mapper: s.Mapper, Payload: persistence.AppendPayload(nil, s.Header, s.Data)})
}

func snapshotOf(b []byte) (actors.Snapshot, error) {
	m := &clusterv1.Snapshot{}
	if err := proto.Unmarshal(b, m); err != nil {
		return actors.Snapshot{}, err
	}
	header, data, err := persistence.DecodePayload(m.GetPayload())
	return actors.Snapshot{Mapper: m.GetMapper(), Header: header, Data: data}, err
}
