package client

import (
	"errors"
	"fmt"
	"time"

	"licensed/licensetoken"
)

// ErrOtherDevice says that a signed licence is one of another device.
var ErrOtherDevice = errors.New("the licence is of another device")

// Offline is what a device knows while it has no connection.
type Offline struct {
	// JWKS are the public keys of the service, as GET /.well-known/jwks.json returned them.
	JWKS []byte
	// Issuer is the name of the service in signed licences (--license-issuer). Empty: "licensed".
	Issuer string
	// DeviceID is the device itself.
	DeviceID string
	// Clock is the device's clock, and ServerTime the latest time of the service that it has seen, in the replies of
	// the service and in the IssuedAt of licences that it verified. The higher counts.
	Clock, ServerTime time.Time
	// FirstPlayed is the first playback on the device, by this clock, since it had a token with the number and the
	// IssuedAt of this one; zero if there was none.
	FirstPlayed time.Time
}

// VerifyLicense returns a signed licence if the device may use it now. What it may do is in Offline of the result: see
// licensetoken.License.May. That the title and the customer are the right ones is for the caller to see. Errors: those
// of package licensetoken, ErrOtherDevice, and unreadable keys. It makes no call, and is safe for concurrent use.
func VerifyLicense(token string, o Offline) (*licensetoken.License, error) {
	keys, err := licensetoken.ParseJWKS(o.JWKS)
	if err != nil {
		return nil, err
	}
	if o.Issuer == "" {
		o.Issuer = "licensed"
	}
	l, err := licensetoken.Verify(token, o.Issuer, keys)
	if err != nil {
		return nil, err
	}
	if l.DeviceID != o.DeviceID {
		return nil, fmt.Errorf("%w: %s, not %s", ErrOtherDevice, l.DeviceID, o.DeviceID)
	}
	if o.ServerTime.After(o.Clock) {
		o.Clock = o.ServerTime
	}
	if err := l.CheckPlayed(o.Clock, o.FirstPlayed); err != nil {
		return nil, err
	}
	return l, nil
}
