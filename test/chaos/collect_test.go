package chaos

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
	"licensed/test/chaos/check"
	"licensed/test/chaos/client"
	"licensed/test/chaos/deploy"
	"licensed/test/chaos/model"
)

// stored is a gateway of a service that has one customer with two events.
type stored struct {
	licensedv1connect.UnimplementedLicenseServiceHandler
	licensedv1connect.UnimplementedHistoryServiceHandler
	licensedv1connect.UnimplementedAdminServiceHandler

	report    *licensedv1.CustomerReport
	noArchive bool
	policy    string
	// answer is what it answers commands with, an error; accepted if it is nil.
	answer func() error
	// changes says that archiving changes what an event says.
	changes  bool
	archived bool
}

// whole is the report on its customer.
func whole() *licensedv1.CustomerReport {
	return &licensedv1.CustomerReport{HeadSequence: 2, Events: 2, LiveStateCompared: true}
}

func (s *stored) ListEvents(
	_ context.Context, _ *connect.Request[licensedv1.ListEventsRequest],
	stream *connect.ServerStream[licensedv1.ListEventsResponse],
) error {
	res := &licensedv1.ListEventsResponse{End: &licensedv1.HistoryEnd{HeadSequence: 2}}
	for i, plan := range []string{"one", "two"} {
		if s.archived && s.changes {
			plan = "three"
		}
		data, err := anypb.New(&licensedv1.PlanChanged{PlanId: plan})
		if err != nil {
			return err
		}
		e := &licensedv1.HistoryEvent{
			Sequence:  uint64(i) + 1,
			Event:     "PlanChanged",
			EventTime: &timestamppb.Timestamp{Seconds: int64(i)},
			Data:      data,
		}
		if s.archived {
			e.Tier = licensedv1.Tier_TIER_ARCHIVE
		}
		res.Items = append(res.Items, &licensedv1.HistoryItem{Item: &licensedv1.HistoryItem_Event{Event: e}})
	}
	return stream.Send(res)
}

func (s *stored) ArchiveCustomer(
	context.Context, *connect.Request[licensedv1.ArchiveCustomerRequest],
) (*connect.Response[licensedv1.ArchiveCustomerResponse], error) {
	if s.noArchive {
		return nil, connect.NewError(connect.CodeUnimplemented, errors.New("no archive"))
	}
	s.archived = true
	return connect.NewResponse(&licensedv1.ArchiveCustomerResponse{}), nil
}

func (s *stored) VerifyCustomer(
	_ context.Context, _ *connect.Request[licensedv1.VerifyCustomerRequest],
	stream *connect.ServerStream[licensedv1.VerifyCustomerResponse],
) error {
	return stream.Send(&licensedv1.VerifyCustomerResponse{Report: s.report})
}

func (s *stored) ListLicenses(
	context.Context, *connect.Request[licensedv1.ListLicensesRequest],
) (*connect.Response[licensedv1.ListLicensesResponse], error) {
	return connect.NewResponse(&licensedv1.ListLicensesResponse{Sequence: 2}), nil
}

func (s *stored) ListDevices(
	context.Context, *connect.Request[licensedv1.ListDevicesRequest],
) (*connect.Response[licensedv1.ListDevicesResponse], error) {
	return connect.NewResponse(&licensedv1.ListDevicesResponse{Sequence: 2}), nil
}

func (s *stored) ListDownloads(
	context.Context, *connect.Request[licensedv1.ListDownloadsRequest],
) (*connect.Response[licensedv1.ListDownloadsResponse], error) {
	return connect.NewResponse(&licensedv1.ListDownloadsResponse{Sequence: 2}), nil
}

// ChangePlan is the only command that it knows.
func (s *stored) ChangePlan(
	context.Context, *connect.Request[licensedv1.ChangePlanRequest],
) (*connect.Response[licensedv1.ChangePlanResponse], error) {
	if s.answer == nil {
		return connect.NewResponse(&licensedv1.ChangePlanResponse{Sequence: 1, PlanId: "one"}), nil
	}
	return nil, s.answer()
}

func (s *stored) GetNode(
	context.Context, *connect.Request[licensedv1.GetNodeRequest],
) (*connect.Response[licensedv1.GetNodeResponse], error) {
	return connect.NewResponse(&licensedv1.GetNodeResponse{PolicyVersion: s.policy}), nil
}

// serve returns its URL.
func (s *stored) serve(t *testing.T) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(licensedv1connect.NewLicenseServiceHandler(s))
	mux.Handle(licensedv1connect.NewHistoryServiceHandler(s))
	mux.Handle(licensedv1connect.NewAdminServiceHandler(s))
	server := httptest.NewUnstartedServer(mux)
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(server.Close)
	return server.URL
}

// client returns a client of it.
func (s *stored) client(t *testing.T) *client.Client {
	t.Helper()
	c, err := client.New(s.serve(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestCollectCustomer takes nothing for checked that was not.
func TestCollectCustomer(t *testing.T) {
	for _, c := range []struct {
		name     string
		spoil    func(*stored)
		attached bool
		says     string // by a violation; none if it is empty
		notes    int
	}{
		{name: "as it should be", spoil: func(*stored) {}},
		{
			name:  "archiving changes what an event says",
			spoil: func(s *stored) { s.changes = true },
			says:  "archiving changed",
		},
		{
			name:  "the live state was not compared",
			spoil: func(s *stored) { s.report.LiveStateCompared = false },
			says:  "live state",
		},
		{name: "an event was not read", spoil: func(s *stored) { s.report.Events = 1 }, says: "1 of 2 events"},
		{name: "another history was read", spoil: func(s *stored) {
			s.report.Events = 1
			s.report.HeadSequence = 1
		}, says: "the history has 2"},
		{name: "no archive", spoil: func(s *stored) { s.noArchive = true }, says: "no archive"},
		{name: "no archive, and not ours", spoil: func(s *stored) { s.noArchive = true }, attached: true, notes: 1},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			s := &stored{report: whole()}
			c.spoil(s)
			r := &run{gateways: []*client.Client{s.client(t)}, verdict: new(Verdict)}
			r.Rules.Titles = map[string]model.Title{"A": {}}
			if c.attached {
				r.deployment = new(deploy.Attached)
			}
			for range 2 { // Two customers make one note.
				if _, err := r.customer(t.Context(), "c"); err != nil {
					t.Fatal(err)
				}
				s.archived = false
			}
			if len(r.notes) != c.notes {
				t.Errorf("notes: %q", r.notes)
			}
			if c.says == "" {
				if len(r.verdict.Violations) > 0 {
					t.Error(r.verdict.Violations)
				}
				return
			}
			i := slices.IndexFunc(r.verdict.Violations,
				func(v check.Violation) bool { return strings.Contains(v.Text, c.says) })
			if i < 0 || !r.verdict.Violations[i].Live {
				t.Errorf("found %v", r.verdict.Violations)
			}
		})
	}
}
