package dashboard

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/time/rate"
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

// sessionAge is the time a browser that knew the token is let in.
const sessionAge = 12 * time.Hour

// sessionCookie is the name of the cookie that stands for the token.
const sessionCookie = "licensed_session"

// access decides which requests may look. It keeps no sessions: a cookie has the time of
// its end and a signature by the token, so that all gateways with the same token accept
// it, and another token ends all sessions.
type access struct {
	// Empty where only this machine reaches the port.
	token string
	// Whether only this machine reaches the port.
	loopback bool
	now      func() time.Time
	log      *slog.Logger
	// tries slows down clients that guess tokens.
	tries *rate.Limiter
}

// newAccess returns the access of a configuration. A wrong token costs one of ten tries;
// one comes back each second.
func newAccess(c Config) *access {
	return &access{token: c.Token, loopback: c.Loopback, now: c.Now, log: c.Logger, tries: rate.NewLimiter(1, 10)}
}

// admission is the result of a check of access.
type admission int

const (
	admitted admission = iota
	notLoggedIn
	wrongHost // a name of another site that leads here
	closed    // others reach the port, and there is no token
	tooMany   // tokens were guessed
)

// admits checks a request. A wrong bearer token is not overridden by a cookie.
func (a *access) admits(r *http.Request) admission {
	switch {
	// In this order: a dashboard without a token is open to loopback alone, and there
	// only under a local name. A page of another site could otherwise reach it through a
	// name that resolves to this address.
	case a.token == "" && !a.loopback:
		return closed
	case a.token == "" && !localHost(r.Host):
		return wrongHost
	case a.token == "":
		return admitted
	}
	if given, ok := bearer(r); ok {
		return a.try(given, r.RemoteAddr)
	}
	if a.hasSession(r) {
		return admitted
	}
	return notLoggedIn
}

// bearer returns the token that a request comes with, if it does.
func bearer(r *http.Request) (token string, ok bool) {
	return strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
}

// try returns admitted if a token is right. After too many wrong ones none is looked at for a while, also not the
// right one: else the limit would not keep anybody from guessing on.
func (a *access) try(token, from string) admission {
	now := a.now()
	switch {
	case a.tries.TokensAt(now) < 1:
		return tooMany
	case a.right(token):
		// Only wrong tokens count, so that monitoring with the right one is never slowed
		// down.
		return admitted
	}
	a.tries.AllowN(now, 1)
	a.log.Warn("dashboard: wrong admin token rejected", "from", from)
	return notLoggedIn
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

// hasSession reports whether a request comes from a browser that knew the token.
func (a *access) hasSession(r *http.Request) bool {
	c, err := r.Cookie(sessionCookie)
	if err != nil {
		return false
	}
	until, signature, _ := strings.Cut(c.Value, ".")
	seconds, err := strconv.ParseInt(until, 10, 64)
	return err == nil && a.now().Before(time.Unix(seconds, 0)) && hmac.Equal([]byte(signature), []byte(a.sign(until)))
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

// Bearer lets through to h who sends the token as Authorization: Bearer, where there is no dashboard to log in at.
// Wrong tokens are logged, and who guesses is slowed down.
func Bearer(token string, log *slog.Logger, h http.Handler) http.Handler {
	a := newAccess(Config{Token: token, Now: time.Now, Logger: log})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		comes := notLoggedIn
		if given, ok := bearer(r); ok {
			comes = a.try(given, r.RemoteAddr)
		}
		switch comes {
		case admitted:
			h.ServeHTTP(w, r)
		case tooMany:
			http.Error(w, tooManyTries, http.StatusTooManyRequests)
		default:
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "needs the admin token: Authorization: Bearer TOKEN", http.StatusUnauthorized)
		}
	})
}

// right compares a token in a time that does not tell how much of it is right.
func (a *access) right(token string) bool {
	given, want := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(a.token))
	return subtle.ConstantTimeCompare(given[:], want[:]) == 1
}

// sign returns the signature of a session that ends at a time, in seconds since 1970.
func (a *access) sign(until string) string {
	mac := hmac.New(sha256.New, []byte(a.token))
	mac.Write([]byte("licensed dashboard session until " + until))
	return hex.EncodeToString(mac.Sum(nil))
}

// session returns the cookie of a browser that knew the token.
func (a *access) session(r *http.Request) *http.Cookie {
	until := a.now().Add(sessionAge)
	seconds := strconv.FormatInt(until.Unix(), 10)
	return &http.Cookie{
		Name: sessionCookie, Value: seconds + "." + a.sign(seconds), Path: "/", MaxAge: int(sessionAge.Seconds()),
		HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: r.TLS != nil,
	}
}

// The pages of requests that are not admitted.
var (
	errNotLoggedIn = &pageError{
		status: http.StatusUnauthorized,
		title:  "Not logged in",
		text:   "The session has ended. Log in again with the admin token.",
	}
	errWrongHost = &pageError{status: http.StatusForbidden, title: "Not available under this host name",
		text: "Without an admin token the dashboard answers only under localhost or a loopback address. " +
			"Open it there, or start licensed with --admin-token-file."}
	errTooMany = &pageError{
		status: http.StatusTooManyRequests,
		title:  "Too many tries",
		text:   "Wrong admin tokens were given; wait some seconds.",
	}
	errClosed = &pageError{status: http.StatusForbidden, title: "The dashboard is closed",
		text: "Others can reach this port, and there is no admin token. Start licensed with --admin-token-file, " +
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
	if d.access.admits(r) == admitted {
		http.Redirect(w, r, next, http.StatusSeeOther)
		return nil
	}
	if d.access.token == "" {
		return errClosed
	}
	return d.render(w, http.StatusOK, "login", "", view{Title: "Log in", Body: loginView{Next: next}})
}

// enter checks the token of the form, and sets the cookie.
func (d *Dashboard) enter(w http.ResponseWriter, r *http.Request) error {
	if d.access.token == "" {
		return errClosed
	}
	// next was checked: a login must not lead to another site.
	next, wrong, status := backTo(r.FormValue("next")), wrongToken, http.StatusUnauthorized
	switch d.access.try(r.FormValue("token"), r.RemoteAddr) {
	case admitted:
		http.SetCookie(w, d.access.session(r))
		http.Redirect(w, r, next, http.StatusSeeOther)
		return nil
	case tooMany:
		wrong, status = tooManyTries, http.StatusTooManyRequests
	}
	return d.render(w, status, "login", "", view{Title: "Log in", Body: loginView{Next: next, Error: wrong}})
}

// logout removes the cookie. The session itself cannot be ended before its time, since
// nothing keeps it.
func (d *Dashboard) logout(w http.ResponseWriter, r *http.Request) error {
	http.SetCookie(w,
		&http.Cookie{Name: sessionCookie, Path: "/", MaxAge: -1, HttpOnly: true, SameSite: http.SameSiteStrictMode})
	http.Redirect(w, r, Path+"login", http.StatusSeeOther)
	return nil
}
