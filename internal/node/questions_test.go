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

// TestQuestionsLeaveNoTrace: questions about nobody make no customer, and questions about one who is loaded for each
// write nothing.
func TestQuestionsLeaveNoTrace(t *testing.T) {
	store := memory.New()
	c := newCompany(t)
	c.store = store
	c.start("n1", node.RoleNode)
	g := c.start("g", node.RoleGateway)
	settle(t, admin(g), "n1")
	ask := func(customer string) {
		t.Helper()
		if _, err := client(g).ListLicenses(t.Context(),
			connect.NewRequest(&licensedv1.ListLicensesRequest{CustomerId: customer})); err != nil {
			t.Fatal(err)
		}
		if _, err := client(g).GetCustomer(t.Context(),
			connect.NewRequest(&licensedv1.GetCustomerRequest{CustomerId: customer})); err != nil {
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
		if _, err := admin(g).PassivateCustomer(t.Context(),
			connect.NewRequest(&licensedv1.PassivateCustomerRequest{CustomerId: "Bayley"})); err != nil {
			t.Fatal(err)
		}
		ask("Bayley")
	}
	if n := roots(); n != before {
		t.Errorf("%d roots before, %d after 100 times loaded for a question", before, n)
	}
}

// TestReadersOfHistoryLoadNobody: to verify and export a customer who is not in memory, and to read what was, loads
// nobody and writes nothing.
func TestReadersOfHistoryLoadNobody(t *testing.T) {
	store := memory.New()
	c := newCompany(t)
	c.store = store
	n := c.start("n1", node.RoleNode)
	g := c.start("g", node.RoleGateway)
	settle(t, admin(g), "n1")
	for i := range 25 {
		if err := acquireOf(t.Context(), g, "Bayley", fmt.Sprint("c", i)); err != nil {
			t.Fatal(err)
		}
	}
	count := func() (roots int, resident int64) {
		t.Helper()
		all, err := store.ReadRoots(t.Context(), "Bayley:LicenseAggregate", persistence.RootKey{}, 1000)
		if err != nil {
			t.Fatal(err)
		}
		return len(all), n.InMemory()
	}
	if report := verifyOf(t, g); !report.LiveStateCompared {
		t.Error("the live state of a customer in memory was not compared")
	}
	before, _ := count()
	for range 100 {
		if _, err := admin(g).PassivateCustomer(t.Context(),
			connect.NewRequest(&licensedv1.PassivateCustomerRequest{CustomerId: "Bayley"})); err != nil {
			t.Fatal(err)
		}
		if report := verifyOf(t, g); report.LiveStateCompared || len(report.Findings) > 0 ||
			report.Events != report.HeadSequence {
			t.Fatalf("report %v", report)
		}
		stream, err := historyClient(g).ListEvents(t.Context(),
			connect.NewRequest(&licensedv1.ListEventsRequest{CustomerId: "Bayley"}))
		if err != nil {
			t.Fatal(err)
		}
		for stream.Receive() {
		}
		if err := stream.Err(); err != nil {
			t.Fatal(err)
		}
		at := &licensedv1.GetStateRequest_Sequence{Sequence: 9}
		if _, err := historyClient(g).GetState(t.Context(),
			connect.NewRequest(&licensedv1.GetStateRequest{CustomerId: "Bayley", At: at})); err != nil {
			t.Fatal(err)
		}
		if _, err := historyClient(g).Why(
			t.Context(),
			connect.NewRequest(&licensedv1.WhyRequest{CustomerId: "Bayley", DeviceId: "iphone", TitleId: "c1"}),
		); err != nil {
			t.Fatal(err)
		}
		if roots, resident := count(); roots != before || resident != 0 {
			t.Fatalf("%d roots, before %d; %d customers in memory", roots, before, resident)
		}
	}
}
