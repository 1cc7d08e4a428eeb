// Package licensetoken signs licences, so that a device can check offline that it may play, and verifies them.
//
// # The model
//
// A signed licence is a JSON Web Token in the compact form, signed with Ed25519 (alg EdDSA), of the type
// "license+jwt". Its key is named by the key's thumbprint (RFC 7638), and the public keys are a JSON Web Key Set.
// Its claims say:
//
//	iss         the service that signed it
//	aud         "licensed-device", so that no other token of the same keys passes for a licence
//	sub         the customer
//	device_id   the device that holds the licence
//	title_id    the title that it is for
//	license     the licence number: the time of the acquisition, in milliseconds since 1970
//	iat         the time of the command that it confirms, by the service's clock; with play_hours, the time from which
//	            on a playback begins the hours
//	nbf         iat less ClockAllowance
//	exp         the expiry of the licence
//	play_hours  the hours after which the licence ends, from its first playback since iat on; absent for none
//	offline     what the device may do without a connection, see Play and Release
//
// The number names one acquisition among all those of the customer, the device and the title: a renewal keeps it, and
// an acquisition after the end of the licence has another one. All times but the number are in seconds, rounded down.
// The signature is deterministic, so that equal claims and the same key result in equal tokens.
package licensetoken

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	// Audience of all signed licences.
	Audience = "licensed-device"
	// ClockAllowance is how far the clock of a device may be behind that of the service. Until then a licence that was
	// just signed is valid.
	ClockAllowance = 5 * time.Minute
	// MaxBytes is the size of the largest token that is looked at; the largest that the service signs has 1.5 KiB.
	MaxBytes = 4 << 10

	tokenType = "license+jwt"
)

// What a device may do offline.
const (
	// Play the title until the licence expires.
	Play = "play"
	// Release the licence: delete the title, and tell the service when there is a connection.
	Release = "release"
)

// Errors of Verify and License.Check.
var (
	// ErrMalformed says that a text is no signed licence: no token, of another algorithm, type, issuer or audience, or
	// without one of the claims.
	ErrMalformed = errors.New("not a signed licence")
	// ErrUnknownKey says that no known key signed the licence. A key may be newer than the set: fetch that again.
	ErrUnknownKey = errors.New("signed with an unknown key")
	// ErrSignature says that the licence was altered, or signed by somebody else.
	ErrSignature = errors.New("the signature is wrong")
	// ErrNotYetValid says that the clock is more than ClockAllowance behind that of the service.
	ErrNotYetValid = errors.New("not valid yet")
	// ErrExpired says that the licence has expired.
	ErrExpired = errors.New("expired")
	// ErrHoursPassed says that the licence ended by its hours after the first playback, before its expiry.
	ErrHoursPassed = errors.New("the hours after the first playback have passed")
)

// License is what a token says. Times are in UTC.
type License struct {
	CustomerID, DeviceID, TitleID string
	// AcquiredAt is the time of the acquisition, to a millisecond. It identifies the licence among those of the
	// customer, the device and the title; see Number.
	AcquiredAt time.Time
	// IssuedAt is when the command was executed that the token confirms, and ExpiresAt when the licence ends, to a
	// second.
	IssuedAt, ExpiresAt time.Time
	// PlayHours is the number of hours after which the licence ends, from its first playback on; 0 if a playback ends
	// nothing. See EndsAt.
	PlayHours uint32
	// Offline is what the device may do without a connection.
	Offline []string
	// KeyID names the key that signed the token. Sign ignores it.
	KeyID string
}

// Number returns the licence number.
func (l *License) Number() int64 { return l.AcquiredAt.UnixMilli() }

// May reports whether the device may do something without a connection, such as Play. It knows of no time: see Check.
func (l *License) May(do string) bool { return slices.Contains(l.Offline, do) }

// EndsAt returns when the licence ends for a device that knows of its first playback since IssuedAt; the zero time if
// there was none.
func (l *License) EndsAt(firstPlayed time.Time) time.Time {
	if l.PlayHours == 0 || firstPlayed.IsZero() {
		return l.ExpiresAt
	}
	if end := firstPlayed.Add(time.Duration(l.PlayHours) * time.Hour); end.Before(l.ExpiresAt) {
		return end
	}
	return l.ExpiresAt
}

// CheckPlayed is Check for a device that knows of its first playback since IssuedAt, as EndsAt: also ErrHoursPassed.
func (l *License) CheckPlayed(now, firstPlayed time.Time) error {
	if err := l.Check(now); err != nil {
		return err
	}
	if end := l.EndsAt(firstPlayed); !now.Before(end) {
		return fmt.Errorf("licence for title %s: %w: %d h from %s on",
			l.TitleID, ErrHoursPassed, l.PlayHours, firstPlayed.UTC().Format(time.RFC3339))
	}
	return nil
}

// Check returns whether the licence is valid at a time: nil, ErrNotYetValid or ErrExpired.
func (l *License) Check(now time.Time) error {
	switch {
	case now.Before(l.IssuedAt.Add(-ClockAllowance)):
		return fmt.Errorf("licence for title %s: %w: issued at %s, the clock shows %s",
			l.TitleID, ErrNotYetValid, l.IssuedAt.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	case !now.Before(l.ExpiresAt):
		return fmt.Errorf("licence for title %s: %w at %s", l.TitleID, ErrExpired, l.ExpiresAt.Format(time.RFC3339))
	}
	return nil
}

// claims are those of the token. The number is below 2^53, so that every language can read it.
type claims struct {
	jwt.RegisteredClaims
	DeviceID  string   `json:"device_id"`
	TitleID   string   `json:"title_id"`
	Number    int64    `json:"license"`
	PlayHours uint32   `json:"play_hours,omitempty"`
	Offline   []string `json:"offline"`
}

// Sign returns a licence as a token of an issuer.
func Sign(issuer string, l License, key SigningKey) (string, error) {
	t := jwt.NewWithClaims(jwt.SigningMethodEdDSA, &claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer: issuer, Subject: l.CustomerID, Audience: jwt.ClaimStrings{Audience},
			IssuedAt: jwt.NewNumericDate(l.IssuedAt), NotBefore: jwt.NewNumericDate(l.IssuedAt.Add(-ClockAllowance)),
			ExpiresAt: jwt.NewNumericDate(l.ExpiresAt),
		},
		DeviceID: l.DeviceID, TitleID: l.TitleID, Number: l.Number(), PlayHours: l.PlayHours,
		Offline: l.Offline,
	})
	t.Header["typ"], t.Header["kid"] = tokenType, key.ID
	token, err := t.SignedString(key.Private)
	if err != nil {
		return "", fmt.Errorf("sign a licence with key %s: %w", key.ID, err)
	}
	return token, nil
}

// parser accepts one algorithm, whatever a token says. The claims are checked by Verify.
var parser = jwt.NewParser(jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}), jwt.WithStrictDecoding(),
	jwt.WithoutClaimsValidation())

// Verify returns the licence of a token that one of the keys signed for an issuer. It knows of no time: the caller
// decides with Check whether the licence is valid now. Errors: ErrMalformed, ErrUnknownKey and ErrSignature.
func Verify(token, issuer string, keys KeySet) (*License, error) {
	var c claims
	t, err := parse(token, keys, &c)
	if err != nil {
		return nil, err
	}
	if fault := c.fault(t, issuer); fault != "" {
		return nil, fmt.Errorf("%w: %s", ErrMalformed, fault)
	}
	return &License{
		CustomerID: c.Subject, DeviceID: c.DeviceID, TitleID: c.TitleID, AcquiredAt: time.UnixMilli(c.Number).UTC(),
		IssuedAt: c.IssuedAt.UTC(), ExpiresAt: c.ExpiresAt.UTC(), PlayHours: c.PlayHours, Offline: c.Offline,
		KeyID: t.Header["kid"].(string),
	}, nil
}

// parse reads the claims of a token that one of the keys signed.
func parse(token string, keys KeySet, to jwt.Claims) (*jwt.Token, error) {
	if len(token) > MaxBytes {
		return nil, fmt.Errorf("%w: %d bytes are more than %d", ErrMalformed, len(token), MaxBytes)
	}
	t, err := parser.ParseWithClaims(token, to, func(t *jwt.Token) (any, error) {
		id, _ := t.Header["kid"].(string)
		if key, ok := keys[id]; ok {
			return key, nil
		}
		return nil, ErrUnknownKey
	})
	switch {
	case errors.Is(err, ErrUnknownKey):
		return nil, ErrUnknownKey
	case errors.Is(err, jwt.ErrTokenSignatureInvalid) && t != nil && t.Method == jwt.SigningMethodEdDSA:
		return nil, ErrSignature
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return t, nil
}

// fault returns why a token of one of the keys is no licence of the issuer, "" if it is one.
func (c *claims) fault(t *jwt.Token, issuer string) string {
	typ, _ := t.Header["typ"].(string)
	switch {
	case !strings.EqualFold(typ, tokenType):
		return fmt.Sprintf("its type is %q, not %q", typ, tokenType)
	case c.Issuer != issuer:
		return fmt.Sprintf("its issuer is %q, not %q", c.Issuer, issuer)
	case !slices.Equal(c.Audience, jwt.ClaimStrings{Audience}):
		return fmt.Sprintf("its audience is %q, not %q", c.Audience, Audience)
	case c.Subject == "" || c.DeviceID == "" || c.TitleID == "" || c.IssuedAt == nil || c.ExpiresAt == nil:
		return "a claim is missing"
	}
	return ""
}
