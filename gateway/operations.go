package gateway

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"licensed/actors"
	"licensed/actors/license"
	"licensed/actors/license/ids"
	"licensed/gateway/auth"
	"licensed/messages/licensedv1"
	"licensed/persistence"
)

// Errors of operations.
var (
	// ErrUnsupported says that a node has no such part.
	ErrUnsupported = errors.New("not supported by this node")
	// ErrNoMember says that the cluster has no member of that name.
	ErrNoMember = errors.New("no such member of the cluster")
	// ErrHoldsNothing says that a member is a gateway, which has nothing to hand over.
	ErrHoldsNothing = errors.New("it is a gateway, which holds no customers")
)

// Operations are what an operator may ask of the node behind the gateway. They are safe for concurrent
// use.
type Operations interface {
	// Node returns the status of the node; the number of followers is the gateway's to add.
	Node(ctx context.Context) (*licensedv1.GetNodeResponse, error)
	// Cluster returns the status of the cluster, as the node sees it.
	Cluster(ctx context.Context) (*licensedv1.ClusterStatus, error)
	// Drain has the member of that name hand over all its shards. It returns when that is begun. Errors:
	// ErrUnsupported if there is no cluster, ErrNoMember, ErrHoldsNothing.
	Drain(ctx context.Context, name string) error
	// Undrain has the member of that name take shards again. It returns when that is begun. Errors: as Drain's.
	Undrain(ctx context.Context, name string) error
	// Customers returns up to limit ids of customers with a history, after the last id of the former page.
	Customers(ctx context.Context, after string, limit int) ([]string, error)
	// Passivate takes a customer out of memory, unless it is active.
	Passivate(ctx context.Context, customer string) (resident, left bool, err error)
	// Archive moves the closed part of a customer's history to the archive. Errors: ErrUnsupported.
	Archive(ctx context.Context, customer string, all bool) (*licensedv1.ArchiveCustomerResponse, error)
	// Verify checks a customer and reports progress now and then.
	Verify(
		ctx context.Context, customer string, repair bool, progress func(checked, total uint64) error,
	) (*licensedv1.CustomerReport, error)
	// Import records a stretch of history, as actors.Runtime does.
	Import(ctx context.Context, customer string, i actors.Import) (persistence.Head, error)
	// Forget removes a customer for good. Errors: persistence.ErrNotFound for one without a history, unless it is to
	// be removed even if it is unknown.
	Forget(ctx context.Context, customer string, evenIfUnknown bool) (*licensedv1.ForgetCustomerResponse, error)
	// ReloadPolicy reads the policy file again and returns the version then in force. The error says what
	// is wrong with the file.
	ReloadPolicy(ctx context.Context) (version string, changed bool, err error)
}

// MaxImportBytes is the largest message of ImportCustomer.
const MaxImportBytes = 4 << 20

// importStretch is the number of records that are recorded in one write, about.
const importStretch = 100

// adminService implements licensedv1connect.AdminServiceHandler.
type adminService struct{ *Gateway }

// GetNode implements licensedv1connect.AdminServiceHandler.
func (s *adminService) GetNode(
	ctx context.Context, _ *connect.Request[licensedv1.GetNodeRequest],
) (*connect.Response[licensedv1.GetNodeResponse], error) {
	res, err := s.config.Operations.Node(ctx)
	if err != nil {
		return nil, s.failed(ctx, "", err, false)
	}
	res.Followers = uint32(s.followed.count())
	state, cause := s.config.Health.State()
	res.State = state.String()
	if cause != nil {
		res.State += ": " + cause.Error()
	}
	return connect.NewResponse(res), nil
}

// GetCluster implements licensedv1connect.AdminServiceHandler.
func (s *adminService) GetCluster(
	ctx context.Context, _ *connect.Request[licensedv1.GetClusterRequest],
) (*connect.Response[licensedv1.GetClusterResponse], error) {
	cluster, err := s.config.Operations.Cluster(ctx)
	if err != nil {
		return nil, s.failed(ctx, "", err, false)
	}
	return connect.NewResponse(&licensedv1.GetClusterResponse{Cluster: cluster}), nil
}

// DrainNode implements licensedv1connect.AdminServiceHandler.
func (s *adminService) DrainNode(
	ctx context.Context, r *connect.Request[licensedv1.DrainNodeRequest],
) (*connect.Response[licensedv1.DrainNodeResponse], error) {
	if err := s.direct(ctx, "drain", r.Msg.Name, s.config.Operations.Drain); err != nil {
		return nil, err
	}
	return connect.NewResponse(&licensedv1.DrainNodeResponse{}), nil
}

// UndrainNode implements licensedv1connect.AdminServiceHandler.
func (s *adminService) UndrainNode(
	ctx context.Context, r *connect.Request[licensedv1.UndrainNodeRequest],
) (*connect.Response[licensedv1.UndrainNodeResponse], error) {
	if err := s.direct(ctx, "undrain", r.Msg.Name, s.config.Operations.Undrain); err != nil {
		return nil, err
	}
	return connect.NewResponse(&licensedv1.UndrainNodeResponse{}), nil
}

// direct has a member do something about its shards, and logs who had it do so.
func (s *adminService) direct(ctx context.Context, what, name string, do func(context.Context, string) error) error {
	var v violations
	v.id("name", name)
	if err := invalid(v); err != nil {
		return err
	}
	err := do(ctx, name)
	// Also what was refused is logged: an audit shows attempts.
	s.config.Logger.InfoContext(ctx, what+" requested", "audit", true, "node", name, "accepted", err == nil)
	switch {
	case errors.Is(err, ErrUnsupported):
		return apiError(connect.CodeUnimplemented, licensedv1.ReasonUnsupported,
			"this process is alone; no other can take its customers")
	case errors.Is(err, ErrNoMember):
		return apiError(connect.CodeNotFound, licensedv1.ReasonNoMember,
			fmt.Sprintf("the cluster has no member %q", name))
	case errors.Is(err, ErrHoldsNothing):
		return apiError(connect.CodeFailedPrecondition, licensedv1.ReasonUnsupported,
			fmt.Sprintf("%s is a gateway: it holds no customers, and can be stopped as it is", name))
	case err != nil:
		return s.failed(ctx, "", err, false)
	}
	return nil
}

// ListCustomers implements licensedv1connect.AdminServiceHandler.
func (s *adminService) ListCustomers(
	ctx context.Context, r *connect.Request[licensedv1.ListCustomersRequest],
) (*connect.Response[licensedv1.ListCustomersResponse], error) {
	var v violations
	after := r.Msg.After
	if r.Msg.PageToken != "" {
		id, err := base64.RawURLEncoding.DecodeString(r.Msg.PageToken)
		if after = string(id); err != nil || ids.Fault(after, ids.MaxBytes) != "" {
			v.add("page_token", "is "+license.ErrPageToken.Error())
		}
	} else if after != "" {
		v.id("after", after)
	}
	if err := invalid(v); err != nil {
		return nil, err
	}
	limit := customersLimit(r.Msg)
	customers, err := s.config.Operations.Customers(ctx, after, limit)
	if err != nil {
		return nil, s.failed(ctx, "", err, false)
	}
	res := &licensedv1.ListCustomersResponse{CustomerIds: customers}
	// There may be no more; the next page is empty then.
	if len(customers) == limit {
		res.NextPageToken = base64.RawURLEncoding.EncodeToString([]byte(customers[limit-1]))
	}
	return connect.NewResponse(res), nil
}

// customersLimit returns the number of ids a page has at most.
func customersLimit(r *licensedv1.ListCustomersRequest) int {
	return int(min(cmp.Or(r.PageSize, r.Limit, license.MaxPage), license.MaxPage))
}

// PassivateCustomer implements licensedv1connect.AdminServiceHandler.
func (s *adminService) PassivateCustomer(
	ctx context.Context, r *connect.Request[licensedv1.PassivateCustomerRequest],
) (*connect.Response[licensedv1.PassivateCustomerResponse], error) {
	if err := invalid(checkSubject(r.Msg.CustomerId, "", "")); err != nil {
		return nil, err
	}
	resident, left, err := s.config.Operations.Passivate(ctx, r.Msg.CustomerId)
	if err != nil {
		return nil, s.failed(ctx, r.Msg.CustomerId, err, false)
	}
	return connect.NewResponse(&licensedv1.PassivateCustomerResponse{Passivated: resident && left, Busy: !left}), nil
}

// ArchiveCustomer implements licensedv1connect.AdminServiceHandler.
func (s *adminService) ArchiveCustomer(
	ctx context.Context, r *connect.Request[licensedv1.ArchiveCustomerRequest],
) (*connect.Response[licensedv1.ArchiveCustomerResponse], error) {
	if err := invalid(checkSubject(r.Msg.CustomerId, "", "")); err != nil {
		return nil, err
	}
	// The owner does it; the answer comes when it is done.
	res, err := s.config.Operations.Archive(ctx, r.Msg.CustomerId, r.Msg.All)
	if errors.Is(err, ErrUnsupported) {
		return nil, apiError(connect.CodeUnimplemented, licensedv1.ReasonUnsupported,
			"this node has no archive; nothing was moved")
	}
	if errors.Is(err, persistence.ErrNotFound) {
		return nil, noHistory(r.Msg.CustomerId)
	}
	if err != nil {
		return nil, s.failed(ctx, r.Msg.CustomerId, err, false)
	}
	return connect.NewResponse(res), nil
}

// ForgetCustomer implements licensedv1connect.AdminServiceHandler. It needs a reason also where callers need no
// credentials.
func (s *adminService) ForgetCustomer(
	ctx context.Context, r *connect.Request[licensedv1.ForgetCustomerRequest],
) (*connect.Response[licensedv1.ForgetCustomerResponse], error) {
	if err := invalid(checkSubject(r.Msg.CustomerId, "", "")); err != nil {
		return nil, err
	}
	reason, err := statedReason(r.Header())
	if err != nil {
		return nil, err
	}
	if reason == "" {
		return nil, apiError(connect.CodePermissionDenied, licensedv1.ReasonNoReason,
			"a customer is forgotten for a reason, stated in the header "+auth.ReasonHeader+"; not executed")
	}
	res, err := s.config.Operations.Forget(ctx, r.Msg.CustomerId, r.Msg.EvenIfUnknown)
	if errors.Is(err, persistence.ErrNotFound) {
		return nil, apiError(connect.CodeNotFound, licensedv1.ReasonNoHistory, fmt.Sprintf(
			"customer %s has no history, so nothing was forgotten; check the id, or set even_if_unknown to keep it "+
				"from ever being used", r.Msg.CustomerId))
	}
	if err != nil {
		return nil, s.failed(ctx, r.Msg.CustomerId, err, true)
	}
	if s.config.Fallback != nil {
		s.config.Fallback.Forget(r.Msg.CustomerId)
	}
	return connect.NewResponse(res), nil
}

// VerifyCustomer implements licensedv1connect.AdminServiceHandler.
func (s *adminService) VerifyCustomer(
	ctx context.Context, r *connect.Request[licensedv1.VerifyCustomerRequest],
	stream *connect.ServerStream[licensedv1.VerifyCustomerResponse],
) error {
	if err := invalid(checkSubject(r.Msg.CustomerId, "", "")); err != nil {
		return err
	}
	// Progress is sent while it reads, since a large history takes longer than proxies
	// keep a silent stream open.
	var last licensedv1.VerifyCustomerResponse
	report, err := s.config.Operations.Verify(ctx, r.Msg.CustomerId, r.Msg.Mend, func(checked, total uint64) error {
		last.CheckedEvents, last.TotalEvents = checked, total
		return sendTo(ctx, stream, &licensedv1.VerifyCustomerResponse{CheckedEvents: checked, TotalEvents: total})
	})
	if errors.Is(err, persistence.ErrNotFound) {
		return noHistory(r.Msg.CustomerId)
	}
	if err != nil {
		return s.failed(ctx, r.Msg.CustomerId, err, false)
	}
	return sendTo(ctx, stream, &licensedv1.VerifyCustomerResponse{
		CheckedEvents: report.Events, TotalEvents: report.HeadSequence, Report: report,
	})
}

// ReloadPolicy implements licensedv1connect.AdminServiceHandler.
func (s *adminService) ReloadPolicy(
	ctx context.Context, _ *connect.Request[licensedv1.ReloadPolicyRequest],
) (*connect.Response[licensedv1.ReloadPolicyResponse], error) {
	version, changed, err := s.config.Operations.ReloadPolicy(ctx)
	switch {
	case errors.Is(err, ErrUnsupported):
		return nil, apiError(connect.CodeUnimplemented, licensedv1.ReasonUnsupported,
			"this node runs on the built-in policy; there is no file to read")
	// The caller gave up: that the policy was not read is no fault of the file.
	case ctx.Err() != nil && err != nil:
		return nil, s.failed(ctx, "", err, false)
	case err != nil:
		return nil, apiError(connect.CodeFailedPrecondition, licensedv1.ReasonInvalid,
			fmt.Sprintf("the policy file cannot be used, policy %s stays in force: %v", version, err))
	}
	return connect.NewResponse(&licensedv1.ReloadPolicyResponse{PolicyVersion: version, Changed: changed}), nil
}

// ImportCustomer implements licensedv1connect.AdminServiceHandler.
func (s *adminService) ImportCustomer(
	ctx context.Context, r *connect.Request[licensedv1.ImportCustomerRequest],
) (*connect.Response[licensedv1.ImportCustomerResponse], error) {
	v := checkSubject(r.Msg.CustomerId, "", "")
	records := decodeRecords(&v, r.Msg.Records)
	if len(v) == 0 && len(records) > 0 {
		// Before anything is recorded: a history whose second half is refused would leave the customer importing.
		if err := actors.CheckForeign(s.config.Kind, records[0].Sequence-1, records); err != nil {
			v.add("records", strings.TrimPrefix(err.Error(), "records ")) // The name of the field comes before it.
		}
	}
	if err := invalid(v); err != nil {
		return nil, err
	}
	i := &importing{adminService: s, customer: r.Msg.CustomerId, res: &licensedv1.ImportCustomerResponse{}}
	if err := i.run(ctx, records, r.Msg.Last); err != nil {
		return nil, i.failed(ctx, err)
	}
	return connect.NewResponse(i.res), nil
}

// decodeRecords returns the records of a request, which follow one another without a gap.
// What is wrong is a violation, and the result is nil then.
func decodeRecords(v *violations, encoded [][]byte) []persistence.Record {
	var records []persistence.Record // Grows with those that are valid: a message may hold millions of empty ones.
	for n, b := range encoded {
		r, err := persistence.DecodeRecord(b)
		if err != nil {
			v.add(fmt.Sprintf("records[%d]", n), "is no record: "+err.Error())
			return nil
		}
		if n == 0 && r.Sequence == 0 {
			v.add("records[0]", "is event 0; the first event of a history is event 1")
			// Later records go by the one before; where the first belongs is for import
			// to find out.
			return nil
		}
		if n > 0 && r.Sequence != records[n-1].Sequence+1 {
			v.add(fmt.Sprintf("records[%d]", n),
				fmt.Sprintf("is event %d, after event %d", r.Sequence, records[n-1].Sequence))
			return nil
		}
		records = append(records, r)
	}
	return records
}

// importing is a call of ImportCustomer in progress. It is used by one goroutine; another
// call for the same customer may be in progress at another gateway, which the owner
// detects by the end of the history that each names.
type importing struct {
	*adminService
	customer string
	res      *licensedv1.ImportCustomerResponse
}

// otherHistory is why an import is not the customer's history.
type otherHistory struct{ why string }

// Error returns what differs.
func (e *otherHistory) Error() string { return e.why }

// run compares what the customer has already, and records the rest, so that a call may be
// repeated after any failure. Errors: otherHistory, and those of package actors.
func (i *importing) run(ctx context.Context, records []persistence.Record, last bool) error {
	head, err := i.head(ctx, i.customer)
	if err != nil {
		return err
	}
	i.res.Sequence = head.Sequence
	end := head.Sequence
	if len(records) > 0 {
		first := records[0].Sequence
		if first > head.Sequence+1 {
			return &otherHistory{fmt.Sprintf("the history ends at event %d, and the import continues with event %d; "+
				"send the events between", head.Sequence, first)}
		}
		// What the history has already must be the same. It was recorded by an earlier
		// attempt, or the customer has another life.
		present := records[:min(uint64(len(records)), head.Sequence+1-first)]
		if err := i.compare(ctx, head, present); err != nil {
			return err
		}
		if err := i.record(ctx, head.Sequence, records[len(present):]); err != nil {
			return err
		}
		end = records[len(records)-1].Sequence
	}
	if !last || end < i.res.Sequence {
		return nil // A history that continued since its import is past its end.
	}
	_, err = i.config.Operations.Import(ctx, i.customer, actors.Import{After: end, End: true})
	if errors.Is(err, actors.ErrNotContinued) {
		// An attempt of unknown outcome may have ended it, and a command followed.
		if head, headErr := i.head(ctx, i.customer); headErr != nil || head.Sequence > end {
			return headErr
		}
	}
	return err
}

// compare compares records with what is stored in their place, byte by byte. Errors:
// otherHistory, also if what is stored cannot be read.
func (i *importing) compare(ctx context.Context, head persistence.Head, records []persistence.Record) error {
	if len(records) == 0 {
		return nil
	}
	r := persistence.HistoryRange{After: records[0].Sequence - 1, Through: records[len(records)-1].Sequence}
	// Records and stored events advance together: the reader returns each sequence of the
	// range once, as an event or in a gap.
	next := records
	return i.config.HistoryReader.Read(ctx, head, r, func(stored *persistence.HistoryItem) error {
		if stored.Gap != nil {
			return &otherHistory{"what is stored cannot be compared: " + stored.Gap.Error()}
		}
		if !bytes.Equal(persistence.AppendRecord(nil, &stored.Record), persistence.AppendRecord(nil, &next[0])) {
			return &otherHistory{fmt.Sprintf("the customer has another event %d", next[0].Sequence)}
		}
		next = next[1:]
		i.res.Present++
		return nil
	})
}

// record records what comes after the present end, a stretch of whole commands at a time:
// the owner accepts no part of a command.
func (i *importing) record(ctx context.Context, after uint64, records []persistence.Record) error {
	for len(records) > 0 {
		n := 0
		// Whole commands: the count of the first record is that of its command.
		for n < len(records) && n < importStretch {
			n = min(n+int(max(1, records[n].Count)), len(records))
		}
		head, err := i.config.Operations.Import(ctx, i.customer, actors.Import{After: after, Records: records[:n]})
		// The owner did not execute the stretch now; it may have done so before.
		if errors.Is(err, actors.ErrNotContinued) {
			head, n, err = i.recorded(ctx, after, records, err)
		}
		if err != nil {
			return err
		}
		i.res.Imported += uint64(n)
		i.res.Sequence, after, records = head.Sequence, after+uint64(n), records[n:]
	}
	return nil
}

// recorded finds out whether a stretch does not continue the history because it was
// recorded already: an attempt of unknown outcome was repeated on the way to the owner.
// It returns the head and the number of records that the history has; the error refused
// if it has none of them.
func (i *importing) recorded(
	ctx context.Context, after uint64, records []persistence.Record, refused error,
) (persistence.Head, int, error) {
	head, err := i.head(ctx, i.customer)
	if err != nil {
		return head, 0, err
	}
	if head.Sequence <= after {
		return head, 0, refused
	}
	n := int(min(uint64(len(records)), head.Sequence-after))
	present := i.res.Present
	err = i.compare(ctx, head, records[:n])
	i.res.Present = present // they are counted as imported
	return head, n, err
}

// failed returns what an error means for the import.
func (i *importing) failed(ctx context.Context, err error) error {
	var other *otherHistory
	switch {
	case errors.As(err, &other):
		return apiError(connect.CodeFailedPrecondition, licensedv1.ReasonOtherHistory,
			fmt.Sprintf("customer %s: %s; nothing was overwritten", i.customer, other.why))
	case errors.Is(err, actors.ErrNotContinued):
		return apiError(connect.CodeFailedPrecondition, licensedv1.ReasonOtherHistory,
			fmt.Sprintf("customer %s: %v; nothing was overwritten", i.customer, err))
	case errors.Is(err, actors.ErrNoHistory):
		return apiError(connect.CodeInvalidArgument, licensedv1.ReasonInvalid, err.Error(), &errdetails.BadRequest{
			FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "records", Description: err.Error()}},
		})
	}
	return i.adminService.failed(ctx, i.customer, err, true)
}
