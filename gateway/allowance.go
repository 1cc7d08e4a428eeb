package gateway

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/actors"
	"licensed/actors/license"
	"licensed/gateway/fallback"
	"licensed/licensetoken"
	"licensed/messages/licensedv1"
)

// LendAllowance implements licensedv1connect.LicenseServiceHandler.
func (s *service) LendAllowance(
	ctx context.Context, r *connect.Request[licensedv1.LendAllowanceRequest],
) (*connect.Response[licensedv1.LendAllowanceResponse], error) {
	m := r.Msg
	if err := s.lending(); err != nil {
		return nil, err
	}
	if !s.config.Fallback.Lends() {
		return nil, retryError(connect.CodeUnavailable, licensedv1.ReasonNotExecuted,
			"the journal of this gateway has no room for a further allowance (--fallback-max-bytes)", time.Minute)
	}
	var v violations
	v.id("device_id", m.DeviceId)
	if n := len(m.TitleIds); n == 0 || n > license.MaxLent {
		v.add("title_ids", fmt.Sprintf("has %d entries, want 1 to %d", n, license.MaxLent))
	} else {
		for i, id := range m.TitleIds {
			v.id(fmt.Sprintf("title_ids[%d]", i), id)
		}
	}
	res, err := s.execute(ctx, m, v, &licensedv1.Command{Command: &licensedv1.Command_LendAllowance{
		LendAllowance: &licensedv1.LendAllowance{
			DeviceId: m.DeviceId, TitleIds: m.TitleIds, GatewayId: s.config.Fallback.GatewayID(),
		},
	}})
	if err != nil {
		return nil, err
	}
	out := &licensedv1.LendAllowanceResponse{
		Allowance: res.Allowance, Sequence: res.sequence, Duplicate: res.duplicate,
	}
	if m.ValidateOnly {
		return connect.NewResponse(out), nil
	}
	// Before the device has it: what is not in the ledger is not redeemed. A repeat through another gateway returns the
	// allowance of the first.
	err = s.config.Fallback.Keep(ctx, m.CustomerId, res.Allowance)
	if err != nil && !errors.Is(err, fallback.ErrNotLent) {
		s.config.Logger.ErrorContext(ctx, "allowance not kept", "customer", m.CustomerId, "error", err)
		return nil, retryError(connect.CodeUnavailable, licensedv1.ReasonOutcomeUnknown,
			"the allowance was lent, but this gateway cannot write it; retry with the same command_id", time.Second)
	}
	key, _ := s.config.SigningKeys.Signing()
	out.SignedAllowance, err = licensetoken.SignAllowance(s.config.LicenseIssuer, licensetoken.Allowance{
		CustomerID: m.CustomerId, DeviceID: m.DeviceId,
		GatewayID: res.Allowance.GatewayId, Number: res.Allowance.Number,
		IssuedAt: res.Allowance.LentAt.AsTime(), ExpiresAt: res.Allowance.ExpiresAt.AsTime(),
	}, key)
	if err != nil {
		s.config.Logger.ErrorContext(ctx, "allowance not signed", "customer", m.CustomerId, "key", key.ID, "error", err)
		return nil, apiError(connect.CodeInternal, licensedv1.ReasonOutcomeUnknown,
			"executed, but the allowance was not signed; retry with the same command_id")
	}
	return connect.NewResponse(out), nil
}

// ReturnAllowance implements licensedv1connect.LicenseServiceHandler.
func (s *service) ReturnAllowance(
	ctx context.Context, r *connect.Request[licensedv1.ReturnAllowanceRequest],
) (*connect.Response[licensedv1.ReturnAllowanceResponse], error) {
	m := r.Msg
	if err := s.lending(); err != nil {
		return nil, err
	}
	var v violations
	v.id("customer_id", m.CustomerId)
	v.id("device_id", m.DeviceId)
	if m.SignedAllowance == "" {
		v.add("signed_allowance", "is required")
	}
	if err := invalid(v); err != nil {
		return nil, err
	}
	a, err := s.shownAllowance(m, m.SignedAllowance)
	if err != nil {
		return nil, err
	}
	if a.GatewayID != s.config.Fallback.GatewayID() {
		return nil, otherGateway(a.GatewayID)
	}
	titles, err := s.config.Fallback.Close(m.CustomerId, a.Number)
	if err != nil && !errors.Is(err, fallback.ErrNotLent) { // One that is not known was returned long ago.
		s.config.Logger.ErrorContext(ctx, "allowance not returned", "customer", m.CustomerId, "error", err)
		return nil, retryError(connect.CodeUnavailable, licensedv1.ReasonNotExecuted,
			"this gateway cannot write the return of the allowance; retry later", time.Second)
	}
	return connect.NewResponse(&licensedv1.ReturnAllowanceResponse{TitleIds: titles}), nil
}

// lending returns an error if the gateway cannot lend or return anything.
func (s *service) lending() error {
	if s.config.Fallback == nil {
		return apiError(connect.CodeFailedPrecondition, licensedv1.ReasonOtherGateway,
			"this gateway has no directory for allowances (--fallback-dir); not executed")
	}
	return s.signing(true)
}

// otherGateway is the error for an allowance of another gateway.
func otherGateway(id string) error {
	return infoError(connect.CodeFailedPrecondition, licensedv1.ReasonOtherGateway,
		"the allowance is that of another gateway; not executed", map[string]string{"gateway_id": id})
}

// shownAllowance checks the signed allowance that a request names, if any: by whom it was signed, and for whom.
func (s *service) shownAllowance(m interface {
	GetCustomerId() string
	GetDeviceId() string
}, token string) (*licensetoken.Allowance, error) {
	if token == "" {
		return nil, nil
	}
	if err := s.signing(true); err != nil {
		return nil, err
	}
	a, err := licensetoken.VerifyAllowance(token, s.config.LicenseIssuer, s.config.SigningKeys.Accepted())
	fault := ""
	switch {
	case errors.Is(err, licensetoken.ErrUnknownKey):
		fault = "unknown_key"
	case errors.Is(err, licensetoken.ErrSignature):
		fault = "signature"
	case err != nil:
		fault = "malformed"
	case a.CustomerID != m.GetCustomerId():
		fault = "other_customer"
	case a.DeviceID != m.GetDeviceId():
		fault = "other_device"
	default:
		return a, nil
	}
	return nil, infoError(connect.CodeInvalidArgument, licensedv1.ReasonAllowance,
		"signed_allowance is not accepted: "+fault+"; not executed", map[string]string{"fault": fault})
}

// within has a unit of an allowance redeemed for an acquisition, and returns the payload that names it. The command is
// an ordinary one, and grants nothing while the owner cannot be reached, if the allowance is another gateway's or does
// not have the title any more. Errors: those of Fallback.Redeem; the command is an ordinary one then, too.
func (s *service) within(
	ctx context.Context, customer string, c actors.Command, a *licensetoken.Allowance,
) (redeemed *fallback.Command, err error) {
	if a == nil || c.ValidateOnly || s.config.Fallback == nil || a.GatewayID != s.config.Fallback.GatewayID() {
		return nil, nil
	}
	from := c.Payload.(*licensedv1.Command)
	m := from.GetAcquireLicense()
	c.Payload = &licensedv1.Command{IssuedAtMs: from.IssuedAtMs, DeviceName: from.DeviceName,
		DeviceType: from.DeviceType, Command: &licensedv1.Command_AcquireLicense{
			AcquireLicense: &licensedv1.AcquireLicense{
				DeviceId: m.DeviceId, TitleId: m.TitleId, NewDownload: m.NewDownload,
				Allowance: a.Number, GatewayId: a.GatewayID,
			},
		}}
	d, err := s.config.Fallback.Redeem(ctx, customer, c, a.ExpiresAt)
	if err != nil {
		return nil, err
	}
	return &d, nil
}

// granted returns the provisional result of an acquisition within an allowance.
func granted(customer string, d *fallback.Command) result {
	m := d.Command.GetAcquireLicense()
	return result{
		at: d.AcceptedAt(),
		Outcome: license.Outcome{License: &licensedv1.License{
			CustomerId: customer, DeviceId: m.DeviceId, TitleId: m.TitleId,
			AcquiredAt: timestamppb.New(d.AcceptedAt()), ExpiresAt: timestamppb.New(d.GrantedUntil()),
			PlayHours: playHours(d.GetPlayHours()),
		}},
		provisional: &licensedv1.Provisional{
			AcceptedAt: timestamppb.New(d.AcceptedAt()), Allowance: m.Allowance,
		},
	}
}
