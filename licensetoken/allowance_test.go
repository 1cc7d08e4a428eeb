package licensetoken

import (
	"crypto/ed25519"
	"errors"
	"testing"
	"time"
)

// TestAllowance: a signed allowance is read as it was signed, and neither it nor a licence passes for the other.
func TestAllowance(t *testing.T) {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	key := NewSigningKey(private)
	keys := KeySet{key.ID: key.Public()}
	at := time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC)
	a := Allowance{
		CustomerID: "Bayley", DeviceID: "iphone", GatewayID: "gw-1", Number: 7, IssuedAt: at,
		ExpiresAt: at.Add(48*time.Hour + 123*time.Millisecond),
	}
	token, err := SignAllowance("issuer", a, key)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := VerifyAllowance(token, "issuer", keys); err != nil || *got != a {
		t.Errorf("read %+v, %v", got, err)
	}
	if _, err := VerifyAllowance(token, "other", keys); !errors.Is(err, ErrMalformed) {
		t.Errorf("of another issuer: %v", err)
	}
	if _, err := VerifyAllowance(token[:len(token)-4]+"AAAA", "issuer", keys); !errors.Is(err, ErrSignature) {
		t.Errorf("altered: %v", err)
	}
	if _, err := Verify(token, "issuer", keys); !errors.Is(err, ErrMalformed) {
		t.Errorf("taken for a licence: %v", err)
	}
	license, err := Sign("issuer", License{
		CustomerID: "Bayley", DeviceID: "iphone", TitleID: "a",
		AcquiredAt: at, IssuedAt: at, ExpiresAt: at.Add(time.Hour),
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyAllowance(license, "issuer", keys); !errors.Is(err, ErrMalformed) {
		t.Errorf("a licence is taken for an allowance: %v", err)
	}
}
