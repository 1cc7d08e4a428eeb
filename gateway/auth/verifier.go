package auth

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"licensed/internal/budget"
)

// Bounds of what a verifier remembers.
const (
	// remembered is the number of tokens that were verified, each some 400 bytes.
	remembered = 16384
	// rememberFor is the longest time for which a token is not verified again.
	rememberFor = 5 * time.Minute
)

// An address has this many wrong tokens at once, and one comes back after attemptEvery. Beyond that no signature is
// checked for it.
const (
	attempts     = 20
	attemptEvery = time.Second
)

// filePoll is the interval between looks at the auth file.
const filePoll = time.Second

// tokenIssuer is the issuer of claims from static tokens.
const tokenIssuer = "tokens"

// Config of a verifier.
type Config struct {
	// File is the auth file, read again when it changes.
	File string
	// Poll is the interval between looks at the file; 0 for a second.
	Poll time.Duration
	// Now is the clock; nil for time.Now.
	Now func() time.Time
	// Logger hears of files that were reloaded or cannot be used, and of keys that cannot be fetched.
	Logger *slog.Logger
}

// Verifier is an Authenticator from an auth file.
type Verifier struct {
	config   Config
	state    atomic.Pointer[state]
	attempts *budget.Rate
	stop     context.CancelFunc
	stopped  sync.WaitGroup
}

// state is what a file says. It is not changed.
type state struct {
	read     map[string][]byte // content of each file that was read
	tokens   map[[sha256.Size]byte]*Claims
	patterns []pattern
	issuers  map[string]*issuer
	verified *lru.Cache[[sha256.Size]byte, verified]
	// close ends the refreshing of keys.
	close context.CancelFunc
}

// verified is a token that need not be verified again for some time.
type verified struct {
	claims *Claims
	until  time.Time
}

// Open reads an auth file and watches it. Errors: the file cannot be read, or an entry is wrong. Close the verifier.
func Open(c Config) (*Verifier, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Poll == 0 {
		c.Poll = filePoll
	}
	v := &Verifier{config: c, attempts: budget.NewRate("attempts",
		budget.Each{Address: 1 / attemptEvery.Seconds()}, attempts*attemptEvery)}
	s, err := v.load()
	if err != nil {
		return nil, err
	}
	v.state.Store(s)
	ctx, stop := context.WithCancel(context.Background())
	v.stop = stop
	v.stopped.Go(func() { v.watch(ctx) })
	return v, nil
}

// Close ends the watching of files and the refreshing of keys.
func (v *Verifier) Close() {
	v.stop()
	v.stopped.Wait()
	v.state.Load().close()
}

// Tokens reports whether clients may come without a certificate: the file has tokens or issuers.
func (v *Verifier) Tokens() bool {
	s := v.state.Load()
	return len(s.tokens)+len(s.issuers) > 0
}

// Expiries returns when static tokens of the file expire, by the first digits of their hash.
func (v *Verifier) Expiries() map[string]time.Time {
	all := make(map[string]time.Time)
	for hash, claims := range v.state.Load().tokens {
		if !claims.Expiry.IsZero() {
			all[hex.EncodeToString(hash[:6])] = claims.Expiry
		}
	}
	return all
}

// watch reads the files again when their content changed.
func (v *Verifier) watch(ctx context.Context) {
	tick := time.NewTicker(v.config.Poll)
	defer tick.Stop()
	var failed map[string][]byte // content that could not be used, logged once
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := contents(v.state.Load().read)
		if same(now, v.state.Load().read) || same(now, failed) {
			continue
		}
		s, err := v.load()
		if err != nil {
			failed = now
			v.config.Logger.Error("auth file not reloaded, the former one stays in force",
				"file", v.config.File, "error", err)
			continue
		}
		failed = nil
		v.state.Swap(s).close()
		v.config.Logger.Info("auth file reloaded", "file", v.config.File)
	}
}

// contents returns what files hold; nil for one that cannot be read.
func contents(names map[string][]byte) map[string][]byte {
	all := make(map[string][]byte)
	for name := range names {
		all[name], _ = readFile(name)
	}
	return all
}

// same reports whether files hold the same.
func same(a, b map[string][]byte) bool { return maps.EqualFunc(a, b, bytes.Equal) }

// load reads the file.
func (v *Verifier) load() (*state, error) {
	content, err := readFile(v.config.File)
	if err != nil {
		return nil, fmt.Errorf("read the auth file: %w", err)
	}
	f, err := ParseFile(content)
	if err != nil {
		return nil, fmt.Errorf("auth file %s: %w", v.config.File, err)
	}
	ctx, closeState := context.WithCancel(context.Background())
	s := &state{
		read: map[string][]byte{v.config.File: content}, tokens: make(map[[sha256.Size]byte]*Claims),
		issuers: make(map[string]*issuer), close: closeState,
	}
	s.verified, _ = lru.New[[sha256.Size]byte, verified](remembered)
	for _, t := range f.Tokens {
		roles, _ := ParseRoles(t.Roles) // was checked, as everything below
		var hash [sha256.Size]byte
		_, _ = hex.Decode(hash[:], []byte(t.SHA256))
		s.tokens[hash] = &Claims{
			Subject: t.Subject, Issuer: tokenIssuer, Roles: roles, Customer: t.Customer, Expiry: t.Expires,
		}
	}
	for i := range f.Certificates {
		p, _ := newPattern(&f.Certificates[i])
		s.patterns = append(s.patterns, p)
	}
	for _, c := range f.Issuers {
		if c.JWKSFile != "" {
			if s.read[c.JWKSFile], err = readFile(c.JWKSFile); err != nil {
				closeState()
				return nil, fmt.Errorf("auth file %s: issuer %s: keys: %w", v.config.File, c.Issuer, err)
			}
		}
		if s.issuers[c.Issuer], err = newIssuer(ctx, c, s.read[c.JWKSFile], v.config.Now, v.config.Logger); err != nil {
			closeState()
			return nil, fmt.Errorf("auth file %s: %w", v.config.File, err)
		}
	}
	return s, nil
}

// Authenticate implements Authenticator. A wrong token is not overridden by a certificate.
func (v *Verifier) Authenticate(ctx context.Context, c Credentials) (*Claims, error) {
	s, now := v.state.Load(), v.config.Now()
	var claims *Claims
	var err error
	switch {
	case c.Token != "":
		claims, err = v.ofToken(ctx, s, c, now)
	case len(c.Certificates) > 0:
		claims, err = s.ofCertificate(c.Certificates)
	default:
		return nil, failed(Missing, "the request has no credentials: send a token as Authorization: Bearer TOKEN, "+
			"or show a client certificate")
	}
	if err != nil {
		return nil, err
	}
	if claims.Expired(now) {
		return nil, failed(Expired, "the credentials expired; get new ones")
	}
	return claims, nil
}

// ofToken returns the claims of a bearer token. Tokens are found by their hash, so that the time it takes tells
// nothing of those that exist.
func (v *Verifier) ofToken(ctx context.Context, s *state, c Credentials, now time.Time) (*Claims, error) {
	if len(c.Token) > maxToken {
		return nil, failed(Malformed, "the bearer token is longer than %d bytes", maxToken)
	}
	hash := sha256.Sum256([]byte(c.Token))
	if claims, ok := s.tokens[hash]; ok {
		return claims, nil
	}
	if known, ok := s.verified.Get(hash); ok && now.Before(known.until) {
		return known.claims, nil
	}
	// The limit is also on having signatures checked.
	if !v.attempts.Left(now, c.Source) {
		return nil, failed(TooMany, "too many wrong tokens came from this address; wait some seconds")
	}
	claims, err := s.ofJWT(ctx, c.Token)
	if err != nil {
		if err.Kind != Unavailable { // Not the caller's fault.
			_ = v.attempts.Take(now, c.Source) // Others may have taken the last one meanwhile.
		}
		return nil, err
	}
	until := now.Add(rememberFor)
	if claims.Expiry.Before(until) {
		until = claims.Expiry
	}
	s.verified.Add(hash, verified{claims, until})
	return claims, nil
}
