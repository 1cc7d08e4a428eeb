package node_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

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
		CustomerId: "Bayley", MaxStaleness: durationpb.New(time.Minute),
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

// TestLentDownload: while no node holds a customer, the gateway grants a download that was lent to the device. Another
// process with its directory hands it in, once a node is running, and returns what was not used.
func TestLentDownload(t *testing.T) {
	keys, dir := t.TempDir(), t.TempDir()
	if _, err := signingkeys.New(keys, time.Now()); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(file, []byte(`
default_plan: two
plans: {two: {devices: 2, allowances: {downloads: 4, hours: 48}}}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	c := newCompany(t)
	c.with = func(config *node.Config) {
		config.LicenseKeys, config.Policy = keys, file
		if config.Roles == node.RoleGateway {
			config.Fallback.Dir, config.Fallback.After = dir, time.Minute
		}
	}
	n1 := c.start("n1", node.RoleNode)
	g := c.start("g", node.RoleGateway)
	settle(t, admin(g), "n1")
	acquire := func(id, title, allowance string) (*licensedv1.AcquireLicenseResponse, error) {
		res, err := client(g).AcquireLicense(t.Context(), connect.NewRequest(&licensedv1.AcquireLicenseRequest{
			CustomerId: "Bayley", DeviceId: "iphone", TitleId: title, CommandId: id, SignedAllowance: allowance,
		}))
		if err != nil {
			return nil, err
		}
		return res.Msg, nil
	}
	if _, err := acquire("c1", "GlowS01E01", ""); err != nil {
		t.Fatal(err)
	}
	lent, err := client(g).LendAllowance(t.Context(), connect.NewRequest(&licensedv1.LendAllowanceRequest{
		CustomerId: "Bayley", DeviceId: "iphone", TitleIds: []string{"GlowS01E02", "GlowS01E03"}, CommandId: "lend",
	}))
	if err != nil {
		t.Fatal(err)
	}
	if err := n1.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	granted, err := acquire("c2", "GlowS01E02", lent.Msg.SignedAllowance)
	if err != nil || granted.Provisional.GetAllowance() != 1 {
		t.Fatalf("no node is running: %v, %v", granted, err)
	}
	if err := g.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.start("n2", node.RoleNode)
	g = c.start("g2", node.RoleGateway)
	settle(t, admin(g), "n2")
	if got := gauge(t, g, "licensed_gateway_allowances"); got != "1" {
		t.Errorf("%s allowances are open after the restart", got)
	}
	if _, err := client(g).ReturnAllowance(t.Context(), connect.NewRequest(&licensedv1.ReturnAllowanceRequest{
		CustomerId: "Bayley", DeviceId: "iphone", SignedAllowance: lent.Msg.SignedAllowance,
	})); err != nil {
		t.Fatal(err)
	}
	until(func() bool { return gauge(t, g, "licensed_gateway_deferred_commands") == "0" })
	customer, err := client(g).GetCustomer(t.Context(), connect.NewRequest(&licensedv1.GetCustomerRequest{
		CustomerId: "Bayley",
	}))
	if err != nil || len(customer.Msg.Licenses) != 2 || len(customer.Msg.Allowances) != 0 {
		t.Errorf("after the outage: %v, %v", customer, err)
	}
	repeat, err := acquire("c2", "GlowS01E02", "")
	if err != nil || !repeat.Duplicate || repeat.Provisional != nil ||
		!repeat.License.ExpiresAt.AsTime().After(granted.License.ExpiresAt.AsTime().Add(20*24*time.Hour)) {
		t.Errorf("the repeat got %v, %v", repeat, err)
	}
}
