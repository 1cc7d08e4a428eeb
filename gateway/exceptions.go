package gateway

import (
	"context"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"licensed/actors/license"
	"licensed/messages/licensedv1"
)

// GrantException implements licensedv1connect.LicenseServiceHandler.
func (s *service) GrantException(
	ctx context.Context, r *connect.Request[licensedv1.GrantExceptionRequest],
) (*connect.Response[licensedv1.GrantExceptionResponse], error) {
	m := r.Msg
	var v violations
	c := &licensedv1.GrantException{Reason: m.Reason, UntilMs: v.millis("until", m.Until)}
	// What the service sets is not the client's to say.
	switch k := m.Kind.(type) {
	case *licensedv1.GrantExceptionRequest_Limit:
		limit := proto.CloneOf(k.Limit)
		limit.PlanId = ""
		c.Kind = &licensedv1.GrantException_Limit{Limit: limit}
	case *licensedv1.GrantExceptionRequest_Removal:
		c.Kind = &licensedv1.GrantException_Removal{Removal: k.Removal}
	case *licensedv1.GrantExceptionRequest_Use:
		c.Kind = &licensedv1.GrantException_Use{Use: k.Use}
	case *licensedv1.GrantExceptionRequest_Merge:
		c.Kind = &licensedv1.GrantException_Merge{Merge: &licensedv1.MergedDevice{
			OldDeviceId: k.Merge.GetOldDeviceId(), NewDeviceId: k.Merge.GetNewDeviceId(),
		}}
	}
	v.exception("exception", license.CheckGrant(c))
	res, err := s.execute(ctx, m, v,
		&licensedv1.Command{Command: &licensedv1.Command_GrantException{GrantException: c}})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&licensedv1.GrantExceptionResponse{
		CustomerId: m.CustomerId, Exception: res.Exception, Sequence: res.sequence, Duplicate: res.duplicate,
	}), nil
}

// WithdrawException implements licensedv1connect.LicenseServiceHandler.
func (s *service) WithdrawException(
	ctx context.Context, r *connect.Request[licensedv1.WithdrawExceptionRequest],
) (*connect.Response[licensedv1.WithdrawExceptionResponse], error) {
	m := r.Msg
	var v violations
	c := &licensedv1.WithdrawException{Reason: m.Reason, Number: m.Number}
	v.exception("exception", license.CheckWithdraw(c))
	res, err := s.execute(ctx, m, v,
		&licensedv1.Command{Command: &licensedv1.Command_WithdrawException{WithdrawException: c}})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&licensedv1.WithdrawExceptionResponse{
		CustomerId: m.CustomerId, Exception: res.Exception, Sequence: res.sequence, Duplicate: res.duplicate,
	}), nil
}

// exception adds what is wrong with a command about an exception, if anything.
func (v *violations) exception(field string, err error) {
	if err != nil {
		v.add(field, "is not accepted: "+err.Error())
	}
}
