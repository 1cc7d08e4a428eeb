package client_test

import (
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"
	"time"

	"licensed/client"
	"licensed/licensetoken"
)

func TestVerifyLicense(t *testing.T) {
	key := licensetoken.NewSigningKey(ed25519.NewKeyFromSeed([]byte(strings.Repeat("a", ed25519.SeedSize))))
	issued := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	expires := issued.AddDate(0, 0, 30)
	token, err := licensetoken.Sign("licensed", licensetoken.License{
		CustomerID: "Bayley", DeviceID: "iphone", TitleID: "GlowS01E01", AcquiredAt: issued, IssuedAt: issued,
		ExpiresAt: expires, PlayHours: 48, Offline: []string{licensetoken.Play},
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	jwks := licensetoken.KeySet{key.ID: key.Public()}.JWKS()
	for name, test := range map[string]struct {
		change func(*client.Offline)
		want   error
	}{
		"valid":                     {func(*client.Offline) {}, nil},
		"another device":            {func(o *client.Offline) { o.DeviceID = "ipad" }, client.ErrOtherDevice},
		"another service":           {func(o *client.Offline) { o.Issuer = "staging" }, licensetoken.ErrMalformed},
		"expired":                   {func(o *client.Offline) { o.Clock = expires }, licensetoken.ErrExpired},
		"a clock that was set back": {func(o *client.Offline) { o.ServerTime = expires }, licensetoken.ErrExpired},
		"a clock that is slow":      {func(o *client.Offline) { o.Clock = time.Time{} }, licensetoken.ErrNotYetValid},
		"played an hour ago":        {func(o *client.Offline) { o.FirstPlayed = o.Clock.Add(-time.Hour) }, nil},
		"played 48 hours ago": {
			func(o *client.Offline) { o.Clock, o.FirstPlayed = issued.Add(50*time.Hour), issued.Add(2*time.Hour) },
			licensetoken.ErrHoursPassed,
		},
		"played, and the clock set back": {
			func(o *client.Offline) {
				o.ServerTime, o.FirstPlayed = issued.Add(50*time.Hour), issued.Add(2*time.Hour)
			},
			licensetoken.ErrHoursPassed,
		},
		"a slow clock, but a reply": {func(o *client.Offline) { o.Clock, o.ServerTime = time.Time{}, issued }, nil},
	} {
		o := client.Offline{JWKS: jwks, DeviceID: "iphone", Clock: issued.AddDate(0, 0, 1)}
		test.change(&o)
		l, err := client.VerifyLicense(token, o)
		if !errors.Is(err, test.want) || (l != nil) != (test.want == nil) {
			t.Errorf("%s: %+v, %v, want %v", name, l, err, test.want)
		}
	}
	if _, err := client.VerifyLicense(token, client.Offline{JWKS: []byte("<html>"), DeviceID: "iphone"}); err == nil {
		t.Error("keys that cannot be read are accepted")
	}
}
