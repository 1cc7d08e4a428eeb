package node_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"licensed/internal/node"
	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
)

// canaries are the ids of a customer that is forgotten, and of what the customer used.
var canaries = []string{"CanaryCustomer", "canaryphone", "CanaryS01E01"}

// acquireCanary has the canary customer use a device and a title.
func acquireCanary(ctx context.Context, n *node.Node, command string) error {
	_, err := client(n).AcquireLicense(ctx, connect.NewRequest(&licensedv1.AcquireLicenseRequest{
		CustomerId: canaries[0], DeviceId: canaries[1], TitleId: canaries[2], CommandId: command,
	}))
	return err
}

// forget has an operator forget a customer, as the changes of the request say.
func forget(ctx context.Context, a licensedv1connect.AdminServiceClient, customer string,
	changes ...func(*licensedv1.ForgetCustomerRequest),
) (*licensedv1.ForgetCustomerResponse, error) {
	r := connect.NewRequest(&licensedv1.ForgetCustomerRequest{CustomerId: customer})
	for _, change := range changes {
		change(r.Msg)
	}
	r.Header().Set("Licensed-Reason", "request%204711")
	res, err := a.ForgetCustomer(ctx, r)
	if err != nil {
		return nil, err
	}
	return res.Msg, nil
}

// wantForgotten demands that everything that is asked about the canary customer is refused.
func wantForgotten(t *testing.T, n *node.Node, records [][]byte) {
	t.Helper()
	ctx := t.Context()
	_, state := client(n).GetCustomer(ctx, connect.NewRequest(&licensedv1.GetCustomerRequest{CustomerId: canaries[0]}))
	_, imported := admin(n).ImportCustomer(ctx, connect.NewRequest(&licensedv1.ImportCustomerRequest{
		CustomerId: canaries[0], Records: records, Last: true,
	}))
	_, archived := admin(n).ArchiveCustomer(ctx,
		connect.NewRequest(&licensedv1.ArchiveCustomerRequest{CustomerId: canaries[0], All: true}))
	exported := fmt.Errorf("no stream")
	if stream, err := historyClient(n).ListEvents(ctx,
		connect.NewRequest(&licensedv1.ListEventsRequest{CustomerId: canaries[0], IncludeRecord: true})); err == nil {
		for stream.Receive() {
			t.Errorf("an event of a forgotten customer: %v", stream.Msg())
		}
		exported = stream.Err()
		_ = stream.Close()
	}
	for what, err := range map[string]error{
		"command": acquireCanary(ctx, n, "after"), "repeat": acquireCanary(ctx, n, "c0"), "question": state,
		"import": imported, "archive": archived, "export": exported,
	} {
		if connect.CodeOf(err) != connect.CodeFailedPrecondition || !strings.Contains(err.Error(), "forgotten on 20") {
			t.Errorf("%s of a forgotten customer: %v", what, err)
		}
	}
	if ids, err := admin(n).ListCustomers(ctx, connect.NewRequest(&licensedv1.ListCustomersRequest{})); err != nil ||
		len(ids.Msg.CustomerIds) != 1 || ids.Msg.CustomerIds[0] != "Bayley" {
		t.Errorf("customers: %v, %v", ids, err)
	}
}

// filesWithCanaries returns the files below a directory that have a canary.
func filesWithCanaries(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil //nolint:nilerr // the store removed the file meanwhile
		}
		data, err := os.ReadFile(path)
		for _, c := range canaries {
			if err == nil && bytes.Contains(data, []byte(c)) {
				names = append(names, filepath.Base(path)+" "+c)
			}
		}
		return nil //nolint:nilerr // as above
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestForgetCustomer takes a customer through both tiers and has it forgotten. From then on everything about it is
// refused, also after a restart, and no file of the node has its ids, devices or titles.
func TestForgetCustomer(t *testing.T) {
	c, _ := agedConfig(t)
	n := start(t, c)
	if _, err := acquire(t, n, "other"); err != nil {
		t.Fatal(err)
	}
	for i := range 60 {
		if err := acquireCanary(t.Context(), n, fmt.Sprint("c", i)); err != nil {
			t.Fatal(err)
		}
		if i%10 == 9 {
			if _, err := admin(n).PassivateCustomer(t.Context(),
				connect.NewRequest(&licensedv1.PassivateCustomerRequest{CustomerId: canaries[0]})); err != nil {
				t.Fatal(err)
			}
		}
	}
	records := recordsOf(t, n, canaries[0])
	if _, err := admin(n).ArchiveCustomer(t.Context(),
		connect.NewRequest(&licensedv1.ArchiveCustomerRequest{CustomerId: canaries[0], All: true})); err != nil {
		t.Fatal(err)
	}
	if err := acquireCanary(t.Context(), n, "last"); err != nil {
		t.Fatal(err)
	}
	if names := filesWithCanaries(t, c.Data); len(names) == 0 {
		t.Fatal("the canaries are in no file: this test shows nothing")
	}
	receipt, err := forget(t.Context(), admin(n), canaries[0])
	if err != nil || receipt.Before || receipt.Events == 0 || receipt.Roots == 0 || receipt.Segments == 0 ||
		len(receipt.Remains) == 0 {
		t.Fatalf("forget: %v, %v", receipt, err)
	}
	wantForgotten(t, n, records)
	if again, err := forget(t.Context(), admin(n), canaries[0]); err != nil || !again.Before || again.Events != 0 ||
		again.Roots != 0 || again.Segments != 0 || again.Tombstone != receipt.Tombstone {
		t.Errorf("forget again: %v, %v", again, err)
	}
	// The lists of tables have first and last keys until they are written anew, as the receipt says.
	lists := func(names []string) (others []string) {
		for _, name := range names {
			if !strings.HasPrefix(name, "MANIFEST") {
				others = append(others, name)
			}
		}
		return others
	}
	until(func() bool { return len(lists(filesWithCanaries(t, c.Data))) == 0 })
	for range 3 {
		if err := n.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		n = start(t, c)
		wantForgotten(t, n, records)
		if names := lists(filesWithCanaries(t, c.Data)); len(names) > 0 {
			t.Errorf("files with canaries: %q", names)
		}
	}
	if names := filesWithCanaries(t, c.Data); len(names) > 0 {
		t.Errorf("files with canaries: %q", names)
	}
}

// TestForgetUnknown: an id without a history, which may be mistyped, is forgotten only if the operator asks for it.
// From then on nobody can use it.
func TestForgetUnknown(t *testing.T) {
	c, _ := agedConfig(t)
	n := start(t, c)
	if r, err := forget(t.Context(), admin(n), canaries[0]); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("an id without a history: %v, %v", r, err)
	}
	if err := acquireCanary(t.Context(), n, "c1"); err != nil {
		t.Errorf("it has a tombstone: %v", err)
	}
	const never = "Never"
	even := func(r *licensedv1.ForgetCustomerRequest) { r.EvenIfUnknown = true }
	for _, before := range []bool{false, true} {
		if r, err := forget(t.Context(), admin(n), never, even); err != nil || r.Before != before || r.Events != 0 {
			t.Errorf("even if unknown: %v, %v", r, err)
		}
	}
	if r, err := forget(t.Context(), admin(n), never); err != nil || !r.Before {
		t.Errorf("again, without saying so: %v, %v", r, err)
	}
	if err := acquireOf(t.Context(), n, never, "c1"); connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("a command of it: %v", err)
	}
}

// TestForgetInCluster: any gateway has the owner forget a customer, the next owner knows of it, and members tell each
// other the time.
func TestForgetInCluster(t *testing.T) {
	c := newCompany(t)
	c.start("n1", node.RoleNode)
	c.start("n2", node.RoleNode)
	g := c.start("g", node.RoleGateway)
	settle(t, admin(g), "n1", "n2")
	if err := acquireOf(t.Context(), g, "Bayley", "a"); err != nil {
		t.Fatal(err)
	}
	for i := range 8 {
		if err := acquireOf(t.Context(), g, fmt.Sprint("c", i), "a"); err != nil {
			t.Fatal(err)
		}
		if r, err := forget(t.Context(), admin(g), fmt.Sprint("c", i)); err != nil || r.Events == 0 {
			t.Fatalf("forget: %v, %v", r, err)
		}
	}
	check := func() {
		t.Helper()
		for i := range 8 {
			err := acquireOf(t.Context(), g, fmt.Sprint("c", i), "b")
			if connect.CodeOf(err) != connect.CodeFailedPrecondition ||
				!strings.Contains(err.Error(), "forgotten on "+time.Now().UTC().Format("2006-01")) {
				t.Errorf("c%d: %v", i, err)
			}
		}
	}
	check()
	if _, err := admin(g).DrainNode(t.Context(),
		connect.NewRequest(&licensedv1.DrainNodeRequest{Name: "n1"})); err != nil {
		t.Fatal(err)
	}
	settle(t, admin(g), "n2")
	check()
	if r, err := forget(t.Context(), admin(g), "c1"); err != nil || !r.Before {
		t.Errorf("forget again: %v, %v", r, err)
	}
	if err := acquireOf(t.Context(), g, "Bayley", "b"); err != nil {
		t.Errorf("another: %v", err)
	}
}
