package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"licensed/actors"
	"licensed/gateway"
	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
	"licensed/persistence"
)

// reasonOf returns the reason in an error of the API.
func reasonOf(err error) string {
	var e *connect.Error
	if !errors.As(err, &e) {
		return ""
	}
	for _, d := range e.Details() {
		if v, err := d.Value(); err == nil {
			if info, ok := v.(*errdetails.ErrorInfo); ok {
				return info.Reason
			}
		}
	}
	return ""
}

// The rest of past implements gateway.Operations.

func (p *past) Node(context.Context) (*licensedv1.GetNodeResponse, error) {
	return &licensedv1.GetNodeResponse{Name: "here"}, p.fails
}

func (p *past) Cluster(context.Context) (*licensedv1.ClusterStatus, error) {
	return &licensedv1.ClusterStatus{Name: "test"}, p.fails
}

func (p *past) Undrain(ctx context.Context, name string) error { return p.Drain(ctx, name) }

func (p *past) Drain(_ context.Context, name string) error {
	switch name {
	case "alone":
		return gateway.ErrUnsupported
	case "stranger":
		return fmt.Errorf("drain: %w", gateway.ErrNoMember)
	case "gateway":
		return fmt.Errorf("drain: %w", gateway.ErrHoldsNothing)
	}
	return p.fails
}

func (p *past) Customers(_ context.Context, after string, limit int) ([]string, error) {
	var ids []string
	for id := range p.records {
		if id > after {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids[:min(limit, len(ids))], p.fails
}

func (p *past) Passivate(_ context.Context, customer string) (resident, left bool, err error) {
	return customer != "Absent", customer != "Busy", p.fails
}

func (p *past) Archive(_ context.Context, _ string, all bool) (*licensedv1.ArchiveCustomerResponse, error) {
	if !all {
		return nil, gateway.ErrUnsupported
	}
	return &licensedv1.ArchiveCustomerResponse{Events: 7}, p.fails
}

func (p *past) Forget(_ context.Context, customer string, unknown bool) (*licensedv1.ForgetCustomerResponse, error) {
	if customer == "Unknown" && !unknown {
		return nil, persistence.ErrNotFound
	}
	if customer == "Absent" {
		return nil, &persistence.ForgottenError{At: time.UnixMilli(1_700_000_000_000)}
	}
	return &licensedv1.ForgetCustomerResponse{Events: 9}, p.fails
}

func (p *past) Verify(
	_ context.Context, customer string, _ bool, progress func(checked, total uint64) error,
) (*licensedv1.CustomerReport, error) {
	if p.reports[customer] == nil {
		return nil, fmt.Errorf("%s: %w", customer, persistence.ErrNotFound)
	}
	if err := progress(5, 15); err != nil {
		return nil, err
	}
	return p.reports[customer], p.fails
}

func (p *past) Import(_ context.Context, customer string, i actors.Import) (persistence.Head, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.imports = append(p.imports, i)
	if p.fails != nil {
		return persistence.Head{}, p.fails
	}
	p.records[customer] = append(p.records[customer], i.Records...)
	return persistence.Head{Sequence: uint64(len(p.records[customer]))}, nil
}

func (p *past) ReloadPolicy(context.Context) (string, bool, error) {
	return "v7", p.fails == nil, p.fails
}

func adminOf(r *rig) licensedv1connect.AdminServiceClient {
	return licensedv1connect.NewAdminServiceClient(http.DefaultClient, r.url)
}

func TestNodeAndCustomers(t *testing.T) {
	p := newPast(t).life()
	p.give("Robin", acquires("a", "b"))
	a := adminOf(p.start())
	node, err := a.GetNode(t.Context(), connect.NewRequest(&licensedv1.GetNodeRequest{}))
	if err != nil || node.Msg.Name != "here" || node.Msg.State != "ready" {
		t.Errorf("%v, %v", node, err)
	}
	cluster, err := a.GetCluster(t.Context(), connect.NewRequest(&licensedv1.GetClusterRequest{}))
	if err != nil || cluster.Msg.Cluster.GetName() != "test" {
		t.Errorf("%v, %v", cluster, err)
	}
	for name, code := range map[string]connect.Code{
		"n1": 0, "alone": connect.CodeUnimplemented, "stranger": connect.CodeNotFound,
		"gateway": connect.CodeFailedPrecondition, "": connect.CodeInvalidArgument, "a/b": connect.CodeInvalidArgument,
	} {
		_, err := a.DrainNode(t.Context(), connect.NewRequest(&licensedv1.DrainNodeRequest{Name: name}))
		if (err == nil) != (code == 0) || err != nil && connect.CodeOf(err) != code {
			t.Errorf("drain %q: %v, want %v", name, err, code)
		}
		_, err = a.UndrainNode(t.Context(), connect.NewRequest(&licensedv1.UndrainNodeRequest{Name: name}))
		if (err == nil) != (code == 0) || err != nil && connect.CodeOf(err) != code {
			t.Errorf("undrain %q: %v, want %v", name, err, code)
		}
	}
	var all []string
	for after := ""; ; {
		page, err := a.ListCustomers(t.Context(),
			connect.NewRequest(&licensedv1.ListCustomersRequest{After: after, Limit: 1}))
		if err != nil {
			t.Fatal(err)
		}
		if len(page.Msg.CustomerIds) == 0 {
			break
		}
		all = append(all, page.Msg.CustomerIds...)
		after = all[len(all)-1]
	}
	if !slices.Equal(all, []string{"Bayley", "Robin"}) {
		t.Errorf("customers %v", all)
	}
	if _, err := a.ListCustomers(
		t.Context(), connect.NewRequest(&licensedv1.ListCustomersRequest{PageToken: "?"}),
	); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("too many: %v", err)
	}
	p.fails = persistence.ErrUnavailable
	if _, err := a.ListCustomers(t.Context(),
		connect.NewRequest(&licensedv1.ListCustomersRequest{})); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("no store: %v", err)
	}
	if _, err := a.GetNode(t.Context(),
		connect.NewRequest(&licensedv1.GetNodeRequest{})); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("no store: %v", err)
	}
}

func TestPassivateArchiveReload(t *testing.T) {
	p := newPast(t)
	a := adminOf(p.start())
	for id, want := range map[string][2]bool{"Bayley": {true, false}, "Absent": {false, false}, "Busy": {false, true}} {
		res, err := a.PassivateCustomer(t.Context(),
			connect.NewRequest(&licensedv1.PassivateCustomerRequest{CustomerId: id}))
		if err != nil || res.Msg.Passivated != want[0] || res.Msg.Busy != want[1] {
			t.Errorf("%s: %v, %v", id, res, err)
		}
	}
	archived, err := a.ArchiveCustomer(t.Context(),
		connect.NewRequest(&licensedv1.ArchiveCustomerRequest{CustomerId: "Bayley", All: true}))
	if err != nil || archived.Msg.Events != 7 {
		t.Errorf("archive: %v, %v", archived, err)
	}
	_, err = a.ArchiveCustomer(t.Context(),
		connect.NewRequest(&licensedv1.ArchiveCustomerRequest{CustomerId: "Bayley"}))
	if connect.CodeOf(err) != connect.CodeUnimplemented || reasonOf(err) != licensedv1.ReasonUnsupported {
		t.Errorf("no archive: %v", err)
	}
	forget := func(id, reason string) (*connect.Response[licensedv1.ForgetCustomerResponse], error) {
		r := connect.NewRequest(&licensedv1.ForgetCustomerRequest{CustomerId: id})
		r.Header().Set("Licensed-Reason", reason)
		return a.ForgetCustomer(t.Context(), r)
	}
	if _, err := forget("Unknown", "x"); connect.CodeOf(err) != connect.CodeNotFound ||
		reasonOf(err) != licensedv1.ReasonNoHistory || !strings.Contains(err.Error(), "even_if_unknown") {
		t.Errorf("an id without a history: %v", err)
	}
	if res, err := forget("Bayley", "request%204711"); err != nil || res.Msg.Events != 9 {
		t.Errorf("forget: %v, %v", res, err)
	}
	if _, err := forget("Bayley", ""); connect.CodeOf(err) != connect.CodePermissionDenied ||
		reasonOf(err) != licensedv1.ReasonNoReason {
		t.Errorf("forget without a reason: %v", err)
	}
	if _, err := forget("Absent", "x"); connect.CodeOf(err) != connect.CodeFailedPrecondition ||
		reasonOf(err) != licensedv1.ReasonForgotten || !strings.Contains(err.Error(), "2023-11-14") {
		t.Errorf("an error that says forgotten: %v", err)
	}
	for id, call := range map[string]func() error{
		"forget": func() error { _, err := forget("a/b", "x"); return err },
		"passivate": func() error {
			_, err := a.PassivateCustomer(t.Context(),
				connect.NewRequest(&licensedv1.PassivateCustomerRequest{CustomerId: "a/b"}))
			return err
		},
		"archive": func() error {
			_, err := a.ArchiveCustomer(t.Context(), connect.NewRequest(&licensedv1.ArchiveCustomerRequest{}))
			return err
		},
	} {
		if err := call(); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("%s: %v", id, err)
		}
	}
	reload := func() (*connect.Response[licensedv1.ReloadPolicyResponse], error) {
		return a.ReloadPolicy(t.Context(), connect.NewRequest(&licensedv1.ReloadPolicyRequest{}))
	}
	if res, err := reload(); err != nil || res.Msg.PolicyVersion != "v7" || !res.Msg.Changed {
		t.Errorf("reload: %v, %v", res, err)
	}
	p.fails = errors.New("policy.yaml:7: plans: what is that?")
	if _, err := reload(); connect.CodeOf(err) != connect.CodeFailedPrecondition ||
		!strings.Contains(err.Error(), "policy.yaml:7") || !strings.Contains(err.Error(), "v7 stays in force") {
		t.Errorf("a file with mistakes: %v", err)
	}
	p.fails = gateway.ErrUnsupported
	if _, err := reload(); connect.CodeOf(err) != connect.CodeUnimplemented {
		t.Errorf("no file: %v", err)
	}
}

func TestVerify(t *testing.T) {
	p := newPast(t).life()
	p.reports["Bayley"] = &licensedv1.CustomerReport{CustomerId: "Bayley", Events: 15, HeadSequence: 15}
	a := adminOf(p.start())
	verify := func(id string) (messages []*licensedv1.VerifyCustomerResponse, err error) {
		stream, err := a.VerifyCustomer(t.Context(),
			connect.NewRequest(&licensedv1.VerifyCustomerRequest{CustomerId: id}))
		if err != nil {
			return nil, err
		}
		defer stream.Close()
		for stream.Receive() {
			messages = append(messages, stream.Msg())
		}
		return messages, stream.Err()
	}
	got, err := verify("Bayley")
	if err != nil || len(got) != 2 || got[0].CheckedEvents != 5 || got[0].Report != nil ||
		got[1].Report.GetEvents() != 15 {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := verify("Nobody"); connect.CodeOf(err) != connect.CodeNotFound ||
		reasonOf(err) != licensedv1.ReasonNoHistory {
		t.Errorf("nobody: %v", err)
	}
	if _, err := verify(""); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("no id: %v", err)
	}
	p.fails = actors.ErrNotOwner
	if _, err := verify("Bayley"); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("no owner: %v", err)
	}
}

// encoded returns records as ListEvents gives them.
func encoded(records []persistence.Record) (out [][]byte) {
	for i := range records {
		out = append(out, persistence.AppendRecord(nil, &records[i]))
	}
	return out
}

func TestImport(t *testing.T) {
	source := newPast(t).life()
	all := source.records["Bayley"]
	p := newPast(t)
	a := adminOf(p.start())
	send := func(records []persistence.Record, last bool) (*licensedv1.ImportCustomerResponse, error) {
		res, err := a.ImportCustomer(t.Context(), connect.NewRequest(&licensedv1.ImportCustomerRequest{
			CustomerId: "Bayley", Records: encoded(records), Last: last,
		}))
		if err != nil {
			return nil, err
		}
		return res.Msg, nil
	}
	wants := func(res *licensedv1.ImportCustomerResponse, err error, sequence, imported, present uint64) {
		t.Helper()
		if err != nil || res.Sequence != sequence || res.Imported != imported || res.Present != present {
			t.Errorf("%v, %v, want %d, %d, %d", res, err, sequence, imported, present)
		}
	}
	res, err := send(all[:4], false)
	wants(res, err, 4, 4, 0)
	res, err = send(all[:5], false) // a repeat, and more
	wants(res, err, 5, 1, 4)
	if _, err := send(all[6:7], false); connect.CodeOf(err) != connect.CodeFailedPrecondition ||
		!strings.Contains(err.Error(), "ends at event 5") {
		t.Errorf("a hole: %v", err)
	}
	res, err = send(all[5:], true)
	wants(res, err, 15, 10, 0)
	if end := p.imports[len(p.imports)-1]; !end.End || end.After != 15 {
		t.Errorf("the end: %+v", end)
	}
	res, err = send(all, true)
	wants(res, err, 15, 0, 15)
	other := slices.Clone(all)
	other[9].CommandID = "other"
	if _, err := send(other, false); connect.CodeOf(err) != connect.CodeFailedPrecondition ||
		reasonOf(err) != licensedv1.ReasonOtherHistory || !strings.Contains(err.Error(), "another event 10") {
		t.Errorf("another history: %v", err)
	}
	if !slices.EqualFunc(p.records["Bayley"], all, func(a, b persistence.Record) bool {
		return string(persistence.AppendRecord(nil, &a)) == string(persistence.AppendRecord(nil, &b))
	}) {
		t.Error("what was imported is not what was sent")
	}
	p.gaps = []*persistence.HistoryGap{corrupt}
	if _, err := send(all, false); reasonOf(err) != licensedv1.ReasonOtherHistory ||
		!strings.Contains(err.Error(), "cannot be compared") {
		t.Errorf("a gap: %v", err)
	}
	p.gaps = nil
	// It continues living; the import is a part of its history.
	p.mu.Lock()
	p.records["Bayley"] = append(p.records["Bayley"],
		persistence.Record{Sequence: 16, Count: 1, CommandID: "new", Mapper: "DeviceActivated/1", Time: noon})
	p.mu.Unlock()
	res, err = send(all, true)
	wants(res, err, 16, 0, 15)
}

func TestImportErrors(t *testing.T) {
	all := newPast(t).life().records["Bayley"]
	p := newPast(t)
	a := adminOf(p.start())
	broken := encoded(all)
	broken[3][5] ^= 1
	for _, c := range []struct {
		name    string
		records [][]byte
		fails   error
		code    connect.Code
		says    string
	}{
		{"a broken record", broken, nil, connect.CodeInvalidArgument, "records[3]"},
		{"no record", [][]byte{nil}, nil, connect.CodeInvalidArgument, "records[0]"},
		{"out of order", encoded([]persistence.Record{all[0], all[2]}), nil, connect.CodeInvalidArgument,
			"records[1] is event 3, after event 1"},
		{"no history", encoded(all), actors.ErrNoHistory, connect.CodeInvalidArgument, "no history"},
		{"complete", encoded(all), actors.ErrNotContinued, connect.CodeFailedPrecondition, "nothing was overwritten"},
		{"no owner", encoded(all), actors.ErrNotOwner, connect.CodeUnavailable, "retry"},
		{"unknown", encoded(all), actors.ErrUnknownOutcome, connect.CodeUnavailable, "outcome unknown"},
	} {
		p.fails = c.fails
		_, err := a.ImportCustomer(t.Context(),
			connect.NewRequest(&licensedv1.ImportCustomerRequest{CustomerId: "Bayley", Records: c.records}))
		if connect.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	// Stretches are of whole commands and not too long.
	p.fails, p.imports = nil, nil
	long := newPast(t)
	for range 60 {
		long.give("Bayley", acquires("iphone", "a"))
		long.give("Bayley", releases("iphone", "a"))
	}
	records := long.records["Bayley"]
	if _, err := a.ImportCustomer(
		t.Context(),
		connect.NewRequest(&licensedv1.ImportCustomerRequest{CustomerId: "Bayley", Records: encoded(records)}),
	); err != nil {
		t.Fatal(err)
	}
	if len(p.imports) < 2 {
		t.Errorf("%d stretches", len(p.imports))
	}
	for _, i := range p.imports {
		last := i.Records[len(i.Records)-1]
		if len(i.Records) > 110 || i.Records[0].Index != 0 || last.Index+1 != last.Count {
			t.Errorf("a stretch of %d, from %d to %d", len(i.Records), i.Records[0].Sequence, last.Sequence)
		}
	}
}

// followed receives a stream of Follow in the background.
func follow(
	t *testing.T, r *rig, m *licensedv1.FollowRequest, seen chan<- string,
) (ended <-chan error, stop context.CancelFunc) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := historyOf(r).Follow(ctx, connect.NewRequest(m))
	if err != nil {
		t.Fatal(err)
	}
	end := make(chan error, 1)
	go func() {
		defer stream.Close()
		for stream.Receive() {
			for _, i := range stream.Msg().Items {
				if g := i.GetGap(); g != nil {
					seen <- fmt.Sprintf("gap %d-%d", g.FromSequence, g.ToSequence)
				} else {
					seen <- fmt.Sprint(i.GetEvent().Sequence)
				}
			}
			if len(stream.Msg().Items) == 0 {
				seen <- fmt.Sprintf("at %d", stream.Msg().Sequence)
			}
		}
		end <- stream.Err()
	}()
	return end, cancel
}

func wantSeen(t *testing.T, seen <-chan string, want ...string) {
	t.Helper()
	for _, w := range want {
		if got := <-seen; got != w {
			t.Fatalf("got %s, want %s", got, w)
		}
	}
}

func TestFollow(t *testing.T) {
	p := newPast(t).life()
	p.gaps = []*persistence.HistoryGap{corrupt}
	r := p.start(func(c *gateway.Config) { c.FollowPoll = time.Millisecond })
	seen := make(chan string, 100)
	ended, stop := follow(t, r, &licensedv1.FollowRequest{CustomerId: "Bayley"}, seen)
	wantSeen(t, seen, "at 15")
	p.give("Bayley", renews("ipad", "b"))
	wantSeen(t, seen, "16")
	p.give("Bayley", releases("ipad", "b"))
	p.give("Bayley", renews("ipad", "b"))
	wantSeen(t, seen, "17", "18")
	stop()
	if err := <-ended; connect.CodeOf(err) != connect.CodeCanceled {
		t.Errorf("ended with %v", err)
	}
	// From an event on, with a gap on the way, and a filter.
	from := uint64(7)
	_, stop = follow(t, r, &licensedv1.FollowRequest{CustomerId: "Bayley", AfterSequence: &from}, seen)
	wantSeen(t, seen, "at 7", "8", "gap 9-10", "11", "12", "13", "14", "15", "16", "17", "18")
	stop()
	from = 0
	_, stop = follow(t, r, &licensedv1.FollowRequest{CustomerId: "Bayley", AfterSequence: &from, DeviceId: "iphone"},
		seen)
	wantSeen(t, seen, "at 0", "1", "2", "3", "4", "5", "6", "7", "gap 9-10")
	stop()
	// Somebody whose history has not begun.
	_, stop = follow(t, r, &licensedv1.FollowRequest{CustomerId: "Nobody"}, seen)
	wantSeen(t, seen, "at 0")
	p.give("Nobody", acquires("a", "b"))
	wantSeen(t, seen, "1", "2", "3", "4")
	stop()
	from = 99
	ended, stop = follow(t, r, &licensedv1.FollowRequest{CustomerId: "Bayley", AfterSequence: &from}, seen)
	defer stop()
	if err := <-ended; connect.CodeOf(err) != connect.CodeOutOfRange || reasonOf(err) != licensedv1.ReasonPastEnd {
		t.Errorf("past the end: %v", err)
	}
}

// TestFollowIsTold: an append is seen though nobody polls, and only streams of its customer look.
func TestFollowIsTold(t *testing.T) {
	p := newPast(t).life()
	g := gateway.New(historyConfig(p), p)
	p.tell.Store(g)
	r := &rig{url: serve(t, g.Handler(), gateway.DefaultConfig().Logger)}
	seen := make(chan string, 100)
	ended, stop := follow(t, r, &licensedv1.FollowRequest{CustomerId: "Bayley"}, seen)
	defer stop()
	wantSeen(t, seen, "at 15")
	p.give("Robin", acquires("a", "b"))
	for i := range 50 {
		p.give("Bayley", renews("ipad", "b"))
		wantSeen(t, seen, fmt.Sprint(16+i))
	}
	// The node stops: streams end, also those that come now.
	g.EndStreams()
	if err := <-ended; connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("ended with %v", err)
	}
	ended, stop = follow(t, r, &licensedv1.FollowRequest{CustomerId: "Bayley"}, seen)
	defer stop()
	if err := <-ended; connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("ended with %v", err)
	}
	g.EndStreams() // a second time does nothing
}

// historyConfig returns that of a gateway before p, which never polls.
func historyConfig(p *past) gateway.Config {
	c := gateway.DefaultConfig()
	c.HistoryReader, c.Operations, c.Kind, c.FollowPoll = p, p, p.kind, time.Hour
	c.PolicyVersion = func() string { return "test" }
	return c
}

// TestFollowSkipsNothing: what cannot be read now is no gap. The stream waits for it, or ends where it is.
func TestFollowSkipsNothing(t *testing.T) {
	p := newPast(t).life()
	p.gaps = []*persistence.HistoryGap{{After: 8, Through: 10, Err: persistence.ErrUnavailable}}
	r := p.start(func(c *gateway.Config) { c.FollowPoll = time.Millisecond })
	seen := make(chan string, 100)
	from := uint64(7)
	// It never can: the client learns how far it got.
	ended, stop := follow(t, r, &licensedv1.FollowRequest{CustomerId: "Bayley", AfterSequence: &from}, seen)
	defer stop()
	wantSeen(t, seen, "at 7", "8")
	if err := <-ended; connect.CodeOf(err) != connect.CodeUnavailable || reasonOf(err) != licensedv1.ReasonNotExecuted {
		t.Errorf("ended with %v", err)
	}
	// It can later. Readings fail twice before that.
	var reads atomic.Int64
	p.reading = func() {
		if reads.Add(1) > 2 {
			p.gaps = nil
		}
	}
	from = 8
	_, stop = follow(t, r, &licensedv1.FollowRequest{CustomerId: "Bayley", AfterSequence: &from}, seen)
	defer stop()
	wantSeen(t, seen, "at 8", "9", "10", "11", "12", "13", "14", "15")
	if n := reads.Load(); n != 3 {
		t.Errorf("%d readings", n)
	}
}

// TestFollowLosesItsOwner: a stream ends when the owner cannot be asked any more.
func TestFollowLosesItsOwner(t *testing.T) {
	p := newPast(t).life()
	r := p.start(func(c *gateway.Config) { c.FollowPoll = time.Millisecond })
	seen := make(chan string, 100)
	ended, stop := follow(t, r, &licensedv1.FollowRequest{CustomerId: "Bayley"}, seen)
	defer stop()
	wantSeen(t, seen, "at 15")
	p.mu.Lock()
	p.asked = actors.ErrNotOwner
	p.mu.Unlock()
	if err := <-ended; connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("ended with %v", err)
	}
	if n := r.metric(t, "licensed_gateway_followers"); n != "0" {
		t.Errorf("%s followers are left", n)
	}
}

// TestWithoutHistory: a gateway that was given no history has no such services.
func TestWithoutHistory(t *testing.T) {
	r := start(t, failing(nil))
	_, _, err := listed(t, r, &licensedv1.ListEventsRequest{CustomerId: "Bayley"})
	if connect.CodeOf(err) != connect.CodeUnimplemented {
		t.Errorf("%v", err)
	}
}

// TestPanicInStream fails that call alone.
func TestPanicInStream(t *testing.T) {
	p := newPast(t).life()
	p.kind = nil
	r := start(t, p, func(c *gateway.Config) { c.HistoryReader, c.Operations = p, p })
	_, _, err := listed(t, r, &licensedv1.ListEventsRequest{CustomerId: "Bayley"})
	if connect.CodeOf(err) != connect.CodeInternal || !strings.Contains(r.logged(), "panic") {
		t.Errorf("%v; log %s", err, r.logged())
	}
	if _, err := adminOf(r).GetNode(t.Context(), connect.NewRequest(&licensedv1.GetNodeRequest{})); err != nil {
		t.Errorf("after that: %v", err)
	}
}

// TestOperatorsUnderOverload: while customers are turned away operators are not, unless they are many themselves.
func TestOperatorsUnderOverload(t *testing.T) {
	const operators = 3
	p, entered, leave := newPast(t).life(), make(chan struct{}), make(chan struct{})
	r := start(t, p, func(c *gateway.Config) {
		c.HistoryReader, c.Kind, c.PolicyVersion = p, p.kind, func() string { return "test" }
		c.MaxStreams, c.MaxOperators, c.AddressShare = 1, operators, 1
		c.Operations = verifier{p, func(context.Context, func(checked, total uint64) error) error {
			entered <- struct{}{}
			<-leave
			return nil
		}}
	})
	var verifications sync.WaitGroup
	verify := func() {
		verifications.Go(func() {
			stream, err := adminOf(r).VerifyCustomer(t.Context(),
				connect.NewRequest(&licensedv1.VerifyCustomerRequest{CustomerId: "Bayley"}))
			if err != nil {
				t.Error(err)
				return
			}
			for stream.Receive() {
			}
			if err := errors.Join(stream.Err(), stream.Close()); err != nil {
				t.Error(err)
			}
		})
		<-entered
	}
	look := func() error {
		_, err := adminOf(r).GetNode(t.Context(), connect.NewRequest(&licensedv1.GetNodeRequest{}))
		return err
	}
	followed := following(t, r)
	if _, _, err := listed(t, r,
		&licensedv1.ListEventsRequest{CustomerId: "Bayley"}); reasonOf(err) != licensedv1.ReasonOverloaded {
		t.Errorf("a customer's request: %v", err)
	}
	if err := look(); err != nil {
		close(leave)
		t.Fatalf("an operator's request: %v", err)
	}
	for range operators {
		verify()
	}
	if err := look(); reasonOf(err) != licensedv1.ReasonOverloaded {
		t.Errorf("an operator's request beside many: %v", err)
	}
	close(leave)
	verifications.Wait()
	_ = followed.Close()
	if err := look(); err != nil {
		t.Errorf("after that: %v", err)
	}
	for r.metric(t, "licensed_gateway_requests_in_flight") != "0" { // A stream ends before its handler does.
		time.Sleep(time.Millisecond)
	}
}

// following opens a stream that follows a customer, and returns once it is open.
func following(t *testing.T, r *rig) *connect.ServerStreamForClient[licensedv1.FollowResponse] {
	t.Helper()
	stream, err := historyOf(r).Follow(t.Context(), connect.NewRequest(&licensedv1.FollowRequest{CustomerId: "Bayley"}))
	if err != nil || !stream.Receive() {
		t.Fatalf("follow: %v, %v", err, stream.Err())
	}
	return stream
}
