package gateway_test

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"licensed/actors/license/policy"
	"licensed/gateway"
	"licensed/internal/harness"
	"licensed/licensetoken"
	"licensed/messages/licensedv1"
)

// testKeys are keys of which the last signs, and all are accepted.
type testKeys struct {
	mu   sync.Mutex
	keys []licensetoken.SigningKey
}

func signingKey(seed string) licensetoken.SigningKey {
	return licensetoken.NewSigningKey(ed25519.NewKeyFromSeed([]byte(strings.Repeat(seed, ed25519.SeedSize))))
}

func (k *testKeys) Signing() (licensetoken.SigningKey, time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.keys[len(k.keys)-1], noon.Add(-time.Hour)
}

func (k *testKeys) Accepted() licensetoken.KeySet {
	k.mu.Lock()
	defer k.mu.Unlock()
	set := make(licensetoken.KeySet)
	for _, key := range k.keys {
		set[key.ID] = key.Public()
	}
	return set
}

func (k *testKeys) set(keys ...licensetoken.SigningKey) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys = keys
}

func (d *domain) startSigning(keys gateway.SigningKeys) *rig {
	return start(d.t, d, func(c *gateway.Config) {
		c.HistoryReader, c.Kind, c.SigningKeys, c.LicenseIssuer = d, d.kind, keys, "licensed"
	})
}

// publicKeys are those that the gateway publishes.
func (r *rig) publicKeys(t *testing.T) licensetoken.KeySet {
	t.Helper()
	keys, err := licensetoken.ParseJWKS([]byte(get(t, r.url+gateway.KeySetPath)))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func verified(t *testing.T, token string, keys licensetoken.KeySet) *licensetoken.License {
	t.Helper()
	l, err := licensetoken.Verify(token, "licensed", keys)
	if err != nil {
		t.Fatalf("%q: %v", token, err)
	}
	return l
}

// TestSignedLicenses: what a device gets, in each protocol, and what it may do with it.
func TestSignedLicenses(t *testing.T) {
	d, keys := newDomain(t), &testKeys{keys: []licensetoken.SigningKey{signingKey("a")}}
	g := d.startSigning(keys)
	ctx := t.Context()
	for name, client := range protocols(t, g.url) {
		who := strings.ReplaceAll(name, "/", " over ")
		a := acquire()
		a.CustomerId, a.Signed = who, true
		first, err := client.AcquireLicense(ctx, connect.NewRequest(a))
		if err != nil {
			t.Fatal(name, err)
		}
		l := verified(t, first.Msg.SignedLicense, g.publicKeys(t))
		if l.CustomerID != who || l.DeviceID != "iphone" || l.TitleID != "GlowS01E01" ||
			!l.AcquiredAt.Equal(first.Msg.License.AcquiredAt.AsTime()) ||
			!l.ExpiresAt.Equal(first.Msg.License.ExpiresAt.AsTime().Truncate(time.Second)) ||
			!l.IssuedAt.Equal(noon.Truncate(time.Second)) || !l.May(licensetoken.Play) || !l.May(licensetoken.Release) {
			t.Errorf("%s: the licence is %+v", name, l)
		}
		again, err := client.AcquireLicense(ctx, connect.NewRequest(a))
		if err != nil || !again.Msg.Duplicate || again.Msg.SignedLicense != first.Msg.SignedLicense {
			t.Errorf("%s: the repeat got %v, %v", name, again, err)
		}
		a.Signed = false
		if res, err := client.AcquireLicense(ctx, connect.NewRequest(a)); err != nil || res.Msg.SignedLicense != "" {
			t.Errorf("%s: unasked: %v, %v", name, res, err)
		}
		a.Signed, a.ValidateOnly = true, true
		if res, err := client.AcquireLicense(ctx, connect.NewRequest(a)); err != nil || res.Msg.SignedLicense != "" {
			t.Errorf("%s: only validated: %v, %v", name, res, err)
		}
		renewed, err := client.RenewLicense(ctx, connect.NewRequest(&licensedv1.RenewLicenseRequest{
			CustomerId: who, DeviceId: "iphone", TitleId: "GlowS01E01", CommandId: "2",
			Signed: true, SignedLicense: first.Msg.SignedLicense,
		}))
		if err != nil {
			t.Fatal(name, err)
		}
		if after := verified(t, renewed.Msg.SignedLicense, g.publicKeys(t)); after.Number() != l.Number() {
			t.Errorf("%s: the renewal is of licence %d, not %d", name, after.Number(), l.Number())
		}
		if _, err := client.ReleaseLicense(ctx, connect.NewRequest(&licensedv1.ReleaseLicenseRequest{
			CustomerId: who, DeviceId: "iphone", TitleId: "GlowS01E01", CommandId: "3",
			SignedLicense: renewed.Msg.SignedLicense,
		})); err != nil {
			t.Error(name, err)
		}
	}
	if got := g.metric(t, "licensed_gateway_signed_licenses_total"); got != "24" {
		t.Errorf("%s licences were signed, want 3 for each of 8 protocols", got)
	}
	if got := g.metric(t, "licensed_gateway_signing_key_age_seconds"); got != "3600" {
		t.Errorf("the key is %s s old", got)
	}
}

// TestHoursOfTokens: a device counts the hours of a licence from its first playback since iat, which is later than the
// acquisition only where a renewal begins the hours anew.
func TestHoursOfTokens(t *testing.T) {
	for renewAfterPlay, began := range map[bool]time.Duration{false: 0, true: time.Hour} {
		d := newDomain(t)
		p, err := policy.Parse("hours", []byte(fmt.Sprintf("default_plan: two\nplans: {two: {devices: 2}}\n"+
			"defaults: {hours_after_first_play: 48}\nrenew_after_play: %v\n", renewAfterPlay)))
		if err != nil {
			t.Fatal(err)
		}
		d.kind.SetPolicy(p)
		keys := &testKeys{keys: []licensetoken.SigningKey{signingKey("a")}}
		g := start(t, d, func(c *gateway.Config) {
			c.HistoryReader, c.Kind, c.SigningKeys, c.LicenseIssuer = d, d.kind, keys, "licensed"
			c.RenewAfterPlay = func() bool { return d.kind.Policy().RenewAfterPlay() }
		})
		client := protocols(t, g.url)["grpc"]
		check := func(what, token string, err error, issued time.Time) {
			t.Helper()
			if err != nil {
				t.Fatal(what, err)
			}
			l := verified(t, token, g.publicKeys(t))
			if !l.IssuedAt.Equal(issued.Truncate(time.Second)) || l.PlayHours != 48 {
				t.Errorf("renew_after_play %v: %s: %+v, want %v", renewAfterPlay, what, l, issued)
			}
		}
		acquireAs := func(id string) (string, error) {
			a := acquire()
			a.CommandId, a.Signed = id, true
			res, err := client.AcquireLicense(t.Context(), connect.NewRequest(a))
			return res.Msg.GetSignedLicense(), err
		}
		token, err := acquireAs("1")
		check("acquired", token, err, noon)
		d.mu.Lock()
		d.now = noon.Add(time.Hour)
		d.mu.Unlock()
		token, err = acquireAs("2")
		check("acquired while active", token, err, noon)
		renewed, err := client.RenewLicense(t.Context(), connect.NewRequest(&licensedv1.RenewLicenseRequest{
			CustomerId: "Bayley", DeviceId: "iphone", TitleId: "GlowS01E01", CommandId: "3", Signed: true,
		}))
		check("renewed", renewed.Msg.GetSignedLicense(), err, noon.Add(began))
	}
}

// TestLicenceOfAnEarlierAcquisition: a signed licence names its own acquisition, so that a command which shows an old
// one does nothing to the licence that was acquired since.
func TestLicenceOfAnEarlierAcquisition(t *testing.T) {
	d, keys := newDomain(t), &testKeys{keys: []licensetoken.SigningKey{signingKey("a")}}
	client := protocols(t, d.startSigning(keys).url)["grpc"]
	ctx := t.Context()
	acquired := func(id string) *licensedv1.AcquireLicenseResponse {
		t.Helper()
		a := acquire()
		a.CommandId, a.Signed = id, true
		res, err := client.AcquireLicense(ctx, connect.NewRequest(a))
		if err != nil {
			t.Fatal(err)
		}
		return res.Msg
	}
	released := func(id, shown string) *licensedv1.ReleaseLicenseResponse {
		t.Helper()
		res, err := client.ReleaseLicense(ctx, connect.NewRequest(&licensedv1.ReleaseLicenseRequest{
			CustomerId: "Bayley", DeviceId: "iphone", TitleId: "GlowS01E01", CommandId: id, SignedLicense: shown,
		}))
		if err != nil {
			t.Fatal(err)
		}
		return res.Msg
	}
	first := acquired("1")
	released("2", first.SignedLicense)
	d.mu.Lock()
	d.now = d.now.Add(time.Hour)
	d.mu.Unlock()
	second := acquired("3")
	if res := released("4", first.SignedLicense); !res.Superseded || res.License.Released {
		t.Errorf("the release of the first licence: %v", res)
	}
	renewed, err := client.RenewLicense(ctx, connect.NewRequest(&licensedv1.RenewLicenseRequest{
		CustomerId: "Bayley", DeviceId: "iphone", TitleId: "GlowS01E01", CommandId: "5", Signed: true,
		SignedLicense: first.SignedLicense,
	}))
	if err != nil || !renewed.Msg.Superseded || renewed.Msg.License.Renewals != 0 || renewed.Msg.SignedLicense != "" {
		t.Errorf("the renewal of the first licence: %v, %v", renewed, err)
	}
	_, err = client.ReleaseLicense(ctx, connect.NewRequest(&licensedv1.ReleaseLicenseRequest{
		CustomerId: "Bayley", DeviceId: "iphone", TitleId: "GlowS01E01", CommandId: "6",
		SignedLicense: second.SignedLicense, AcquiredAt: first.License.AcquiredAt,
	}))
	if connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("a licence and the time of another: %v", err)
	}
	if res := released("7", second.SignedLicense); res.Superseded || !res.License.Released {
		t.Errorf("the release of the second licence: %v", res)
	}
	// Without its key, the licence is named by its time: the command is the same.
	keys.set(signingKey("b"))
	again, err := client.ReleaseLicense(ctx, connect.NewRequest(&licensedv1.ReleaseLicenseRequest{
		CustomerId: "Bayley", DeviceId: "iphone", TitleId: "GlowS01E01", CommandId: "7",
		AcquiredAt: second.License.AcquiredAt,
	}))
	if err != nil || !again.Msg.Duplicate {
		t.Errorf("the repeat by the time of the acquisition: %v, %v", again, err)
	}
}

// TestNoSigningKey: a command that needs keys is refused before it is executed.
func TestNoSigningKey(t *testing.T) {
	f := failing(nil)
	g := start(t, f)
	ctx, client := t.Context(), protocols(t, g.url)["grpc"]
	a := acquire()
	a.Signed = true
	_, acquired := client.AcquireLicense(ctx, connect.NewRequest(a))
	_, renewed := client.RenewLicense(ctx, connect.NewRequest(&licensedv1.RenewLicenseRequest{
		CustomerId: "Bayley", DeviceId: "iphone", TitleId: "GlowS01E01", CommandId: "2", Signed: true,
	}))
	_, released := client.ReleaseLicense(ctx, connect.NewRequest(&licensedv1.ReleaseLicenseRequest{
		CustomerId: "Bayley", DeviceId: "iphone", TitleId: "GlowS01E01", CommandId: "2", SignedLicense: "x",
	}))
	for _, err := range []error{acquired, renewed, released} {
		if connect.CodeOf(err) != connect.CodeFailedPrecondition || reasonOf(err) != licensedv1.ReasonNoSigningKey ||
			!strings.Contains(err.Error(), "--license-keys") {
			t.Errorf("got %v", err)
		}
	}
	if len(f.commands) > 0 {
		t.Errorf("%d commands were executed", len(f.commands))
	}
	if status, _ := harness.Get(t, g.url+gateway.KeySetPath); status != http.StatusNotFound {
		t.Errorf("the key set: %d", status)
	}
}

// TestWrongSignedLicense: a signed licence that does not belong to the command, and which is refused before the command
// is executed.
func TestWrongSignedLicense(t *testing.T) {
	key := signingKey("a")
	f := failing(nil)
	g := start(t, f, func(c *gateway.Config) {
		c.SigningKeys, c.LicenseIssuer = &testKeys{keys: []licensetoken.SigningKey{key}}, "licensed"
	})
	client := protocols(t, g.url)["session"]
	sign := func(issuer, customer, device, title string, key licensetoken.SigningKey) string {
		token, err := licensetoken.Sign(issuer, licensetoken.License{
			CustomerID: customer, DeviceID: device, TitleID: title, AcquiredAt: noon, IssuedAt: noon, ExpiresAt: noon,
		}, key)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	right := sign("licensed", "Bayley", "iphone", "GlowS01E01", key)
	for fault, token := range map[string]string{
		"malformed":      sign("staging", "Bayley", "iphone", "GlowS01E01", key),
		"unknown_key":    sign("licensed", "Bayley", "iphone", "GlowS01E01", signingKey("b")),
		"signature":      right[:len(right)-4] + "AAAA",
		"other_customer": sign("licensed", "Eve", "iphone", "GlowS01E01", key),
		"other_device":   sign("licensed", "Bayley", "ipad", "GlowS01E01", key),
		"other_title":    sign("licensed", "Bayley", "iphone", "MadMenS01E01", key),
	} {
		_, renewed := client.RenewLicense(t.Context(), connect.NewRequest(&licensedv1.RenewLicenseRequest{
			CustomerId: "Bayley", DeviceId: "iphone", TitleId: "GlowS01E01", CommandId: "1", SignedLicense: token,
		}))
		_, released := client.ReleaseLicense(t.Context(), connect.NewRequest(&licensedv1.ReleaseLicenseRequest{
			CustomerId: "Bayley", DeviceId: "iphone", TitleId: "GlowS01E01", CommandId: "2", SignedLicense: token,
		}))
		for _, err := range []error{renewed, released} {
			if connect.CodeOf(err) != connect.CodeInvalidArgument || reasonOf(err) != licensedv1.ReasonSignedLicense ||
				faultOf(err) != fault {
				t.Errorf("%s: got %v (%s)", fault, err, faultOf(err))
			}
		}
		if n := g.metric(t, `licensed_gateway_rejected_signed_licenses_total{fault="`+fault+`"}`); n != "2" {
			t.Errorf("%s: counted %s times", fault, n)
		}
	}
	if len(f.commands) > 0 {
		t.Errorf("%d commands were executed", len(f.commands))
	}
}

// faultOf returns the fault in the metadata of an error.
func faultOf(err error) string {
	var e *connect.Error
	if errors.As(err, &e) {
		for _, d := range e.Details() {
			if v, err := d.Value(); err == nil {
				if info, ok := v.(*errdetails.ErrorInfo); ok {
					return info.Metadata["fault"]
				}
			}
		}
	}
	return ""
}

// TestKeySet: the public keys may be cached, for longer than a client needs to ask again for nothing.
func TestKeySet(t *testing.T) {
	d, keys := newDomain(t), &testKeys{keys: []licensetoken.SigningKey{signingKey("a")}}
	g := d.startSigning(keys)
	fetch := func(etag string) (status int, header http.Header) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.url+gateway.KeySetPath, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("If-None-Match", etag)
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := res.Body.Close(); err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, res.Header
	}
	status, header := fetch("")
	if status != http.StatusOK || header.Get("Cache-Control") != "public, max-age=300" ||
		header.Get("Content-Type") != "application/jwk-set+json" ||
		header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("%d, %v", status, header)
	}
	etag := header.Get("ETag")
	if status, _ := fetch(etag); status != http.StatusNotModified {
		t.Errorf("unchanged: %d", status)
	}
	keys.set(signingKey("a"), signingKey("b"))
	if status, header := fetch(etag); status != http.StatusOK || header.Get("ETag") == etag {
		t.Errorf("with another key: %d, ETag %s", status, header.Get("ETag"))
	}
}

// TestRotationUnderRequests: while keys change, every command is executed, and signed by a key that is published.
func TestRotationUnderRequests(t *testing.T) {
	var ring []licensetoken.SigningKey
	all := make(licensetoken.KeySet)
	for i := range 20 {
		k := signingKey(string(rune('a' + i)))
		ring, all[k.ID] = append(ring, k), k.Public()
	}
	keys := &testKeys{keys: ring[:1]}
	client := protocols(t, newDomain(t).startSigning(keys).url)["grpc"]
	var rotations sync.WaitGroup
	signers := make(map[string]bool)
	for i := range 200 {
		rotations.Go(func() { keys.set(ring[i%19 : i%19+2]...) })
		a := acquire()
		a.CustomerId, a.Signed = fmt.Sprint("customer ", i), true
		res, err := client.AcquireLicense(t.Context(), connect.NewRequest(a))
		if err != nil {
			t.Fatal(err)
		}
		signers[verified(t, res.Msg.SignedLicense, all).KeyID] = true
	}
	rotations.Wait()
	if len(signers) < 10 {
		t.Errorf("only %d keys signed", len(signers))
	}
}
