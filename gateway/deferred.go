package gateway

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/actors"
	"licensed/actors/license"
	"licensed/gateway/fallback"
	"licensed/internal/planted"
	"licensed/licensetoken"
	"licensed/messages/licensedv1"
)

// deferrable reports whether a command can be accepted while its owner cannot be reached: facts of a device, and what
// is about a licence that the device has shown.
func (s *service) deferrable(c *actors.Command, payload *licensedv1.Command, shown *licensetoken.License) bool {
	return s.config.Fallback != nil && !c.ValidateOnly && (shown != nil || payload.GetSyncDevice() != nil)
}

// deferred has such a command accepted, and returns its provisional result: the licence as the device has shown it,
// with what the command changes. Errors: those of Fallback.Defer.
func (s *service) deferred(
	ctx context.Context, customer string, c actors.Command, shown *licensetoken.License, cause error,
) (result, error) {
	var named fallback.License
	if shown != nil {
		named = fallback.License{
			TitleID: shown.TitleID, AcquiredAt: shown.AcquiredAt, ExpiresAt: shown.ExpiresAt,
			PlayHours: shown.PlayHours,
		}
	}
	d, err := s.config.Fallback.Defer(ctx, customer, c, named, cause)
	if err != nil {
		return result{}, err
	}
	res := result{
		at: d.AcceptedAt(), provisional: &licensedv1.Provisional{AcceptedAt: timestamppb.New(d.AcceptedAt())},
	}
	if shown == nil {
		res.Sync = new(license.Sync)
		return res, nil
	}
	l := &licensedv1.License{
		CustomerId: customer, DeviceId: shown.DeviceID, TitleId: shown.TitleID,
		AcquiredAt: timestamppb.New(shown.AcquiredAt), ExpiresAt: timestamppb.New(shown.ExpiresAt),
	}
	if d.Command.GetRenewLicense() != nil {
		l.ExpiresAt, l.PlayHours = timestamppb.New(d.GrantedUntil()), playHours(d.GetPlayHours())
		// The token has the time of the one that was shown: hours that a playback began since do not begin anew.
		if !planted.Bug(planted.HoursAnew) {
			res.at = shown.IssuedAt
		}
	} else {
		l.Released = true
	}
	res.License = l
	return res, nil
}

// playHours returns the hours after the first playback as the API has them: absent if a playback ends nothing.
func playHours(n uint32) *uint32 {
	if n == 0 {
		return nil
	}
	return &n
}
