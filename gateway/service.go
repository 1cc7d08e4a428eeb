package gateway

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/actors"
	"licensed/actors/license"
	"licensed/gateway/fallback"
	"licensed/internal/caller"
	"licensed/internal/planted"
	"licensed/licensetoken"
	"licensed/messages/licensedv1"
	"licensed/persistence"
)

// service implements licensedv1connect.LicenseServiceHandler.
type service struct {
	*Gateway
	methods sessionMethods
}

func newService(g *Gateway) *service {
	s := &service{Gateway: g}
	s.methods = newSessionMethods(s)
	return s
}

// header has the fields that all commands share.
type header interface {
	GetCustomerId() string
	GetCommandId() string
	GetIssuedAt() *timestamppb.Timestamp
	GetValidateOnly() bool
}

// result of a command that was not refused.
type result struct {
	license.Outcome
	sequence  uint64
	at        time.Time // of the execution
	duplicate bool
	// provisional is set if the command was not executed yet.
	provisional *licensedv1.Provisional
}

// AcquireLicense implements licensedv1connect.LicenseServiceHandler.
func (s *service) AcquireLicense(
	ctx context.Context, r *connect.Request[licensedv1.AcquireLicenseRequest],
) (*connect.Response[licensedv1.AcquireLicenseResponse], error) {
	m := r.Msg
	if err := s.signing(m.Signed); err != nil {
		return nil, err
	}
	lent, err := s.shownAllowance(m, m.SignedAllowance)
	if err != nil {
		return nil, err
	}
	// execute checks the ids of the message; the functions of this file only translate.
	res, err := s.executeOrDefer(ctx, m, onTitle(m), &licensedv1.Command{Command: &licensedv1.Command_AcquireLicense{
		AcquireLicense: &licensedv1.AcquireLicense{
			DeviceId: m.DeviceId, TitleId: m.TitleId, NewDownload: m.NewDownload,
		},
	}}, proof{allowance: lent})
	if err != nil {
		return nil, err
	}
	token, err := s.sign(m.Signed, m, res)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&licensedv1.AcquireLicenseResponse{
		License: res.License, Sequence: res.sequence, Duplicate: res.duplicate, SignedLicense: token,
		Provisional: res.provisional,
	}), nil
}

// RenewLicense implements licensedv1connect.LicenseServiceHandler.
func (s *service) RenewLicense(
	ctx context.Context, r *connect.Request[licensedv1.RenewLicenseRequest],
) (*connect.Response[licensedv1.RenewLicenseResponse], error) {
	m := r.Msg
	if err := s.signing(m.Signed); err != nil {
		return nil, err
	}
	shown, err := s.shown(m, m.SignedLicense)
	if err != nil {
		return nil, err
	}
	v := onTitle(m)
	c := &licensedv1.RenewLicense{
		DeviceId: m.DeviceId, TitleId: m.TitleId, AcquiredAtMs: v.acquired(m.AcquiredAt, shown),
	}
	res, err := s.executeOrDefer(ctx, m, v,
		&licensedv1.Command{Command: &licensedv1.Command_RenewLicense{RenewLicense: c}}, proof{license: shown})
	if err != nil {
		return nil, err
	}
	token, err := s.sign(m.Signed, m, res)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&licensedv1.RenewLicenseResponse{
		License: res.License, Sequence: res.sequence, Duplicate: res.duplicate, SignedLicense: token,
		Superseded: res.Superseded, Provisional: res.provisional,
	}), nil
}

// ReleaseLicense implements licensedv1connect.LicenseServiceHandler.
func (s *service) ReleaseLicense(
	ctx context.Context, r *connect.Request[licensedv1.ReleaseLicenseRequest],
) (*connect.Response[licensedv1.ReleaseLicenseResponse], error) {
	m := r.Msg
	shown, err := s.shown(m, m.SignedLicense)
	if err != nil {
		return nil, err
	}
	v := onTitle(m)
	c := &licensedv1.ReleaseLicense{
		DeviceId: m.DeviceId, TitleId: m.TitleId, AcquiredAtMs: v.acquired(m.AcquiredAt, shown),
	}
	res, err := s.executeOrDefer(ctx, m, v,
		&licensedv1.Command{Command: &licensedv1.Command_ReleaseLicense{ReleaseLicense: c}}, proof{license: shown})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&licensedv1.ReleaseLicenseResponse{
		License: res.License, Sequence: res.sequence, Duplicate: res.duplicate, Superseded: res.Superseded,
		Provisional: res.provisional,
	}), nil
}

// RecordPlayback implements licensedv1connect.LicenseServiceHandler.
func (s *service) RecordPlayback(
	ctx context.Context, r *connect.Request[licensedv1.RecordPlaybackRequest],
) (*connect.Response[licensedv1.RecordPlaybackResponse], error) {
	m := r.Msg
	v := onTitle(m)
	c := &licensedv1.RecordPlayback{
		DeviceId: m.DeviceId, TitleId: m.TitleId,
		PlayedAtMs: v.millis("played_at", m.PlayedAt), SentAtMs: v.millis("sent_at", m.SentAt),
	}
	res, err := s.execute(ctx, m, v,
		&licensedv1.Command{Command: &licensedv1.Command_RecordPlayback{RecordPlayback: c}})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&licensedv1.RecordPlaybackResponse{
		License: res.License, Sequence: res.sequence, Duplicate: res.duplicate,
	}), nil
}

// DeactivateDevice implements licensedv1connect.LicenseServiceHandler.
func (s *service) DeactivateDevice(
	ctx context.Context, r *connect.Request[licensedv1.DeactivateDeviceRequest],
) (*connect.Response[licensedv1.DeactivateDeviceResponse], error) {
	m := r.Msg
	var v violations
	v.id("device_id", m.DeviceId)
	c := &licensedv1.DeactivateDevice{
		DeviceId: m.DeviceId, ActivatedAtMs: v.millis("activated_at", m.ActivatedAt),
	}
	res, err := s.execute(ctx, m, v,
		&licensedv1.Command{Command: &licensedv1.Command_DeactivateDevice{DeactivateDevice: c}})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&licensedv1.DeactivateDeviceResponse{
		CustomerId: m.CustomerId, DeviceId: m.DeviceId, ReleasedTitleIds: res.ReleasedTitles,
		Removal: res.Removal, Sequence: res.sequence, Duplicate: res.duplicate, Superseded: res.Superseded,
	}), nil
}

// ChangePlan implements licensedv1connect.LicenseServiceHandler.
func (s *service) ChangePlan(
	ctx context.Context, r *connect.Request[licensedv1.ChangePlanRequest],
) (*connect.Response[licensedv1.ChangePlanResponse], error) {
	m := r.Msg
	var v violations
	v.id("plan_id", m.PlanId)
	c := &licensedv1.ChangePlan{
		PlanId: m.PlanId, PlanChangedAtMs: v.millis("plan_changed_at", m.PlanChangedAt),
	}
	res, err := s.execute(ctx, m, v, &licensedv1.Command{Command: &licensedv1.Command_ChangePlan{ChangePlan: c}})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&licensedv1.ChangePlanResponse{
		CustomerId: m.CustomerId, PlanId: res.PlanID, DeviceLimit: res.DeviceLimit,
		Sequence: res.sequence, Duplicate: res.duplicate, Superseded: res.Superseded, PlanChangedAt: res.PlanChangedAt,
		StayingDeviceIds: res.StayingDevices,
	}), nil
}

// SelectDevices implements licensedv1connect.LicenseServiceHandler.
func (s *service) SelectDevices(
	ctx context.Context, r *connect.Request[licensedv1.SelectDevicesRequest],
) (*connect.Response[licensedv1.SelectDevicesResponse], error) {
	m := r.Msg
	var v violations
	v.deviceIDs("device_ids", m.DeviceIds)
	res, err := s.execute(ctx, m, v, &licensedv1.Command{Command: &licensedv1.Command_SelectDevices{
		SelectDevices: &licensedv1.SelectDevices{DeviceIds: m.DeviceIds},
	}})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&licensedv1.SelectDevicesResponse{
		CustomerId: m.CustomerId, DeviceIds: res.StayingDevices, Binding: res.Binding,
		Sequence: res.sequence, Duplicate: res.duplicate,
	}), nil
}

// titled is a command about a title on a device.
type titled interface {
	GetDeviceId() string
	GetTitleId() string
}

// onTitle checks the fields of the commands about a title on a device.
func onTitle(m titled) (v violations) {
	v.titled("", m)
	return v
}

// titled checks the ids of a command whose fields have a prefix.
func (v *violations) titled(prefix string, m titled) {
	v.id(prefix+"device_id", m.GetDeviceId())
	v.id(prefix+"title_id", m.GetTitleId())
}

// execute runs a command whose own fields have been checked with the violations v, or has it deferred. Errors:
// connect.Error.
func (s *service) execute(
	ctx context.Context, h header, v violations, payload *licensedv1.Command,
) (result, error) {
	return s.executeOrDefer(ctx, h, v, payload, proof{})
}

// proof is what a device has shown, if anything.
type proof struct {
	license   *licensetoken.License
	allowance *licensetoken.Allowance
}

// executeOrDefer is execute for a command about the licence that the device has shown, or within its allowance.
func (s *service) executeOrDefer(
	ctx context.Context, h header, v violations, payload *licensedv1.Command, shown proof,
) (result, error) {
	c, err := s.command(h, v, payload)
	if err != nil {
		return result{}, err
	}
	if by := caller.FromContext(ctx); by != nil {
		c.Principal, c.Reason = by.Principal, by.Reason
	}
	redeemed, kept := s.within(ctx, h.GetCustomerId(), c, shown.allowance)
	if redeemed != nil {
		payload = redeemed.Command
		c.Payload = payload
	}
	if shown.license == nil && redeemed == nil { // Other customers have a history.
		if err := s.mayBegin(ctx, h.GetCustomerId(), c); err != nil {
			return result{}, asLimit(err)
		}
	}
	deferrable := redeemed != nil || s.deferrable(&c, payload, shown.license)
	run := func(deferrable bool) (actors.Reply, error) {
		return actors.Restamp(&c, func(c actors.Command) (actors.Reply, error) {
			return s.send(ctx, h.GetCustomerId(), c, deferrable)
		})
	}
	reply, err := run(deferrable)
	if redeemed != nil {
		if err != nil && fallback.Unavailable(err) {
			return granted(h.GetCustomerId(), redeemed), nil
		}
		if !reply.Time.Before(redeemed.AcceptedAt().Add(-time.Second)) {
			reply.Duplicate = false // It was handed in from the journal just now.
		}
	}
	if deferrable && fallback.Unavailable(err) {
		res, failed := s.deferred(ctx, h.GetCustomerId(), c, shown.license, err)
		if failed == nil {
			return res, nil
		}
		kept = failed
		// Not accepted: as any other command, it finds out whether the owner is back.
		if errors.Is(err, fallback.ErrOpen) {
			reply, err = run(false)
		}
	}
	if err == nil {
		return s.outcome(ctx, h, payload, reply)
	}
	if fallback.MayBeKept(kept) && fallback.Unavailable(err) && !planted.Bug(planted.GivenUpIsNotExecuted) {
		// The journal may hand it in. The first error may say "not executed", and is not wrapped therefore.
		err = errors.Join(actors.ErrUnknownOutcome, ctx.Err())
	}
	return result{}, s.failed(ctx, h.GetCustomerId(), err, true)
}

// askTimeout is the time that the owner has to answer whether a customer exists, a part of that of the command.
const askTimeout = time.Second

// mayBegin counts the first command of a customer, whose history begins with it. Errors: budget.ExceededError.
func (s *service) mayBegin(ctx context.Context, customer string, command actors.Command) error {
	l := s.limits
	if l.seen == nil || command.ValidateOnly {
		return nil
	}
	if _, ok := l.seen.Get(customer); ok {
		return nil
	}
	asking, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	head, err := s.head(asking, customer)
	if err != nil {
		return nil // The owner cannot be reached. The command meets the same, unless it is deferred.
	}
	if head.Sequence == 0 {
		if err := l.created.Take(time.Now(), ctx.Value(callKey{}).(*call).holders...); err != nil {
			return err
		}
	}
	l.seen.Add(customer, struct{}{})
	return nil
}

// command returns a command for the runtime. It checks the common fields, so that a client hears of all violations at
// once, and stamps a command without a time of issue. Errors: connect.Error.
func (s *service) command(h header, v violations, payload *licensedv1.Command) (actors.Command, error) {
	v.id("customer_id", h.GetCustomerId())
	v.commandID(h.GetCommandId(), h.GetValidateOnly())
	issuedAt := v.timestamp("issued_at", h.GetIssuedAt())
	name, kind := v.label(h)
	if err := invalid(v); err != nil {
		return actors.Command{}, err
	}
	payload.DeviceName, payload.DeviceType = name, kind
	// The fingerprint is that of the time which the client gave, if any: a repetition
	// through another gateway must have the same.
	stamped := issuedAt.IsZero()
	if stamped {
		issuedAt = s.config.Now()
	} else {
		payload.IssuedAtMs = issuedAt.UnixMilli()
	}
	return actors.Command{
		ID:           h.GetCommandId(),
		Fingerprint:  fingerprint(payload, h.GetIssuedAt()),
		IssuedAt:     issuedAt.Truncate(time.Millisecond),
		Stamped:      stamped,
		ValidateOnly: h.GetValidateOnly(),
		Payload:      payload,
	}, nil
}

// send sends a command to its owner.
func (s *service) send(
	ctx context.Context, customer string, c actors.Command, deferrable bool,
) (actors.Reply, error) {
	if f := s.config.Fallback; f != nil {
		return f.Execute(ctx, customer, c, deferrable)
	}
	return s.aggregates.Execute(ctx, customer, c)
}

// outcome turns a recorded outcome into the API's words. A refusal is an error; it is
// counted here, once for each reply.
func (s *service) outcome(
	ctx context.Context, h header, payload *licensedv1.Command, reply actors.Reply,
) (result, error) {
	c := ctx.Value(callKey{}).(*call)
	if reply.Duplicate {
		c.method.duplicate.Inc()
	}
	o, err := license.DecodeOutcome(h.GetCustomerId(), payload, reply.Time, reply.Outcome)
	// The command was executed, so the error must not say otherwise. One with
	// validate_only never is.
	if err != nil && !h.GetValidateOnly() {
		return result{}, s.log(ctx, h.GetCustomerId(), unreadable(), err)
	}
	if err != nil {
		return result{}, s.failed(ctx, h.GetCustomerId(), err, true)
	}
	if o.Refusal != nil {
		s.metrics.refused(o.Refusal.Rule)
		o.Refusal.Sequence, o.Refusal.Duplicate = reply.Sequence, reply.Duplicate
		return result{}, refused(o.Refusal)
	}
	return result{Outcome: o, sequence: reply.Sequence, at: reply.Time, duplicate: reply.Duplicate}, nil
}

// failed maps an error of the aggregates to one of the API, and logs it where an operator
// must act. command says whether the request could have changed anything.
func (g *Gateway) failed(ctx context.Context, customer string, err error, command bool) error {
	var limit *connect.Error
	if errors.As(err, &limit) { // A limit was met on the way.
		return limit
	}
	return g.log(ctx, customer, runtimeError(err, command, g.config.Now()), err)
}

// log logs the cause of an error that an operator must act on, and returns the error.
func (g *Gateway) log(ctx context.Context, customer string, e *connect.Error, err error) error {
	if code := e.Code(); code == connect.CodeInternal || code == connect.CodeDataLoss {
		g.config.Logger.ErrorContext(ctx, "request failed",
			"method", ctx.Value(callKey{}).(*call).method.name, "customer", customer, "code", code, "error", err)
	}
	return e
}

// ListLicenses implements licensedv1connect.LicenseServiceHandler.
func (s *service) ListLicenses(
	ctx context.Context, r *connect.Request[licensedv1.ListLicensesRequest],
) (*connect.Response[licensedv1.ListLicensesResponse], error) {
	q := &licensedv1.ListLicenses{
		IncludeInactive: r.Msg.IncludeInactive, PageSize: pageSize(r.Msg), PageToken: r.Msg.PageToken,
	}
	res, stale, head, err := query[*licensedv1.ListLicensesResponse](ctx, s, r.Msg, nil, &licensedv1.Query{
		Query: &licensedv1.Query_ListLicenses{ListLicenses: q},
	})
	// Pages are cut by the owner; that of an earlier release returns the whole list,
	// which is cut here.
	if err == nil {
		err = license.PageLicenses(res, q)
	}
	if err != nil {
		return nil, err
	}
	countCut(ctx, r.Msg, res.NextPageToken)
	res.Sequence, res.Stale = head.Sequence, stale
	if planted.Bug(planted.AnswerFromCache) && !r.Msg.IncludeInactive {
		res = planted.Former(r.Msg.CustomerId, res)
	}
	return connect.NewResponse(res), nil
}

// ListDevices implements licensedv1connect.LicenseServiceHandler.
func (s *service) ListDevices(
	ctx context.Context, r *connect.Request[licensedv1.ListDevicesRequest],
) (*connect.Response[licensedv1.ListDevicesResponse], error) {
	q := &licensedv1.ListDevices{PageSize: pageSize(r.Msg), PageToken: r.Msg.PageToken}
	res, stale, head, err := query[*licensedv1.ListDevicesResponse](ctx, s, r.Msg, nil, &licensedv1.Query{
		Query: &licensedv1.Query_ListDevices{ListDevices: q},
	})
	if err == nil {
		err = license.PageDevices(res, q)
	}
	if err != nil {
		return nil, err
	}
	countCut(ctx, r.Msg, res.NextPageToken)
	res.Sequence, res.Stale = head.Sequence, stale
	return connect.NewResponse(res), nil
}

// GetCustomer implements licensedv1connect.LicenseServiceHandler.
func (s *service) GetCustomer(
	ctx context.Context, r *connect.Request[licensedv1.GetCustomerRequest],
) (*connect.Response[licensedv1.GetCustomerResponse], error) {
	res, stale, head, err := query[*licensedv1.GetCustomerResponse](ctx, s, r.Msg, nil, &licensedv1.Query{
		Query: &licensedv1.Query_GetCustomer{
			GetCustomer: &licensedv1.GetCustomer{PageSize: pageSize(r.Msg), PageToken: r.Msg.PageToken},
		},
	})
	if err != nil {
		return nil, err
	}
	countCut(ctx, r.Msg, res.NextPageToken)
	res.Sequence, res.Stale = head.Sequence, stale
	return connect.NewResponse(res), nil
}

// ListDownloads implements licensedv1connect.LicenseServiceHandler.
func (s *service) ListDownloads(
	ctx context.Context, r *connect.Request[licensedv1.ListDownloadsRequest],
) (*connect.Response[licensedv1.ListDownloadsResponse], error) {
	var v violations
	if r.Msg.TitleId != "" {
		v.id("title_id", r.Msg.TitleId)
	}
	v.timestamp("since", r.Msg.Since)
	q := &licensedv1.ListDownloads{
		TitleId: r.Msg.TitleId, Since: r.Msg.Since, PageSize: pageSize(r.Msg), PageToken: r.Msg.PageToken,
	}
	d, stale, head, err := query[*license.Downloads](ctx, s, r.Msg, v, &licensedv1.Query{
		Query: &licensedv1.Query_ListDownloads{ListDownloads: q},
	})
	if err != nil {
		return nil, err
	}
	if d.Older {
		// Whether another is allowed stands; the list comes from history, as of the same position.
		d.Response.NextPageToken = ""
		d.Response.Downloads, err = license.DownloadsFromHistory(r.Msg.TitleId, d.Since,
			s.events(ctx, head))
		if err != nil {
			return nil, s.failed(ctx, r.Msg.CustomerId, err, false)
		}
	}
	if err := license.PageDownloads(d.Response, q); err != nil {
		return nil, err
	}
	countCut(ctx, r.Msg, d.Response.NextPageToken)
	d.Response.Sequence, d.Response.Stale = head.Sequence, stale
	return connect.NewResponse(d.Response), nil
}

// paging is what requests for lists have in common.
type paging interface {
	GetPageSize() uint32
	GetPageToken() string
}

// pageSize returns the number of entries a page has at most.
func pageSize(r paging) uint32 {
	if n := r.GetPageSize(); n > 0 && n < license.MaxPage {
		return n
	}
	return license.MaxPage
}

// countCut counts lists that a client may take for whole though they are not: one that does not know of pages asks for
// neither a size nor a later page.
func countCut(ctx context.Context, r paging, next string) {
	if next != "" && r.GetPageSize() == 0 && r.GetPageToken() == "" {
		ctx.Value(callKey{}).(*call).method.cut.Inc()
	}
}

// question is what requests that ask about a customer have in common.
type question interface {
	GetCustomerId() string
	GetMaxStaleness() *durationpb.Duration
}

// query asks the customer's aggregate, once v and the common fields are without
// violations. R is the type of the answer. It returns the end of the history that the
// answer is of, and what makes it stale, if anything does. Errors: connect.Error.
func query[R any](
	ctx context.Context, s *service, m question, v violations, q *licensedv1.Query,
) (res R, stale *licensedv1.Stale, head persistence.Head, err error) {
	customer := m.GetCustomerId()
	v.id("customer_id", customer)
	if err := license.CheckPage(q); err != nil {
		v.add("page_token", "is "+err.Error())
	}
	maxAge := v.age("max_staleness", m.GetMaxStaleness())
	if err := invalid(v); err != nil {
		return res, nil, head, err
	}
	answer, stale, err := s.read(ctx, customer, q, maxAge)
	if err != nil {
		return res, nil, head, s.failed(ctx, customer, err, false)
	}
	// The node may be of another release.
	res, ok := answer.Value.(R)
	if !ok {
		return res, nil, head, s.failed(ctx, customer, errOtherAnswer, false)
	}
	return res, stale, answer.Head, nil
}

// errOtherAnswer is an answer of a type that does not belong to the question: another process gave it.
var errOtherAnswer = errors.New("aggregate answered another question")
