package node_test

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"

	licences "licensed/client"
	"licensed/internal/node"
	"licensed/messages/licensedv1"
)

// TestSessionClient: package client speaks to a process over a session, with the outcomes of unary calls.
func TestSessionClient(t *testing.T) {
	c := node.DefaultConfig()
	c.Data, c.Listen, c.Admin = t.TempDir(), "127.0.0.1:0", ""
	c.Logger = slog.New(slog.DiscardHandler)
	n := start(t, c)
	var err error
	var sessions, unary *licences.Client
	for _, d := range []struct {
		c       **licences.Client
		session bool
	}{{&sessions, true}, {&unary, false}} {
		if *d.c, err = licences.Dial([]string{n.API().String()}, licences.Options{Session: d.session}); err != nil {
			t.Fatal(err)
		}
	}
	defer func() { _, _ = sessions.Close(), unary.Close() }()
	ctx := t.Context()
	var customers sync.WaitGroup
	for i := range 32 {
		customers.Go(func() {
			id := fmt.Sprint("customer-", i)
			acquire := &licensedv1.AcquireLicenseRequest{
				CustomerId: id, DeviceId: "iphone", TitleId: "GlowS01E01", CommandId: "c1",
			}
			res, err := sessions.AcquireLicense(ctx, acquire)
			if err != nil || res.License.GetCustomerId() != id || res.Duplicate {
				t.Errorf("acquire: %v, %v", res, err)
			}
			if res, err = unary.AcquireLicense(ctx, acquire); err != nil || !res.Duplicate {
				t.Errorf("the same as a unary call: %v, %v", res, err)
			}
			if res, err = sessions.AcquireLicense(ctx, acquire); err != nil || !res.Duplicate {
				t.Errorf("the same again: %v, %v", res, err)
			}
			_, err = sessions.RenewLicense(ctx, &licensedv1.RenewLicenseRequest{
				CustomerId: id, DeviceId: "tv", TitleId: "GlowS01E01",
			})
			var refusal *licences.Refusal
			if !errors.As(err, &refusal) || refusal.Rule != licensedv1.Rule_RULE_NO_LICENSE {
				t.Errorf("renew what is not held: %v", err)
			}
			devices, err := sessions.ListDevices(ctx, &licensedv1.ListDevicesRequest{CustomerId: id})
			if err != nil || len(devices.Devices) != 1 {
				t.Errorf("devices: %v, %v", devices, err)
			}
			_, err = sessions.ListDevices(ctx, &licensedv1.ListDevicesRequest{CustomerId: "a/b"})
			var invalid *licences.Error
			if !errors.As(err, &invalid) || len(invalid.Violations) != 1 {
				t.Errorf("a bad id: %v", err)
			}
		})
	}
	customers.Wait()
}
