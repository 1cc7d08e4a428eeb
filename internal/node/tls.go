package node

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

// TLSFiles are PEM files. Without any, connections are not encrypted. They are read again when they change.
type TLSFiles struct {
	// Cert and Key are the certificate, with its chain, and its private key.
	Cert, Key string
	// CA has the certificates that the other side's must be signed by.
	CA string
}

// certificates are what TLSFiles hold. A connection that begins gets what they hold then; one that is present
// already keeps what it began with. Files that cannot be used, like a new certificate whose key is yet to be
// written, leave the former in force. It is safe for concurrent use.
type certificates struct {
	files TLSFiles
	flag  string // errors begin with its name
	log   *slog.Logger
	every time.Duration // how often files are looked at, at most

	mu     sync.Mutex
	looked time.Time
	read   pems // as in force, or last found to be of no use
	server *tls.Config
	client *tls.Config
}

// pems are the contents of TLSFiles.
type pems struct{ cert, key, ca []byte }

// lookEvery is how often files of certificates are looked at, at most.
const lookEvery = 5 * time.Second

// open reads the files; nil for unencrypted. Errors begin with the name of a flag.
func (f TLSFiles) open(flag string, log *slog.Logger) (*certificates, error) {
	if f == (TLSFiles{}) {
		return nil, nil
	}
	if f.Cert == "" || f.Key == "" {
		return nil, fmt.Errorf("%s-cert, %s-key: both are needed for TLS", flag, flag)
	}
	c := &certificates{files: f, flag: flag, log: log, every: lookEvery}
	read, err := c.load()
	if err != nil {
		return nil, err
	}
	if err := c.use(read); err != nil {
		return nil, err
	}
	c.looked = time.Now()
	return c, nil
}

// openMutual is open for processes of a cluster among themselves. A CA is needed: the one side must know the
// other.
func (f TLSFiles) openMutual(flag string, log *slog.Logger) (*certificates, error) {
	c, err := f.open(flag, log)
	if c != nil && f.CA == "" {
		return nil, fmt.Errorf("%s-ca: is needed, so that processes know each other", flag)
	}
	return c, err
}

// serving returns how to be connected to; nil for unencrypted.
func (c *certificates) serving() *tls.Config {
	if c == nil {
		return nil
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			server, _ := c.now()
			return server, nil
		},
	}
}

// connecting returns how to connect now.
func (c *certificates) connecting() *tls.Config {
	_, client := c.now()
	return client
}

// now returns what is in force, after a look at the files if the last one was long ago.
func (c *certificates) now() (server, client *tls.Config) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.looked) >= c.every {
		c.looked = now
		c.look()
	}
	return c.server, c.client
}

// look processes files that changed. The caller holds mu.
func (c *certificates) look() {
	read, err := c.load()
	if err == nil {
		if read.equal(c.read) {
			return
		}
		err = c.use(read)
	} else if c.read.equal(read) { // as far as it could be read: said before
		return
	}
	c.read = read
	if err != nil {
		c.log.Error("certificates not reloaded, the former ones stay in force", "error", err)
		return
	}
	c.log.Info("certificates reloaded", "cert", c.files.Cert, "ca", c.files.CA)
}

// load reads the files.
func (c *certificates) load() (pems, error) {
	var read pems
	var errs []error
	for _, f := range []struct {
		name, flag string
		to         *[]byte
	}{{c.files.Cert, "-cert", &read.cert}, {c.files.Key, "-key", &read.key}, {c.files.CA, "-ca", &read.ca}} {
		if f.name == "" {
			continue
		}
		var err error
		if *f.to, err = os.ReadFile(f.name); err != nil {
			errs = append(errs, fmt.Errorf("%s%s: %w", c.flag, f.flag, err))
		}
	}
	return read, errors.Join(errs...)
}

// use puts contents into force, or says what is wrong with them.
func (c *certificates) use(read pems) error {
	pair, err := tls.X509KeyPair(read.cert, read.key)
	if err != nil {
		return fmt.Errorf("%s-cert, %s-key: %w", c.flag, c.flag, err)
	}
	server := &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair},
		NextProtos: []string{"h2", "http/1.1"}, // those who serve add theirs only to the configuration they are given
	}
	client := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: server.Certificates}
	if c.files.CA != "" {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(read.ca) {
			return fmt.Errorf("%s-ca: %s: no certificate in it", c.flag, c.files.CA)
		}
		server.ClientCAs, server.ClientAuth, client.RootCAs = pool, tls.RequireAndVerifyClientCert, pool
		// A session that is resumed shows no certificate, also after its CA is not trusted any more.
		server.SessionTicketsDisabled = true
	}
	c.read, c.server, c.client = read, server, client
	return nil
}

func (p pems) equal(o pems) bool {
	return bytes.Equal(p.cert, o.cert) && bytes.Equal(p.key, o.key) && bytes.Equal(p.ca, o.ca)
}
