package dashboard

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"licensed/gateway/auth"
	"licensed/internal/budget"
	"licensed/messages/licensedv1"
)

// policy allows the dashboard's own files, and nothing inline.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// maxForm is the largest body of a request, in bytes: forms have a token or some ids.
const maxForm = 64 << 10

// secured sets what holds for every request and answer, and turns away requests that
// other sites make browsers send. Answers are not cached: a shared browser must not show
// them after the session has ended.
func secured(next http.Handler) http.Handler {
	protected := new(http.CrossOriginProtection).Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		protected.ServeHTTP(w, r)
	})
}

// sessionAge is the time after which a browser has to log in again.
const sessionAge = 12 * time.Hour

// sessionCookie is the name of the cookie that names the session.
const sessionCookie = "licensed_session"

// AccessConfig of the admin port.
type AccessConfig struct {
	// Token opens the port; empty for none.
	Token string
	// Authenticator knows callers with other tokens, or certificates; nil for none.
	Authenticator auth.Authenticator
	// Loopback says that only this machine reaches the port. Without a token and an authenticator it is open then.
	Loopback bool
	// Open says that the operator accepted that others reach the port without credentials.
	Open bool
	// Now is the clock.
	Now func() time.Time
	// Logger hears of wrong tokens.
	Logger *slog.Logger
}

// Access decides who may use the admin port. A browser that logged in has a session of this process under a random
// name, which tells nothing of the token. It ends with the credentials, when the person logs out, and with the process.
// Safe for concurrent use.
type Access struct {
	AccessConfig
	// tries slows down addresses that guess tokens.
	tries *budget.Rate
	// sessions are the callers of browsers that are logged in, by the value of their cookie.
	sessions *lru.Cache[string, *auth.Claims]
}

// Bounds of what Access remembers: sessions, and wrong tokens of an address.
const (
	maxSessions = 1024
	maxTries    = 10
)

// NewAccess returns the access of a configuration. A wrong token costs an address one of ten tries; one comes back
// each second.
func NewAccess(c AccessConfig) *Access {
	a := &Access{AccessConfig: c, tries: budget.NewRate("tries", budget.Each{Address: 1}, maxTries*time.Second)}
	a.sessions, _ = lru.New[string, *auth.Claims](maxSessions) // The size is positive.
	return a
}

// Roles that may use parts of the admin port.
var (
	viewers  = auth.RolesOf(licensedv1.Role_ROLE_SUPPORT, licensedv1.Role_ROLE_AUDITOR, licensedv1.Role_ROLE_OPERATOR)
	Metrics  = auth.RolesOf(licensedv1.Role_ROLE_METRICS, licensedv1.Role_ROLE_OPERATOR, licensedv1.Role_ROLE_AUDITOR)
	Profiles = auth.RolesOf(licensedv1.Role_ROLE_OPERATOR)
)

// administrator returns the claims of a caller with the admin token, or of any caller of an open admin port.
func administrator(subject string) *auth.Claims {
	return &auth.Claims{Subject: subject, Issuer: "admin", Roles: viewers | Metrics}
}

// admission is the result of a check of access.
type admission int

const (
	admitted admission = iota
	notLoggedIn
	wrongHost // a name of another site that leads here
	closed    // others reach the port, and there is no token
	tooMany   // tokens were guessed
	forbidden // the caller is known, and has no role for this
)

// guarded reports whether the port asks for credentials.
func (a *Access) guarded() bool { return a.Token != "" || a.Authenticator != nil }

// admits checks a request, and returns who sends it. A wrong bearer token is not overridden by a cookie.
func (a *Access) admits(r *http.Request, roles auth.Roles) (admission, *auth.Claims) {
	comes, claims := a.known(r)
	if comes == admitted && claims.Roles&roles == 0 {
		return forbidden, nil
	}
	return comes, claims
}

// known returns who sends a request.
func (a *Access) known(r *http.Request) (admission, *auth.Claims) {
	switch {
	// In this order: a port without a token is open to loopback alone, and there only under a local name. A page of
	// another site could otherwise reach it through a name that resolves to this address.
	case a.guarded():
	case a.Open:
		return admitted, administrator("open")
	case !a.Loopback:
		return closed, nil
	case !localHost(r.Host):
		return wrongHost, nil
	default:
		return admitted, administrator("loopback")
	}
	given := auth.CredentialsOf(r)
	if given.Token != "" {
		return a.try(r, given.Token)
	}
	if claims := a.session(r); claims != nil {
		return admitted, claims
	}
	if a.Authenticator != nil && len(given.Certificates) > 0 {
		if claims, err := a.Authenticator.Authenticate(r.Context(), given); err == nil {
			return admitted, claims
		}
	}
	return notLoggedIn, nil
}

// try returns the claims of the caller with this token. An address that gave too many wrong ones has no other token
// looked at for a while. The admin token is accepted all the same, as static tokens of the API are: who guesses at an
// address that many share, that of a proxy for instance, locks nobody out, and the token is too long to be guessed.
func (a *Access) try(r *http.Request, token string) (admission, *auth.Claims) {
	if a.right(token) {
		return admitted, administrator("token")
	}
	source, now := budget.FromRemote(r.RemoteAddr), a.Now()
	if !a.tries.Left(now, source) {
		return tooMany, nil
	}
	if a.Authenticator != nil {
		claims, err := a.Authenticator.Authenticate(r.Context(), auth.Credentials{Token: token, Source: source})
		if err == nil {
			return admitted, claims
		}
	}
	_ = a.tries.Take(now, source) // Others may have taken the last one meanwhile.
	a.Logger.Warn("dashboard: wrong admin token rejected", "from", r.RemoteAddr)
	return notLoggedIn, nil
}

// localHost reports whether a Host header names this machine and no site: a page of a site whose name
// was made to lead to a loopback address still sends that name.
func localHost(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && ip.IsLoopback() || strings.EqualFold(host, "localhost")
}

// session returns who logged in with this browser; nil for nobody.
func (a *Access) session(r *http.Request) *auth.Claims {
	c, err := r.Cookie(sessionCookie)
	if err != nil {
		return nil
	}
	if claims, ok := a.sessions.Get(c.Value); ok && !claims.Expired(a.Now()) {
		return claims
	}
	return nil
}

// shortestToken is the number of characters an admin token must have.
const shortestToken = 16

// ReadToken reads a file that has a token; no file, no token.
func ReadToken(file string) (string, error) {
	if file == "" {
		return "", nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("admin token: %w", err)
	}
	token := strings.TrimSpace(string(b))
	if len(token) < shortestToken {
		return "", errors.New(
			"admin token: " + file + " has fewer than 16 characters; `openssl rand -hex 32` makes a good one",
		)
	}
	return token, nil
}

// Guard lets callers with a role through to h, where there is no dashboard to log in at.
func (a *Access) Guard(h http.Handler, roles auth.Roles) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch comes, _ := a.admits(r, roles); comes {
		case admitted:
			h.ServeHTTP(w, r)
		case tooMany:
			http.Error(w, tooManyTries, http.StatusTooManyRequests)
		case forbidden:
			http.Error(w, "needs one of the roles "+roles.String(), http.StatusForbidden)
		case wrongHost:
			http.Error(w, errWrongHost.text, http.StatusForbidden)
		case closed:
			http.Error(w, errClosed.text, http.StatusForbidden)
		default:
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "needs the admin token: Authorization: Bearer TOKEN", http.StatusUnauthorized)
		}
	})
}

// right compares a token in a time that does not tell how much of it is right.
func (a *Access) right(token string) bool {
	if a.Token == "" {
		return false
	}
	given, want := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(a.Token))
	return subtle.ConstantTimeCompare(given[:], want[:]) == 1
}

// begin returns the cookie of a browser that logged in.
func (a *Access) begin(r *http.Request, claims *auth.Claims) *http.Cookie {
	until := a.Now().Add(sessionAge)
	c := &http.Cookie{
		Name: sessionCookie, Path: "/", MaxAge: int(sessionAge.Seconds()),
		HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: r.TLS != nil,
	}
	if c.Value = rand.Text(); claims.Expiry.IsZero() || claims.Expiry.After(until) {
		copied := *claims
		copied.Expiry, claims = until, &copied
	}
	a.sessions.Add(c.Value, claims)
	return c
}

// end ends the session of a browser.
func (a *Access) end(r *http.Request) {
	if c, err := r.Cookie(sessionCookie); err == nil {
		a.sessions.Remove(c.Value)
	}
}

// The pages of requests that are not admitted.
var (
	errNotLoggedIn = &pageError{
		outside: true,
		status:  http.StatusUnauthorized,
		title:   "Not logged in",
		text:    "The session has ended. Log in again with the admin token.",
	}
	errWrongHost = &pageError{outside: true, status: http.StatusForbidden, title: "Not available under this host name",
		text: "Without an admin token the dashboard answers only under localhost or a loopback address. " +
			"Open it there, or start licensed with --auth-file or --admin-token-file."}
	errForbidden = &pageError{
		outside: true,
		status:  http.StatusForbidden,
		title:   "Not allowed",
		text:    "Your account has none of the roles support, auditor and operator.",
	}
	errTooMany = &pageError{
		outside: true,
		status:  http.StatusTooManyRequests,
		title:   "Too many tries",
		text:    "Wrong admin tokens were given; wait some seconds.",
	}
	errClosed = &pageError{outside: true, status: http.StatusForbidden, title: "The dashboard is closed",
		text: "Others can reach this port, and there is no admin token. Start licensed with --auth-file, " +
			"or with --admin on a loopback address."}
)

// What the login form shows.
const (
	wrongToken   = "This is not the admin token."
	tooManyTries = "Too many tries; wait some seconds."
)

// loginPath returns where to log in and come back from.
func loginPath(r *http.Request) string {
	return Path + "login?next=" + url.QueryEscape(r.URL.RequestURI())
}

// backTo returns a path of the dashboard to continue at, whatever was asked for. Anything
// else would make the login a redirect to other sites.
func backTo(next string) string {
	if u, err := url.Parse(next); err == nil && u.Host == "" && u.Scheme == "" && strings.HasPrefix(u.Path, Path) &&
		!strings.Contains(next, `\`) {
		return u.RequestURI()
	}
	return Path
}

// loginView is the page to log in at.
type loginView struct {
	Next  string
	Error string
}

// login shows the form, or continues for a browser that is logged in.
func (d *Dashboard) login(w http.ResponseWriter, r *http.Request) error {
	next := backTo(r.FormValue("next"))
	if comes, _ := d.access.admits(r, viewers); comes == admitted {
		http.Redirect(w, r, next, http.StatusSeeOther)
		return nil
	}
	if !d.access.guarded() {
		return errClosed
	}
	return d.render(w, http.StatusOK, "login", "", view{Title: "Log in", Outside: true, Body: loginView{Next: next}})
}

// enter checks the token of the form, and sets the cookie.
func (d *Dashboard) enter(w http.ResponseWriter, r *http.Request) error {
	if !d.access.guarded() {
		return errClosed
	}
	// next was checked: a login must not lead to another site.
	next, wrong, status := backTo(r.FormValue("next")), wrongToken, http.StatusUnauthorized
	comes, claims := d.access.try(r, r.PostFormValue("token")) // Not from the URL, which is logged.
	switch {
	case comes == admitted && claims.Roles&viewers == 0:
		wrong, status = errForbidden.text, errForbidden.status
	case comes == admitted:
		http.SetCookie(w, d.access.begin(r, claims))
		http.Redirect(w, r, next, http.StatusSeeOther)
		return nil
	case comes == tooMany:
		wrong, status = tooManyTries, http.StatusTooManyRequests
	}
	return d.render(w, status, "login", "", view{
		Title: "Log in", Outside: true, Body: loginView{Next: next, Error: wrong},
	})
}

// logout ends the session, and removes the cookie.
func (d *Dashboard) logout(w http.ResponseWriter, r *http.Request) error {
	d.access.end(r)
	http.SetCookie(w,
		&http.Cookie{Name: sessionCookie, Path: "/", MaxAge: -1, HttpOnly: true, SameSite: http.SameSiteStrictMode})
	http.Redirect(w, r, Path+"login", http.StatusSeeOther)
	return nil
}
