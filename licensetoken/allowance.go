package licensetoken

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	// AllowanceAudience of all signed allowances: a gateway, so that none passes for a licence.
	AllowanceAudience = "licensed-gateway"

	allowanceType = "allowance+jwt"
)

// Allowance is what a device shows to have a download granted that was lent to it. Times are in UTC.
type Allowance struct {
	CustomerID, DeviceID string
	// GatewayID is the one gateway that may redeem it.
	GatewayID string
	// Number is that of the allowance among those of the customer.
	Number uint64
	// IssuedAt is when it was lent, to a second, and ExpiresAt when it ends, to a millisecond.
	IssuedAt, ExpiresAt time.Time
}

// allowanceClaims are those of the token. The number is below 2^53, so that every language can read it.
type allowanceClaims struct {
	jwt.RegisteredClaims
	DeviceID  string `json:"device_id"`
	GatewayID string `json:"gateway"`
	Number    uint64 `json:"allowance"`
	UntilMs   int64  `json:"until_ms"`
}

// SignAllowance returns an allowance as a token of an issuer.
func SignAllowance(issuer string, a Allowance, key SigningKey) (string, error) {
	t := jwt.NewWithClaims(jwt.SigningMethodEdDSA, &allowanceClaims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer: issuer, Subject: a.CustomerID, Audience: jwt.ClaimStrings{AllowanceAudience},
			IssuedAt: jwt.NewNumericDate(a.IssuedAt), ExpiresAt: jwt.NewNumericDate(a.ExpiresAt),
		},
		DeviceID: a.DeviceID, GatewayID: a.GatewayID, Number: a.Number, UntilMs: a.ExpiresAt.UnixMilli(),
	})
	t.Header["typ"], t.Header["kid"] = allowanceType, key.ID
	token, err := t.SignedString(key.Private)
	if err != nil {
		return "", fmt.Errorf("sign an allowance with key %s: %w", key.ID, err)
	}
	return token, nil
}

// VerifyAllowance returns the allowance of a token that one of the keys signed for an issuer. It knows of no time.
// Errors: ErrMalformed, ErrUnknownKey and ErrSignature.
func VerifyAllowance(token, issuer string, keys KeySet) (*Allowance, error) {
	var c allowanceClaims
	t, err := parse(token, keys, &c)
	if err != nil {
		return nil, err
	}
	typ, _ := t.Header["typ"].(string)
	if !strings.EqualFold(typ, allowanceType) || c.Issuer != issuer || c.IssuedAt == nil ||
		!slices.Equal(c.Audience, jwt.ClaimStrings{AllowanceAudience}) ||
		c.Subject == "" || c.DeviceID == "" || c.GatewayID == "" || c.Number == 0 {
		return nil, fmt.Errorf("%w: not a signed allowance of this service", ErrMalformed)
	}
	return &Allowance{
		CustomerID: c.Subject, DeviceID: c.DeviceID, GatewayID: c.GatewayID, Number: c.Number,
		IssuedAt: c.IssuedAt.UTC(), ExpiresAt: time.UnixMilli(c.UntilMs).UTC(),
	}, nil
}
