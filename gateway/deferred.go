package gateway

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/actors"
	"licensed/actors/license"
	"licensed/gateway/fallback"
	"licensed/licensetoken"
	"licensed/messages/licensedv1"
)

// deferred has a command whose owner cannot be reached accepted, and returns its provisional result: the licence as the
// device has shown it, with what the command changes. It returns false if the command was not accepted.
func (s *service) deferred(
	ctx context.Context, customer string, c actors.Command, shown *licensetoken.License, cause error,
) (result, bool) {
	d, err := s.config.Fallback.Defer(ctx, customer, c, fallback.License{
		TitleID: shown.TitleID, AcquiredAt: shown.AcquiredAt, ExpiresAt: shown.ExpiresAt,
	}, cause)
	if err != nil {
		return result{}, false
	}
	l := &licensedv1.License{
		CustomerId: customer, DeviceId: shown.DeviceID, TitleId: shown.TitleID,
		AcquiredAt: timestamppb.New(shown.AcquiredAt), ExpiresAt: timestamppb.New(shown.ExpiresAt),
	}
	if d.Command.GetRenewLicense() != nil {
		l.ExpiresAt = timestamppb.New(d.GrantedUntil())
	} else {
		l.Released = true
	}
	return result{
		Outcome: license.Outcome{License: l}, at: d.AcceptedAt(),
		provisional: &licensedv1.Provisional{AcceptedAt: timestamppb.New(d.AcceptedAt())},
	}, true
}
