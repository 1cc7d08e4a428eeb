package node_test

import (
	"fmt"
	"testing"

	"connectrpc.com/connect"

	"licensed/internal/node"
	"licensed/messages/licensedv1"
	"licensed/persistence"
	"licensed/persistence/memory"
)

// TestQuestionsLeaveNoTrace: questions about nobody make no customer, and questions about one who is loaded for each write nothing.
func TestQuestionsLeaveNoTrace(t *testing.T) {
	store := memory.New()
	c := newCompany(t)
	c.store = store
	c.start("n1", node.RoleNode)
	g := c.start("g", node.RoleGateway)
	settle(t, admin(g), "n1")
	ask := func(customer string) {
		t.Helper()
		if _, err := client(g).ListLicenses(t.Context(), connect.NewRequest(&licensedv1.ListLicensesRequest{CustomerId: customer})); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 200 {
		ask(fmt.Sprint("nobody-", i))
	}
	res, err := admin(g).ListCustomers(t.Context(), connect.NewRequest(&licensedv1.ListCustomersRequest{Limit: 1000}))
	if err != nil || len(res.Msg.CustomerIds) > 0 {
		t.Errorf("listed after questions about nobody: %v, %v", res.Msg.GetCustomerIds(), err)
	}
	for i := range 25 {
		if err := acquireOf(t.Context(), g, "Bayley", fmt.Sprint("c", i)); err != nil {
			t.Fatal(err)
		}
	}
	roots := func() int {
		all, err := store.ReadRoots(t.Context(), "Bayley:LicenseAggregate", persistence.RootKey{}, 1000)
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	before := roots()
	for range 100 {
		if _, err := admin(g).PassivateCustomer(t.Context(), connect.NewRequest(&licensedv1.PassivateCustomerRequest{CustomerId: "Bayley"})); err != nil {
			t.Fatal(err)
		}
		ask("Bayley")
	}
	if n := roots(); n != before {
		t.Errorf("%d roots before, %d after 100 times loaded for a question", before, n)
	}
}
