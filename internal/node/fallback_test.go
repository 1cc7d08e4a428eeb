package node_test

import (
	"testing"
	"time"

	"connectrpc.com/connect"

	"licensed/internal/node"
	"licensed/internal/signingkeys"
	"licensed/messages/licensedv1"
)

// TestFallback: while no node holds a customer, the gateway renews a licence provisionally, and reads the customer in
// the store. Another process with its directory hands the renewal in, once a node is running.
func TestFallback(t *testing.T) {
	keys, dir := t.TempDir(), t.TempDir()
	if _, err := signingkeys.New(keys, time.Now()); err != nil {
		t.Fatal(err)
	}
	c := newCompany(t)
	c.with = func(config *node.Config) {
		config.LicenseKeys = keys
		if config.Roles == node.RoleGateway {
			config.Fallback.Dir, config.Fallback.After = dir, time.Minute
		}
	}
	n1 := c.start("n1", node.RoleNode)
	g := c.start("g", node.RoleGateway)
	settle(t, admin(g), "n1")
	acquired, err := client(g).AcquireLicense(t.Context(), connect.NewRequest(&licensedv1.AcquireLicenseRequest{
		CustomerId: "Bayley", DeviceId: "iphone", TitleId: "GlowS01E01", CommandId: "c1", Signed: true,
	}))
	if err != nil {
		t.Fatal(err)
	}
	if err := n1.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	renew := &licensedv1.RenewLicenseRequest{
		CustomerId: "Bayley", DeviceId: "iphone", TitleId: "GlowS01E01", CommandId: "c2",
		SignedLicense: acquired.Msg.SignedLicense,
	}
	renewed, err := client(g).RenewLicense(t.Context(), connect.NewRequest(renew))
	if err != nil || renewed.Msg.Provisional == nil {
		t.Fatalf("no node is running: %v, %v", renewed, err)
	}
	stored, err := client(g).GetCustomer(t.Context(), connect.NewRequest(&licensedv1.GetCustomerRequest{
		CustomerId: "Bayley",
	}))
	if err != nil || stored.Msg.Stale.GetSource() != licensedv1.StaleSource_STALE_SOURCE_STORE ||
		stored.Msg.Sequence != acquired.Msg.Sequence || len(stored.Msg.Licenses) != 1 {
		t.Errorf("of the store: %v, %v", stored, err)
	}
	if got := gauge(t, g, "licensed_gateway_deferred_commands"); got != "1" {
		t.Errorf("%s commands are deferred", got)
	}
	if err := g.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.start("n2", node.RoleNode)
	g = c.start("g2", node.RoleGateway)
	settle(t, admin(g), "n2")
	until(func() bool { return gauge(t, g, "licensed_gateway_deferred_commands") == "0" })
	list, err := client(g).ListLicenses(t.Context(), connect.NewRequest(&licensedv1.ListLicensesRequest{
		CustomerId: "Bayley",
	}))
	if err != nil || len(list.Msg.Licenses) != 1 || list.Msg.Licenses[0].Renewals != 1 {
		t.Errorf("after the outage: %v, %v", list, err)
	}
	if renewed, err = client(g).RenewLicense(t.Context(), connect.NewRequest(renew)); err != nil ||
		!renewed.Msg.Duplicate || renewed.Msg.Provisional != nil || renewed.Msg.Sequence != acquired.Msg.Sequence+1 {
		t.Errorf("the repeat got %v, %v", renewed, err)
	}
}
