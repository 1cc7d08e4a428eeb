package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/client"
	"licensed/internal/harness"
	"licensed/licensetoken"
	"licensed/messages/licensedv1"
)

// newKey runs licensed keys new, and returns the file of the key.
func newKey(t *testing.T, dir, delay string) string {
	t.Helper()
	out, err := exec.Command(filepath.Join(harness.Programs(t), "licensed"), "keys", "new", "--delay", delay, dir).
		CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	path, _, _ := strings.Cut(string(out), "\n")
	return path
}

// TestSignedLicence: a device acquires, verifies without a connection, renews with what it has, and does all of it
// again after the key was replaced, while others make requests, of which none fails.
func TestSignedLicence(t *testing.T) {
	dir := t.TempDir()
	keys := filepath.Join(dir, "keys")
	old := newKey(t, keys, "0s")
	d := harness.Start(t, filepath.Join(harness.Programs(t), "licensed"), "dev", "--data", filepath.Join(dir, "data"),
		"--license-keys", keys, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
	c, err := client.Dial([]string{d.API}, client.Options{Session: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx := t.Context()
	fetch := func() []byte {
		_, body := harness.Get(t, "http://"+d.API+"/.well-known/jwks.json")
		return []byte(body)
	}
	verify := func(token string, jwks []byte) *licensetoken.License {
		t.Helper()
		l, err := client.VerifyLicense(token, client.Offline{JWKS: jwks, DeviceID: "iphone", Clock: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	acquire := func(customer, command string) *licensedv1.AcquireLicenseResponse {
		t.Helper()
		res, err := c.AcquireLicense(ctx, &licensedv1.AcquireLicenseRequest{
			CustomerId: customer, DeviceId: "iphone", TitleId: "GlowS01E01", CommandId: command, Signed: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	renew := func(command, shown string) string {
		t.Helper()
		res, err := c.RenewLicense(ctx, &licensedv1.RenewLicenseRequest{
			CustomerId: "Bayley", DeviceId: "iphone", TitleId: "GlowS01E01", CommandId: command, Signed: true,
			SignedLicense: shown,
		})
		if err != nil {
			t.Fatal(err)
		}
		return res.SignedLicense
	}
	first := acquire("Bayley", "c1")
	before := fetch()
	held := verify(first.SignedLicense, before)
	if again := acquire("Bayley", "c1"); !again.Duplicate || again.SignedLicense != first.SignedLicense {
		t.Errorf("the repeat got %v", again)
	}
	renewed := renew("c2", first.SignedLicense)
	if l := verify(renewed, before); l.Number() != held.Number() || l.ExpiresAt.Before(held.ExpiresAt) {
		t.Errorf("renewed %+v, was %+v", l, held)
	}

	// The key is replaced under requests.
	var others sync.WaitGroup
	var stop atomic.Bool
	for i := range 4 {
		others.Go(func() {
			for n := 0; !stop.Load(); n++ {
				if _, err := c.AcquireLicense(ctx, &licensedv1.AcquireLicenseRequest{
					CustomerId: fmt.Sprintf("other-%d-%d", i, n), DeviceId: "iphone", TitleId: "GlowS01E01",
					Signed: true,
				}); err != nil {
					t.Errorf("during the rotation: %v", err)
					return
				}
			}
		})
	}
	// The name of a key is a second: another one begins in another.
	newKey(t, keys, "2s")
	var after []byte
	n := 0
	d.Until(func() bool {
		n++
		after = fetch()
		published, err := licensetoken.ParseJWKS(after)
		return err == nil && len(published) == 2 &&
			verify(acquire(fmt.Sprint("Matt", n), "c1").SignedLicense, after).KeyID != held.KeyID
	})
	stop.Store(true)
	others.Wait()
	verify(first.SignedLicense, after) // The old key is still published.
	rotated := renew("c3", renewed)
	if l := verify(rotated, after); l.KeyID == held.KeyID || l.Number() != held.Number() {
		t.Errorf("after the rotation: %+v, was %+v", l, held)
	}
	if _, err := client.VerifyLicense(rotated,
		client.Offline{JWKS: before, DeviceID: "iphone", Clock: time.Now()}); err == nil {
		t.Error("a device with the old keys accepts the new key")
	}

	// A key whose file is removed is accepted no more, and licences of the new one are.
	if err := os.Remove(old); err != nil {
		t.Fatal(err)
	}
	d.Until(func() bool {
		published, err := licensetoken.ParseJWKS(fetch())
		return err == nil && len(published) == 1
	})
	if _, err := c.RenewLicense(ctx, &licensedv1.RenewLicenseRequest{
		CustomerId: "Bayley", DeviceId: "iphone", TitleId: "GlowS01E01", SignedLicense: renewed,
	}); err == nil || !strings.Contains(err.Error(), "key that is not accepted") {
		t.Errorf("a licence of the removed key: %v", err)
	}
	release := &licensedv1.ReleaseLicenseRequest{
		CustomerId: "Bayley", DeviceId: "iphone", TitleId: "GlowS01E01", CommandId: "c4", SignedLicense: rotated,
	}
	if _, err := c.ReleaseLicense(ctx, release); err != nil {
		t.Error(err)
	}
	// A repeat may name the licence by its number, should its key be gone by then: it is the same command.
	release.SignedLicense, release.AcquiredAt = "", timestamppb.New(time.UnixMilli(held.Number()))
	if res, err := c.ReleaseLicense(ctx, release); err != nil || !res.Duplicate {
		t.Errorf("repeated by the number of the licence: %v, %v", res, err)
	}
}
