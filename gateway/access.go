package gateway

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"licensed/actors/license"
	"licensed/gateway/auth"
	"licensed/internal/auditlog"
	"licensed/internal/budget"
	"licensed/internal/caller"
	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
)

// attemptRetry is the time to wait after too many wrong credentials.
const attemptRetry = 5 * time.Second

// errCredentialsExpired ends a stream whose caller's credentials expired meanwhile.
var errCredentialsExpired = &auth.Error{
	Kind: auth.Expired, Text: "the credentials expired; open the stream again with new ones",
}

// identify finds out who sends a request, and whether the method is open to any role of the caller. Nothing of the
// body was read. Errors: *connect.Error.
func (g *Gateway) identify(deadline time.Time, c *call, r *http.Request) (err error) {
	c.source = r.RemoteAddr
	if g.config.Authenticator == nil {
		return nil
	}
	ctx, cancel := withDeadline(r.Context(), deadline)
	defer cancel()
	if c.claims, err = g.caller(ctx, r); err != nil {
		return g.denied(err)
	}
	c.caller = caller.Caller{
		Principal: c.claims.Principal(), Roles: uint32(c.claims.Roles), Customer: c.claims.Customer,
	}
	if strings.HasPrefix(c.route.path, "/"+licensedv1connect.AdminServiceName+"/") {
		c.caller.Token = auth.CredentialsOf(r).Token // A node that is asked to do something verifies it itself.
	}
	c.bill()
	reason, err := statedReason(r.Header)
	if err != nil {
		return err
	}
	return g.decide(c, auth.Action{Method: c.route.path, Reason: reason})
}

// staff are the roles of people who must get through when customers use up their limits.
var staff = auth.RolesOf(licensedv1.Role_ROLE_OPERATOR, licensedv1.Role_ROLE_SUPPORT)

// bill has the call count for its principal, and that of a person who looks after the service among the operators'.
func (c *call) bill() {
	if c.holders == nil { // A part of this process, which acts for somebody.
		return
	}
	c.holders = append(c.holders, budget.Holder{
		Principal: c.claims.Principal(), Customer: c.claims.Roles == auth.RolesOf(licensedv1.Role_ROLE_CUSTOMER),
	})
	if c.claims.Roles&staff != 0 && c.claims.Roles&routine == 0 && c.budgets == &c.limits.customers {
		c.budgets = &c.limits.operators
	}
}

// caller authenticates a request. Errors: *auth.Error.
func (g *Gateway) caller(ctx context.Context, r *http.Request) (*auth.Claims, error) {
	source := budget.FromRemote(r.RemoteAddr)
	if source == (budget.Holder{}) {
		// A part of this process passes on who it acts for.
		if claims := auth.FromContext(r.Context()); claims != nil {
			return claims, nil
		}
	}
	credentials := auth.CredentialsOf(r)
	credentials.Source = source
	return g.config.Authenticator.Authenticate(ctx, credentials)
}

// identified lets only callers with credentials through to a handler that is no part of the API.
func (g *Gateway) identified(next http.Handler, reject *connect.ErrorWriter) http.Handler {
	if g.config.Authenticator == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := g.caller(r.Context(), r); err != nil {
			writeError(w, r, g.denied(err), reject)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// authorize decides about a request whose message was read. Errors: *connect.Error.
func (g *Gateway) authorize(c *call, message any, h http.Header) error {
	if c.claims != nil && c.claims.Expired(g.config.Now()) { // Since the stream or the session began.
		return g.denied(errCredentialsExpired)
	}
	reason, err := statedReason(h)
	if err != nil {
		return err
	}
	// A message that has a reason of its own is the only place of it.
	if m, ok := message.(interface{ GetReason() string }); ok && validReason(m.GetReason()) {
		reason = m.GetReason()
	}
	c.caller.Method, c.caller.Reason = c.route.path, reason
	about, _ := message.(interface{ GetCustomerId() string })
	action := auth.Action{Method: c.route.path, Read: true, Reason: reason}
	if about != nil {
		action.Customer = about.GetCustomerId()
	}
	return g.decide(c, action)
}

// decide asks the authorizer, and records its decision.
func (g *Gateway) decide(c *call, a auth.Action) error {
	d := auth.Decision{Allowed: true}
	if g.config.Authenticator != nil {
		d = g.config.Authorizer.Authorize(c.claims, a)
	}
	if d.Allowed {
		if a.Read && audited(c.claims, a) {
			return g.audit(c, a, auditlog.Allowed)
		}
		return nil
	}
	g.metrics.denied.WithLabelValues(string(d.Denial)).Inc()
	reason := map[auth.Denial]string{
		auth.OtherCustomer: licensedv1.ReasonOtherCustomer, auth.ReasonRequired: licensedv1.ReasonNoReason,
	}[d.Denial]
	if reason == "" {
		reason = licensedv1.ReasonNotAllowed
	}
	if err := g.audit(c, a, string(d.Denial)); err != nil {
		return err
	}
	return apiError(connect.CodePermissionDenied, reason, d.Text+"; not executed")
}

// routine are the roles whose licence calls are the service's own business, and not recorded.
var routine = auth.RolesOf(licensedv1.Role_ROLE_CUSTOMER, licensedv1.Role_ROLE_SERVICE)

// audited reports whether an allowed call is recorded: calls of AdminService and HistoryService, and licence calls by
// others than customers and services. The status of nodes and cluster, which monitoring reads all the time, is not.
func audited(c *auth.Claims, a auth.Action) bool {
	switch a.Method {
	case licensedv1connect.AdminServiceGetNodeProcedure, licensedv1connect.AdminServiceGetClusterProcedure:
		return false
	}
	return !strings.HasPrefix(a.Method, "/"+licensedv1connect.LicenseServiceName+"/") ||
		c != nil && c.Roles&routine == 0
}

// maxAudited is the length of the longest customer id in a record; longer ones are invalid, and are cut.
const maxAudited = 128

// audit records a decision. Errors: it could not be recorded; then the call must not be executed.
func (g *Gateway) audit(c *call, a auth.Action, decision string) error {
	if g.config.Audit == nil {
		return nil
	}
	r := auditlog.Record{
		Time: g.config.Now().UTC(), Source: c.source, Method: a.Method, Customer: a.Customer, Reason: a.Reason,
		Decision: decision,
	}
	if len(r.Customer) > maxAudited {
		r.Customer = strings.ToValidUTF8(r.Customer[:maxAudited], "")
	}
	if c.claims != nil {
		r.Principal, r.Roles = c.claims.Principal(), c.claims.Roles.String()
	}
	err := g.config.Audit.Append(r)
	if err == nil {
		g.metrics.audited.Inc()
		return nil
	}
	g.metrics.unaudited.Inc()
	g.config.Logger.Error("call refused, since it cannot be recorded in the audit log",
		"method", a.Method, "error", err)
	return apiError(connect.CodeUnavailable, licensedv1.ReasonNotExecuted,
		"the call cannot be recorded in the audit log; not executed, retry at another gateway")
}

// denied counts an error of authentication and makes it one of the API.
func (g *Gateway) denied(err error) *connect.Error {
	var failure *auth.Error
	if !errors.As(err, &failure) {
		failure = &auth.Error{Kind: auth.Unavailable, Text: "the credentials cannot be checked now"}
	}
	g.metrics.denied.WithLabelValues(string(failure.Kind)).Inc()
	text := failure.Text + "; not executed"
	switch failure.Kind {
	case auth.Missing:
		return apiError(connect.CodeUnauthenticated, licensedv1.ReasonNoCredentials, text)
	case auth.Expired:
		return apiError(connect.CodeUnauthenticated, licensedv1.ReasonExpiredCredentials, text)
	case auth.TooMany:
		return retryError(connect.CodeResourceExhausted, licensedv1.ReasonTooManyAttempts, text, attemptRetry)
	case auth.Unavailable:
		return apiError(connect.CodeUnavailable, licensedv1.ReasonNotExecuted, text)
	}
	return apiError(connect.CodeUnauthenticated, licensedv1.ReasonBadCredentials, text)
}

// deniedReasons are the reasons of errors that deny a request. They are measured by their code, and are no malformed
// requests.
var deniedReasons = map[string]struct{}{
	licensedv1.ReasonNoCredentials: {}, licensedv1.ReasonBadCredentials: {}, licensedv1.ReasonExpiredCredentials: {},
	licensedv1.ReasonTooManyAttempts: {}, licensedv1.ReasonNotAllowed: {}, licensedv1.ReasonOtherCustomer: {},
	licensedv1.ReasonNoReason: {}, licensedv1.ReasonNotExecuted: {},
}

// reasonOf returns the reason of an error of the API; empty if it has none.
func reasonOf(err *connect.Error) string {
	for _, d := range err.Details() {
		m, err := d.Value()
		if info, ok := m.(*errdetails.ErrorInfo); ok && err == nil {
			return info.Reason
		}
	}
	return ""
}

// statedReason returns the reason that a caller states; empty for none. Errors: it is too long, or no text.
func statedReason(h http.Header) (string, error) {
	given := h.Get(auth.ReasonHeader)
	reason, err := url.PathUnescape(given)
	if err != nil || reason != "" && !validReason(reason) {
		return "", apiError(connect.CodeInvalidArgument, licensedv1.ReasonInvalid, "the header "+auth.ReasonHeader+
			" is not percent-encoded UTF-8 of at most "+strconv.Itoa(license.MaxReason)+
			" bytes without control characters")
	}
	return strings.TrimSpace(reason), nil
}

// validReason reports whether a text can be recorded as a reason.
func validReason(text string) bool {
	return license.CheckReason(text) == nil
}

// authorizedConn authorises the message of a stream of replies.
type authorizedConn struct {
	connect.StreamingHandlerConn
	gateway *Gateway
	call    *call
}

// Receive implements connect.StreamingHandlerConn.
func (a authorizedConn) Receive(m any) error {
	if err := a.StreamingHandlerConn.Receive(m); err != nil {
		return err
	}
	return a.gateway.authorize(a.call, m, a.RequestHeader())
}

// untilExpiry returns the context of a stream, which ends when the caller's credentials do. A session is told to go
// away before that, and ends by itself.
func (g *Gateway) untilExpiry(ctx context.Context, c *call) (context.Context, context.CancelFunc) {
	if c.claims == nil || c.claims.Expiry.IsZero() || c.route.session {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, c.claims.Expiry.Sub(g.config.Now()), errCredentialsExpired)
}
