package siege

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode"

	"github.com/golang-jwt/jwt/v5"

	"licensed/internal/throwaway"
)

const (
	listLicenses  = "/licensed.v1.LicenseService/ListLicenses"
	acquire       = "/licensed.v1.LicenseService/AcquireLicense"
	listCustomers = "/licensed.v1.AdminService/ListCustomers"
	getCluster    = "/licensed.v1.AdminService/GetCluster"
)

// aboutOther is a request about a customer of others.
const aboutOther = `{"customerId":"` + canaryCustomer + `0"}`

// apiCall is a request of an attacker to the API.
type apiCall struct {
	path, body, token string
	header            http.Header
	host              string
}

// call sends a request to a gateway, and returns the status and the answer.
func (s *siege) call(ctx context.Context, m *member, c apiCall) (status int, answer string, err error) {
	client := s.client(s.attacker())
	defer client.CloseIdleConnections()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url(m, apiPort)+c.path, strings.NewReader(c.body))
	if err != nil {
		return 0, "", err
	}
	for name, values := range c.header {
		r.Header[name] = values
	}
	if r.Header.Get("Content-Type") == "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	r.Host = c.host
	res, err := client.Do(r)
	if err != nil {
		return 0, "", err
	}
	answer, err = read(res)
	s.answered(answer)
	return res.StatusCode, answer, err
}

// refusedCall is an attack that is one request, which must be refused at every gateway.
func refusedCall(group, name string, make func(s *siege) (apiCall, error)) Attack {
	return Attack{group, name, "refused", func(ctx context.Context, s *siege) (o Outcome, err error) {
		for _, g := range s.gateways() {
			c, err := make(s)
			if err != nil {
				return o, err
			}
			status, answer, err := s.call(ctx, g, c)
			if err != nil {
				return o, err
			}
			if status < 400 {
				return breached("%s answered %d: %s", g.name, status, short(answer)), nil
			}
			o = held("%d %s", status, short(answer))
		}
		return o, nil
	}}
}

// short returns the beginning of a text, on one line.
func short(text string) string {
	const most = 90
	printable := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, " "))
	text = strings.Join(strings.Fields(printable), " ")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

// forgedToken returns a token that is not in order.
type forgedToken func(s *secrets) (string, error)

// withClaims returns a token of the issuer whose claims are changed.
func withClaims(changes jwt.MapClaims) forgedToken {
	return func(s *secrets) (string, error) {
		return signed(jwt.SigningMethodRS256, s.issuer, claims(changes), nil)
	}
}

// tokenAttacks are those with credentials that are not in order.
func tokenAttacks() []Attack {
	const group = "tokens"
	all := []Attack{
		refusedCall(group, "none", func(*siege) (apiCall, error) {
			return apiCall{path: listLicenses, body: aboutOther}, nil
		}),
		refusedCall(group, "customer's own, for another customer", func(s *siege) (apiCall, error) {
			token, err := s.secrets.token("customer")
			return apiCall{path: listLicenses, body: aboutOther, token: token}, err
		}),
		refusedCall(group, "customer's own, at AdminService", func(s *siege) (apiCall, error) {
			token, err := s.secrets.token("customer")
			return apiCall{path: listCustomers, body: "{}", token: token}, err
		}),
		refusedCall(group, "service's, at an operator's method", func(s *siege) (apiCall, error) {
			token, err := s.secrets.token("service")
			return apiCall{path: "/licensed.v1.AdminService/DrainNode", body: `{"name":"n1"}`, token: token}, err
		}),
		refusedCall(group, "operator's, at a licence method", func(s *siege) (apiCall, error) {
			token, err := s.secrets.token("operator")
			return apiCall{path: acquire, body: `{"customerId":"x","deviceId":"d","titleId":"T","commandId":"c"}`,
				token: token}, err
		}),
	}
	foreign := func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) }
	for _, one := range []struct {
		name string
		make forgedToken
	}{
		{"random words", func(*secrets) (string, error) { return rand.Text(), nil }},
		{"alg none", func(*secrets) (string, error) {
			return signed(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, claims(nil), nil)
		}},
		{"alg HS256 with the public key as secret", func(s *secrets) (string, error) {
			der, err := x509.MarshalPKIXPublicKey(&s.issuer.PublicKey)
			if err != nil {
				return "", err
			}
			public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
			return signed(jwt.SigningMethodHS256, public, claims(nil), nil)
		}},
		{"signed by another key of the same id", func(*secrets) (string, error) {
			key, err := foreign()
			if err != nil {
				return "", err
			}
			return signed(jwt.SigningMethodRS256, key, claims(nil), nil)
		}},
		{"with the attacker's key in its header", func(*secrets) (string, error) {
			key, err := foreign()
			if err != nil {
				return "", err
			}
			return signed(jwt.SigningMethodRS256, key, claims(nil), map[string]any{
				"jku": "http://127.0.0.1:1/jwks", "jwk": map[string]string{"kty": "RSA", "e": "AQAB"},
				"kid": "../../../../dev/null",
			})
		}},
		{"another audience", withClaims(jwt.MapClaims{"aud": "shop"})},
		{"no audience", withClaims(jwt.MapClaims{"aud": nil})},
		{"another issuer", withClaims(jwt.MapClaims{"iss": "https://evil.example.org"})},
		{"expired", withClaims(jwt.MapClaims{"exp": time.Now().Add(-time.Hour).Unix()})},
		{"without expiry", withClaims(jwt.MapClaims{"exp": nil})},
		{"not valid yet", withClaims(jwt.MapClaims{"nbf": time.Now().Add(time.Hour).Unix()})},
		{"another customer's id", withClaims(jwt.MapClaims{"scope": "customer", "customer": throwaway.Customer})},
		{"customer without an id", withClaims(jwt.MapClaims{"scope": "customer"})},
		{"roles that no rule gives", withClaims(jwt.MapClaims{"scope": "operator importer", "roles": "operator"})},
	} {
		all = append(all, refusedCall(group, one.name, func(s *siege) (apiCall, error) {
			token, err := one.make(s.secrets)
			return apiCall{path: listLicenses, body: aboutOther, token: token}, err
		}))
	}
	// A test of the tests: a token that is in order is accepted, so that the others are not refused for a mistake here.
	all = append(all, Attack{group, "in order (the other way round)", "accepted",
		func(ctx context.Context, s *siege) (Outcome, error) {
			token, err := signed(jwt.SigningMethodRS256, s.secrets.issuer, claims(nil), nil)
			if err != nil {
				return Outcome{}, err
			}
			status, answer, err := s.call(ctx, s.gateways()[0],
				apiCall{path: listLicenses, body: aboutOther, token: token})
			if err != nil || status != http.StatusOK {
				return breached("a token in order is refused: %d %s %v", status, short(answer), err), nil
			}
			return held("%d", status), nil
		}}, guesses())
	return all
}

// guesses tries many tokens, and then one that is right, from another address.
func guesses() Attack {
	return Attack{"tokens", "guess 300 tokens", "slowed down; others are served", func(
		ctx context.Context, s *siege,
	) (Outcome, error) {
		slowed := 0
		for range 300 {
			status, _, err := s.call(ctx, s.gateways()[0],
				apiCall{path: listLicenses, body: aboutOther, token: rand.Text()})
			switch {
			case err != nil:
				return Outcome{}, err
			case status < 400:
				return breached("a guess was accepted"), nil
			case status == http.StatusTooManyRequests:
				slowed++
			}
		}
		if slowed == 0 {
			return breached("none of 300 guesses was slowed down"), nil
		}
		return held("%d of 300 guesses slowed down", slowed), nil
	}}
}

// foreignHost is the name of a site that an attacker made resolve to this machine.
const foreignHost = "evil.example.org"

// adminPaths are pages of the admin port that need credentials.
var adminPaths = []string{
	"/metrics", "/debug/pprof/", "/debug/pprof/goroutine?debug=2", "/debug/pprof/heap", "/debug/pprof/cmdline",
	"/dashboard/",
}

// page gets a page of the admin port, or of another one.
func (s *siege) page(ctx context.Context, m *member, port, path, host string, header http.Header) (
	status int, body string, err error,
) {
	client := s.client(s.attacker())
	defer client.CloseIdleConnections()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url(m, port)+path, nil)
	if err != nil {
		return 0, "", err
	}
	r.Host = host
	for name, values := range header {
		r.Header[name] = values
	}
	res, err := client.Do(r)
	if err != nil {
		return 0, "", err
	}
	body, err = read(res)
	return res.StatusCode, body, err
}

// onAdmin is an attack on each page of each admin port, of which none may answer.
func onAdmin(group, name string, make func(s *siege) (host string, header http.Header, err error)) Attack {
	return Attack{group, name, "refused", func(ctx context.Context, s *siege) (o Outcome, err error) {
		host, header, err := make(s)
		if err != nil {
			return o, err
		}
		for _, m := range s.members {
			for _, path := range adminPaths {
				status, body, err := s.page(ctx, m, adminPort, path, host, header)
				if err != nil {
					return o, err
				}
				s.answered(body)
				if status < 300 {
					return breached("%s of %s answered %d", path, m.name, status), nil
				}
				o = held("%d", status)
			}
		}
		return o, nil
	}}
}

func bearer(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }

// webAttacks are those on pages, and by pages of others.
func webAttacks() []Attack {
	return []Attack{
		onAdmin("admin port", "without credentials", func(*siege) (string, http.Header, error) { return "", nil, nil }),
		onAdmin("admin port", "customer's token", func(s *siege) (string, http.Header, error) {
			token, err := s.secrets.token("customer")
			return "", bearer(token), err
		}),
		onAdmin("rebinding", "foreign name at the admin port, right token",
			func(s *siege) (string, http.Header, error) {
				return foreignHost, bearer(s.secrets.canaries["the admin token"]), nil
			}),
		{"rebinding", "foreign name at the API, right token", "refused", func(ctx context.Context, s *siege) (
			Outcome, error,
		) {
			token, err := s.secrets.token("service")
			if err != nil {
				return Outcome{}, err
			}
			status, answer, err := s.call(ctx, s.gateways()[0],
				apiCall{path: listLicenses, body: aboutOther, token: token, host: foreignHost})
			if err == nil && status < 400 {
				return breached("answered %d", status), nil
			}
			return held("%d %s", status, short(answer)), err
		}},
		{"rebinding", "another site's form at the dashboard", "refused", func(ctx context.Context, s *siege) (
			o Outcome, err error,
		) {
			return s.foreignForm(ctx)
		}},
		{"admin port", "process's command line in profiles", "not available", func(ctx context.Context, s *siege) (
			o Outcome, err error,
		) {
			for _, m := range s.members {
				status, body, err := s.page(ctx, m, adminPort, "/debug/pprof/cmdline", "",
					bearer(s.secrets.canaries["the admin token"]))
				if err != nil {
					return o, err
				}
				if status == http.StatusOK && bytes.Contains([]byte(body), []byte("--")) {
					return breached("%s tells its command line", m.name), nil
				}
				o = held("%d", status)
			}
			return o, nil
		}},
	}
}

// foreignForm posts the login form of the dashboard as a page of another site makes browsers do, with the right token.
func (s *siege) foreignForm(ctx context.Context) (o Outcome, err error) {
	for _, m := range s.members {
		client := s.client(s.attacker())
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url(m, adminPort)+"/dashboard/login",
			strings.NewReader("token="+s.secrets.canaries["the admin token"]))
		if err != nil {
			return o, err
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Origin", "https://"+foreignHost)
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		res, err := client.Do(r)
		if err != nil {
			return o, err
		}
		body, err := read(res)
		client.CloseIdleConnections()
		if err != nil {
			return o, err
		}
		s.answered(body)
		if len(res.Cookies()) > 0 {
			return breached("%s gave another site's form a session", m.name), nil
		}
		o = held("%s", fmt.Sprint(res.StatusCode))
	}
	return o, nil
}
