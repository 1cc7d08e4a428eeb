// Package tlsfiles secures connections with certificates and keys in PEM files, which are read again for each
// connection: one that begins gets what the files hold then, one that exists keeps what it began with. Files that
// cannot be used, like a new certificate whose key is yet to be written, leave the former in force.
//
// With certificate revocation lists, each certificate below a CA is looked up in the list of its issuer. A certificate
// whose issuer has no list is refused, and so are all of an issuer whose list expired: a list that somebody keeps from
// being renewed must not bring a revoked certificate back.
package tlsfiles

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// Files are PEM files. Without any, connections are not encrypted.
type Files struct {
	// Cert and Key are the certificate, with its chain, and its private key: both or neither.
	Cert, Key string
	// CA has the certificates that the other side's must be signed by.
	CA string
	// CRL has the certificate revocation lists of the certificates in CA, each signed by one of them; empty: none is
	// checked.
	CRL string
}

// Options of Certificates.
type Options struct {
	// Log hears of files that were reloaded, or could not be, and of certificates that were refused; nil for none.
	Log *slog.Logger
	// AcceptExpiredCRLs accepts what is not in a revocation list that expired.
	AcceptExpiredCRLs bool
	// Now is the clock (default time.Now).
	Now func() time.Time
}

// Certificates are what Files hold. It is safe for concurrent use.
type Certificates struct {
	files   Files
	prefix  string // of the settings in errors
	options Options

	// mu guards what follows; it is held while the files are read.
	mu     sync.Mutex
	read   contents // as in force, or last found to be of no use
	server *tls.Config
	asking *tls.Config // server, for clients that may have no certificate
	client *tls.Config
	lists  *lists // nil without CRL
	expiry []Expiry

	refusals refusals
}

// contents of Files.
type contents struct{ cert, key, ca, crl []byte }

// Open reads the files; nil if there are none. Errors name settings, which begin with a prefix like "--tls-" and
// end with cert, key, ca and crl.
func (f Files) Open(prefix string, o Options) (*Certificates, error) {
	switch {
	case f == (Files{}):
		return nil, nil
	case (f.Cert == "") != (f.Key == ""):
		return nil, fmt.Errorf("%scert, %skey: both are needed to show a certificate", prefix, prefix)
	case f.CRL != "" && f.CA == "":
		return nil, fmt.Errorf("%scrl: needs %sca, which has the issuers of the lists", prefix, prefix)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	c := &Certificates{files: f, prefix: prefix, options: o}
	read, err := c.load()
	if err != nil {
		return nil, err
	}
	if err := c.use(read); err != nil {
		return nil, err
	}
	return c, nil
}

// OpenServer is Open for a side that is connected to, which needs a certificate.
func (f Files) OpenServer(prefix string, o Options) (*Certificates, error) {
	if f != (Files{}) && (f.Cert == "" || f.Key == "") {
		return nil, fmt.Errorf("%scert, %skey: both are needed for TLS", prefix, prefix)
	}
	return f.Open(prefix, o)
}

// OpenMutual is OpenServer for processes of a cluster among themselves. A CA is needed: the one side must know the
// other.
func (f Files) OpenMutual(prefix string, o Options) (*Certificates, error) {
	c, err := f.OpenServer(prefix, o)
	if c != nil && f.CA == "" {
		return nil, fmt.Errorf("%sca: is needed, so that processes know each other", prefix)
	}
	return c, err
}

// Server returns how to be connected to; nil for unencrypted. With a CA, clients must show a certificate of it.
func (c *Certificates) Server() *tls.Config { return c.each(func() *tls.Config { return c.server }) }

// Asking is Server for clients that may prove by other means who they are: with a CA, a client may show a certificate
// of it, or none.
func (c *Certificates) Asking() *tls.Config { return c.each(func() *tls.Config { return c.asking }) }

// each returns a configuration that is chosen for each connection. choose is called while mu is held.
func (c *Certificates) each(choose func() *tls.Config) *tls.Config {
	if c == nil {
		return nil
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.look()
			return choose(), nil
		},
	}
}

// Client returns how to connect; nil for unencrypted. Its certificate and its revocation lists are the present ones at
// each connection, its CA that of now: to follow a change of the CA, a caller asks again for each connection.
func (c *Certificates) Client() *tls.Config {
	if c == nil {
		return nil
	}
	client := c.now().Clone()
	if client.Certificates != nil {
		client.Certificates = nil
		client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &c.now().Certificates[0], nil
		}
	}
	if c.files.CRL != "" {
		client.VerifyConnection = func(s tls.ConnectionState) error { return c.Check(s.VerifiedChains) }
	}
	return client
}

// LogTo changes Options.Log.
func (c *Certificates) LogTo(log *slog.Logger) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.options.Log = log
}

// now returns how to connect, after a look at the files: once for each connection,
// which costs little beside its handshake, and needs no watcher.
func (c *Certificates) now() *tls.Config {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.look()
	return c.client
}

// look puts files that changed into force. The caller holds mu.
func (c *Certificates) look() {
	read, err := c.load()
	if read.equal(c.read) {
		return // unchanged, or as far as it could be read: logged before
	}
	if err == nil {
		err = c.use(read)
	}
	c.read = read
	if err != nil {
		c.options.Log.Error("certificates not reloaded, the former ones stay in force", "error", err)
		return
	}
	c.options.Log.Info("certificates reloaded", "cert", c.files.Cert, "ca", c.files.CA, "crl", c.files.CRL)
}

// load reads the files. With an error it returns what could be read, so that look can
// tell whether anything changed.
func (c *Certificates) load() (contents, error) {
	var read contents
	var errs []error
	for _, f := range []struct {
		name, setting string
		to            *[]byte
	}{
		{c.files.Cert, "cert", &read.cert}, {c.files.Key, "key", &read.key}, {c.files.CA, "ca", &read.ca},
		{c.files.CRL, "crl", &read.crl},
	} {
		if f.name == "" {
			continue
		}
		var err error
		if *f.to, err = os.ReadFile(f.name); err != nil {
			errs = append(errs, fmt.Errorf("%s%s: %w", c.prefix, f.setting, err))
		}
	}
	return read, errors.Join(errs...)
}

// use puts contents into force, or returns what is wrong with them and changes nothing.
func (c *Certificates) use(read contents) error {
	client := &tls.Config{MinVersion: tls.VersionTLS12}
	server := &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"}, // servers add theirs only to the configuration they are given
	}
	var expiry []Expiry
	if c.files.Cert != "" {
		pair, err := tls.X509KeyPair(read.cert, read.key)
		if err != nil {
			return fmt.Errorf("%scert, %skey: %w", c.prefix, c.prefix, err)
		}
		server.Certificates, client.Certificates = []tls.Certificate{pair}, []tls.Certificate{pair}
		chain, err := parse(read.cert)
		if err != nil {
			return fmt.Errorf("%scert: %s: %w", c.prefix, c.files.Cert, err)
		}
		expiry = append(expiry, of(KindCertificate, c.files.Cert, chain)...)
	}
	var lists *lists
	if c.files.CA != "" {
		cas, err := parse(read.ca)
		if err != nil {
			return fmt.Errorf("%sca: %s: %w", c.prefix, c.files.CA, err)
		}
		pool := x509.NewCertPool()
		for _, ca := range cas {
			pool.AddCert(ca)
		}
		expiry = append(expiry, of(KindCA, c.files.CA, cas)...)
		if c.files.CRL != "" {
			if lists, err = parseLists(read.crl, cas); err != nil {
				return fmt.Errorf("%scrl: %s: %w", c.prefix, c.files.CRL, err)
			}
			expiry = append(expiry, lists.expiry(c.files.CRL)...)
			server.VerifyConnection = func(s tls.ConnectionState) error { return c.check(lists, s.VerifiedChains) }
		}
		server.ClientCAs, server.ClientAuth, client.RootCAs = pool, tls.RequireAndVerifyClientCert, pool
		// A session that is resumed shows no certificate, also after its CA is not trusted any more.
		server.SessionTicketsDisabled = true
	}
	asking := server.Clone()
	if c.files.CA != "" {
		asking.ClientAuth = tls.VerifyClientCertIfGiven
	}
	c.read, c.server, c.asking, c.client, c.lists, c.expiry = read, server, asking, client, lists, expiry
	return nil
}

// equal reports whether two readings found the same.
func (c contents) equal(o contents) bool {
	return bytes.Equal(c.cert, o.cert) && bytes.Equal(c.key, o.key) && bytes.Equal(c.ca, o.ca) &&
		bytes.Equal(c.crl, o.crl)
}
