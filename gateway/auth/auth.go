package auth

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"licensed/internal/budget"
)

// Claims are what is known of a caller. They are not changed once they exist.
type Claims struct {
	// Subject names the caller within its issuer: of a token, a certificate, or the claim sub.
	Subject string
	// Issuer of the credentials: "tokens", "certificate", "process", or that of a JSON Web Token.
	Issuer string
	// Roles of the caller.
	Roles Roles
	// Customer is the id that the role customer is about; empty for none.
	Customer string
	// Expiry is when the credentials end; zero for never.
	Expiry time.Time
}

// Expired reports whether the credentials ended.
func (c *Claims) Expired(now time.Time) bool { return !c.Expiry.IsZero() && !now.Before(c.Expiry) }

// maxName is the length of the longest name of an issuer or a subject, in bytes: both are recorded with each event.
const maxName = 255

// isName reports whether a text can be the name of an issuer or a subject: 1 to maxName bytes of UTF-8 without control
// characters.
func isName(s string) bool {
	return s != "" && len(s) <= maxName && utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// Principal returns the caller's name, unique among all issuers: at most 511 bytes of UTF-8 without control characters.
func (c *Claims) Principal() string { return c.Issuer + ":" + c.Subject }

// Credentials are what a request proves its caller with.
type Credentials struct {
	// Token is a bearer token; empty for none.
	Token string
	// Certificates are the chain of a client, verified, its own first; empty for none.
	Certificates []*x509.Certificate
	// Source is who wrong tokens are counted for; zero for this process, which may try as often as it likes.
	Source budget.Holder
}

// CredentialsOf returns the token and the certificates of a request. Source is left empty.
func CredentialsOf(r *http.Request) (c Credentials) {
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		c.Token = token
	}
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		c.Certificates = r.TLS.VerifiedChains[0]
	}
	return c
}

// Authenticator finds out who a caller is. It is safe for concurrent use.
type Authenticator interface {
	// Authenticate returns the claims of credentials. Errors: *Error. A context that ends while keys of an issuer are
	// fetched results in one of the kind Unavailable.
	Authenticate(ctx context.Context, c Credentials) (*Claims, error)
}

// Action is what a caller asks for.
type Action struct {
	// Method is the path of the call, "/licensed.v1.LicenseService/AcquireLicense".
	Method string
	// Customer that the request is about; empty for none.
	Customer string
	// Read says that the message of the request was read, and Customer is final. Before that a decision is about the
	// method alone.
	Read bool
	// Reason that the caller states; empty for none.
	Reason string
}

// Decision about an action. The zero value denies.
type Decision struct {
	Allowed bool
	// Denial is the kind of refusal if it is not allowed, and Text says to people what is missing.
	Denial Denial
	Text   string
}

// Authorizer decides what a caller may do. It is safe for concurrent use.
type Authorizer interface {
	// Authorize decides whether a caller may do something. Claims that expired are the caller's business.
	Authorize(c *Claims, a Action) Decision
}

// Denial is why an action is denied, a label of metrics.
type Denial string

// The denials.
const (
	// NotAllowed: no role of the caller may call the method.
	NotAllowed Denial = "not_allowed"
	// OtherCustomer: the caller is a customer, and the request is about another one.
	OtherCustomer Denial = "other_customer"
	// ReasonRequired: the caller may call the method if it states a reason.
	ReasonRequired Denial = "reason_required"
	// NoPrincipal: the request of another process, or of a part of this one, does not say who it acts for.
	NoPrincipal Denial = "no_principal"
)

// Denials are all of them.
var Denials = []Denial{NotAllowed, OtherCustomer, ReasonRequired, NoPrincipal}

// Kind is why credentials were not accepted, a label of metrics.
type Kind string

// The kinds.
const (
	// Missing: the request has no credentials.
	Missing Kind = "missing"
	// Malformed: the token is none that the gateway can read.
	Malformed Kind = "malformed"
	// Unknown: no token, certificate or issuer of the file fits.
	Unknown Kind = "unknown"
	// Forged: the signature of the token is wrong, or its key or algorithm is not accepted.
	Forged Kind = "forged"
	// Audience: the token is for somebody else.
	Audience Kind = "audience"
	// Expired: the credentials ended.
	Expired Kind = "expired"
	// Early: the token is not valid yet.
	Early Kind = "early"
	// NoRole: the caller is known, and nothing in the file gives it a role.
	NoRole Kind = "no_role"
	// TooMany: the address failed too often.
	TooMany Kind = "too_many"
	// Unavailable: the keys of the issuer could not be fetched.
	Unavailable Kind = "unavailable"
)

// Kinds are all of them.
var Kinds = []Kind{
	Missing, Malformed, Unknown, Forged, Audience, Expired, Early, NoRole, TooMany, Unavailable,
}

// Error says why credentials were not accepted. Its text is for the caller, and tells nothing of what would be right.
type Error struct {
	Kind Kind
	Text string
}

// Error implements error.
func (e *Error) Error() string { return e.Text }

// contextKey is the key of claims in a context.
type contextKey struct{}

// NewContext returns a context with the claims of a caller within this process.
func NewContext(ctx context.Context, c *Claims) context.Context {
	return context.WithValue(ctx, contextKey{}, c)
}

// FromContext returns the claims in a context; nil if it has none.
func FromContext(ctx context.Context) *Claims {
	c, _ := ctx.Value(contextKey{}).(*Claims)
	return c
}

// failed returns an Error.
func failed(kind Kind, format string, args ...any) *Error {
	return &Error{kind, fmt.Sprintf(format, args...)}
}
