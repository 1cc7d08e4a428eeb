package siege

import (
	"context"
	"crypto/rsa"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"licensed/client"
	"licensed/internal/tlsfiles"
	"licensed/messages/licensedv1"
)

// identityOf is how a client of the load proves who it is.
type identityOf int

const (
	byToken identityOf = iota
	byJWT
	byCertificate
)

// rotationLoad is clients that call all gateways, and repeat nothing.
type rotationLoad struct {
	r      *rotation
	server *tlsfiles.Certificates // without a certificate of the client
	mutual *tlsfiles.Certificates
	cancel context.CancelFunc
	all    sync.WaitGroup

	mu       sync.Mutex
	issuer   *rsa.PrivateKey
	kid      string
	calls    int
	failures []error
}

// startRotationLoad starts the clients.
func startRotationLoad(r *rotation) *rotationLoad {
	l := &rotationLoad{r: r, issuer: r.secrets.issuer, kid: keyID}
	files := tlsfiles.Files{CA: r.file("server-ca.pem")}
	var err error
	if l.server, err = files.Open("server-", tlsfiles.Options{}); err != nil {
		r.t.Fatal(err)
	}
	files.Cert, files.Key = r.file("service.pem"), r.file("service-key.pem")
	if l.mutual, err = files.Open("mutual-", tlsfiles.Options{}); err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	r.t.Cleanup(l.stop)
	var addresses []string
	for _, m := range r.gateways() {
		addresses = append(addresses, m.at(apiPort))
	}
	for _, by := range []identityOf{byToken, byJWT, byCertificate} {
		l.all.Go(func() { l.keep(ctx, by, addresses) })
		l.all.Go(func() { l.renew(ctx, by, addresses) })
	}
	return l
}

func (l *rotationLoad) stop() {
	l.cancel()
	l.all.Wait()
}

// options returns those of a client.
func (l *rotationLoad) options(by identityOf) client.Options {
	o := client.Options{RetryRatio: -1, NewTLS: l.server.Client}
	switch by {
	case byToken:
		o.Token = func(context.Context) (string, error) {
			return strings.TrimSpace(string(l.r.read(l.r.file("token")))), nil
		}
	case byJWT:
		o.Token = func(context.Context) (string, error) { return l.jwt() }
	case byCertificate:
		o.NewTLS = func() *tls.Config { return l.mutual.Client() }
	}
	return o
}

// sign has tokens signed by another key from now on.
func (l *rotationLoad) sign(key *rsa.PrivateKey, kid string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.issuer, l.kid = key, kid
}

// jwt returns a token of the issuer.
func (l *rotationLoad) jwt() (string, error) {
	l.mu.Lock()
	key, kid := l.issuer, l.kid
	l.mu.Unlock()
	return signed(jwt.SigningMethodRS256, key, claims(nil), map[string]any{"kid": kid})
}

func (l *rotationLoad) dial(o client.Options, addresses ...string) *client.Client {
	c, err := client.Dial(addresses, o)
	if err != nil {
		l.r.t.Error(err) // Not fatal: clients dial in goroutines of their own.
	}
	return c
}

// keep calls over connections that stay.
func (l *rotationLoad) keep(ctx context.Context, by identityOf, addresses []string) {
	c := l.dial(l.options(by), addresses...)
	defer c.Close()
	for n := 0; ctx.Err() == nil; n++ {
		l.count(ctx, by, l.call(ctx, c, n))
		time.Sleep(10 * time.Millisecond)
	}
}

// renew calls over a new connection each time.
func (l *rotationLoad) renew(ctx context.Context, by identityOf, addresses []string) {
	for n := 0; ctx.Err() == nil; n++ {
		c := l.dial(l.options(by), addresses[n%len(addresses)])
		l.count(ctx, by, l.call(ctx, c, n))
		_ = c.Close()
		time.Sleep(10 * time.Millisecond)
	}
}

// call is a command or a query. A refusal by the rules is an answer.
func (l *rotationLoad) call(ctx context.Context, c *client.Client, n int) error {
	customer := fmt.Sprintf("rotation%d", n%40)
	var err error
	if n%2 == 0 {
		_, err = c.AcquireLicense(ctx, &licensedv1.AcquireLicenseRequest{
			CustomerId: customer, DeviceId: "iphone", TitleId: fmt.Sprintf("GlowS01E%02d", n%7+1),
		})
	} else {
		_, err = c.ListLicenses(ctx, &licensedv1.ListLicensesRequest{CustomerId: customer})
	}
	if refusal := (*client.Refusal)(nil); errors.As(err, &refusal) {
		return nil
	}
	return err
}

// count counts a call, unless the load ended meanwhile.
func (l *rotationLoad) count(ctx context.Context, by identityOf, err error) {
	if ctx.Err() != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls++
	if err != nil {
		l.failures = append(l.failures, fmt.Errorf("client %d, %v: %w", by, time.Now().UTC(), err))
	}
}

func (l *rotationLoad) counts() (calls int, failures []error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.calls, l.failures
}

// more waits for that number of further calls, and returns the number of all calls.
func (l *rotationLoad) more(n int) int {
	l.r.t.Helper()
	before, _ := l.counts()
	var calls int
	l.r.await("further calls", func() bool { calls, _ = l.counts(); return calls >= before+n })
	return calls
}
