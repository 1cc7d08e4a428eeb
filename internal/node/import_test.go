package node_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"licensed/internal/node"
	"licensed/messages"
	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
	"licensed/persistence"
	"licensed/persistence/faulty"
	"licensed/persistence/memory"
)

func historyClient(n *node.Node) licensedv1connect.HistoryServiceClient {
	return licensedv1connect.NewHistoryServiceClient(http.DefaultClient, "http://"+n.API().String())
}

func acquireOf(ctx context.Context, n *node.Node, customer, command string) error {
	_, err := client(n).AcquireLicense(ctx, connect.NewRequest(&licensedv1.AcquireLicenseRequest{
		CustomerId: customer, DeviceId: "iphone", TitleId: "GlowS01E01", CommandId: command,
	}))
	return err
}

// recordsOf exports a customer.
func recordsOf(t testing.TB, n *node.Node, customer string) (records [][]byte) {
	t.Helper()
	stream, err := historyClient(n).ListEvents(t.Context(),
		connect.NewRequest(&licensedv1.ListEventsRequest{CustomerId: customer, IncludeRecord: true}))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	for stream.Receive() {
		for _, i := range stream.Msg().Items {
			records = append(records, i.GetEvent().GetRecord())
		}
	}
	if err := stream.Err(); err != nil {
		t.Fatal(err)
	}
	return records
}

// TestImportRepeated moves customers to another node while the replies to their imports' writes are lost. The
// router sends those stretches again, to a node that finds them recorded.
func TestImportRepeated(t *testing.T) {
	store := faulty.New(memory.New(), nil)
	c := newCompany(t)
	c.store = store
	c.start("n1", node.RoleNode)
	c.start("n2", node.RoleNode)
	g := c.start("g", node.RoleGateway)
	settle(t, admin(g), "n1", "n2")
	if err := acquireOf(t.Context(), g, "Bayley", "a"); err != nil {
		t.Fatal(err)
	}
	records := recordsOf(t, g, "Bayley")

	copies := []string{"copy-5", "copy-6"} // n1 has them; an address may have two imports in progress
	var lose atomic.Bool
	lose.Store(true)
	var mu sync.Mutex
	written := map[string]bool{}
	store.SetScript(func(c faulty.Call) faulty.Fault {
		if c.Op == faulty.Append && strings.HasPrefix(c.Key, "copy") && lose.Load() {
			mu.Lock()
			written[c.Key] = true
			mu.Unlock()
			return faulty.Fault{Kind: faulty.LoseReply}
		}
		return faulty.Fault{}
	})
	results := make(chan error, len(copies))
	for _, id := range copies {
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			res, err := admin(g).ImportCustomer(ctx, connect.NewRequest(&licensedv1.ImportCustomerRequest{
				CustomerId: id, Records: records, Last: true,
			}))
			if err == nil && res.Msg.Imported+res.Msg.Present != uint64(len(records)) {
				err = fmt.Errorf("%s: imported %v", id, res.Msg)
			}
			results <- err
		}()
	}
	until(func() bool { mu.Lock(); defer mu.Unlock(); return len(written) == len(copies) })
	if _, err := admin(g).DrainNode(t.Context(),
		connect.NewRequest(&licensedv1.DrainNodeRequest{Name: "n1"})); err != nil {
		t.Fatal(err)
	}
	settle(t, admin(g), "n2")
	lose.Store(false)
	for range copies {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	for _, id := range copies {
		if err := acquireOf(t.Context(), g, id, "b"); err != nil {
			t.Errorf("a command after the import of %s: %v", id, err)
		}
	}
}

// FuzzImport imports a history of which one record was changed in any way that leaves its checksum right. It is
// refused, and leaves the customer as it was; or it is accepted, and everything can be asked of the customer then.
func FuzzImport(f *testing.F) {
	c, _ := configOf(f)
	n := start(f, c)
	if err := acquireOf(f.Context(), n, "Bayley", "a"); err != nil {
		f.Fatal(err)
	}
	var sound []persistence.Record
	for _, b := range recordsOf(f, n, "Bayley") {
		r, err := persistence.DecodeRecord(b)
		if err != nil {
			f.Fatal(err)
		}
		sound = append(sound, r)
	}
	for _, mapper := range messages.EventMappers() {
		f.Add(uint8(2), "c", "iphone/GlowS01E01", mapper, "p", uint64(1), int64(0), int64(0), sound[2].Data)
		f.Add(uint8(0), "c\x00", "customer", mapper, "\xff", uint64(1<<63), int64(1)<<62, int64(-1)<<62,
			[]byte("\x0a\x03a/b"))
	}
	f.Add(uint8(2), "c", "a/b/c", "LicenseAcquired/1", "p", uint64(0), int64(0), int64(0), []byte{})
	f.Add(uint8(2), "c", "iphone/x", "LicenseAcquired/1", "p", uint64(0), int64(0), int64(0),
		[]byte("\x10\xff\xff\xff\xff\xff\xff\xff\xff\x7f"))
	var runs atomic.Int64
	f.Fuzz(func(
		t *testing.T, at uint8, command, about, mapper, version string, order uint64, time, issued int64, data []byte,
	) {
		customer := fmt.Sprint("copy-", runs.Add(1))
		var records [][]byte
		for i, r := range sound {
			if i == int(at)%len(sound) {
				r.CommandID = command
				r.AggregateID = about
				r.Mapper = mapper
				r.Header.PolicyVersion = version
				r.Order = order
				r.Data = data
				r.Time, r.IssuedAt = r.Time.Add(asDuration(time)), r.IssuedAt.Add(asDuration(issued))
			}
			records = append(records, persistence.AppendRecord(nil, &r))
		}
		_, err := admin(n).ImportCustomer(t.Context(),
			connect.NewRequest(&licensedv1.ImportCustomerRequest{CustomerId: customer, Records: records, Last: true}))
		if err != nil && connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Fatalf("import: %v", err)
		}
		asksAll(t, n, customer, err == nil)
	})
}

// asDuration keeps arbitrary numbers, as milliseconds, within what a time can be moved by.
func asDuration(ms int64) time.Duration {
	return time.Duration(ms%(1<<43)) * time.Millisecond
}

// asksAll asks everything of a customer that was imported, or was not.
func asksAll(t *testing.T, n *node.Node, customer string, imported bool) {
	t.Helper()
	if err := acquireOf(t.Context(), n, customer, "after"); err != nil &&
		connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("a command: %v", err) // it may be refused by the rules
	}
	if !imported {
		return
	}
	if _, err := client(n).ListLicenses(t.Context(),
		connect.NewRequest(&licensedv1.ListLicensesRequest{CustomerId: customer, IncludeInactive: true})); err != nil {
		t.Errorf("licences: %v", err)
	}
	if _, err := client(n).ListDevices(t.Context(),
		connect.NewRequest(&licensedv1.ListDevicesRequest{CustomerId: customer})); err != nil {
		t.Errorf("devices: %v", err)
	}
	if _, err := historyClient(n).Why(t.Context(), connect.NewRequest(&licensedv1.WhyRequest{
		CustomerId: customer, DeviceId: "iphone", TitleId: "GlowS01E01",
	})); err != nil {
		t.Errorf("why: %v", err)
	}
	recordsOf(t, n, customer)
	// By JSON too, which has fewer values for times.
	url := "http://" + n.API().String()
	j := licensedv1connect.NewLicenseServiceClient(http.DefaultClient, url, connect.WithProtoJSON())
	if _, err := j.ListLicenses(t.Context(),
		connect.NewRequest(&licensedv1.ListLicensesRequest{CustomerId: customer, IncludeInactive: true})); err != nil {
		t.Errorf("licences by JSON: %v", err)
	}
	h := licensedv1connect.NewHistoryServiceClient(http.DefaultClient, url, connect.WithProtoJSON())
	events, err := h.ListEvents(t.Context(), connect.NewRequest(&licensedv1.ListEventsRequest{CustomerId: customer}))
	if err != nil {
		t.Fatal(err)
	}
	defer events.Close()
	for events.Receive() {
	}
	if err := events.Err(); err != nil {
		t.Errorf("events by JSON: %v", err)
	}
	v, err := admin(n).VerifyCustomer(t.Context(),
		connect.NewRequest(&licensedv1.VerifyCustomerRequest{CustomerId: customer}))
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	for v.Receive() {
	}
	if err := v.Err(); err != nil {
		t.Errorf("verify: %v", err)
	}
}
