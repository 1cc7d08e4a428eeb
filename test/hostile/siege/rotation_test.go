package siege

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"licensed/internal/harness"
	"licensed/internal/signingkeys"
	"licensed/internal/throwaway"
	"licensed/messages/licensedv1"
	"licensed/persistence/cassandra"
	"licensed/persistence/cassandra/cassandratest"
)

var rotationTable = flag.String("rotation-table", "", "file to write the table of TestRotation to, as Markdown")

// rotation is a cluster on real Cassandra, whose keys and certificates are rotated while clients call it. The files of
// clients are below dir.
type rotation struct {
	*site
	t     *testing.T
	dir   string
	next  *authority // the one that takes the place of secrets.ca
	store *cassandratest.Cluster
	roles cassandratest.Roles
	load  *rotationLoad
	rows  []rotationRow
}

// rotationRow is what came of one rotation.
type rotationRow struct {
	what, how, shown string
	calls            int
}

func (r *rotation) file(name string) string { return filepath.Join(r.dir, name) }

// put replaces a file as an operator does: under another name first.
func (r *rotation) put(path string, parts ...[]byte) {
	r.t.Helper()
	if err := os.WriteFile(path+".new", slices.Concat(parts...), 0o600); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rotation) read(path string) []byte {
	r.t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		r.t.Fatal(err)
	}
	return content
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// lists returns the revocation list of the authority.
func (r *rotation) lists(a *authority, serials ...*big.Int) []byte {
	r.t.Helper()
	template := &x509.RevocationList{
		Number: big.NewInt(time.Now().UnixNano()), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour),
	}
	for _, serial := range serials {
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: serial, RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, template, a.cert, a.key)
	if err != nil {
		r.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

// issue writes a certificate and its key, and returns both for a client.
func (r *rotation) issue(a *authority, path, uri string) tls.Certificate {
	r.t.Helper()
	var hosts []string
	for _, m := range r.members {
		hosts = append(hosts, m.host)
	}
	pair, key, err := a.sign(identity{uri: uri, hosts: append(hosts, r.prefix+".99")})
	if err != nil {
		r.t.Fatal(err)
	}
	r.put(path+"-key.pem", key)
	r.put(path+".pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}))
	return pair
}

// logged waits until the log of each member has a line that number of times.
func (r *rotation) logged(line string, times int) {
	r.t.Helper()
	for _, m := range r.members {
		r.await(fmt.Sprintf("%s logs %q %d times", m.name, line, times), func() bool {
			return strings.Count(string(r.read(m.log)), line) >= times
		})
	}
}

// await waits for a condition.
func (r *rotation) await(what string, holds func() bool) {
	r.t.Helper()
	for began := time.Now(); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			r.t.Fatalf("%s: not within a minute", what)
		}
	}
}

// handshake returns the certificate that a port shows to a client with this one, or why there is none. A refusal of the
// client's certificate comes with the first byte that is read.
func (r *rotation) handshake(
	m *member, port string, trusts *authority, shows *tls.Certificate,
) (*x509.Certificate, error) {
	conn, err := r.dial(r.t.Context(), r.visitor(), m.at(port))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	c := &tls.Config{RootCAs: trusts.pool(), ServerName: m.host, NextProtos: []string{"h2"}}
	if shows != nil {
		// Shown in any case, and not only to a port that names its CA.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return shows, nil }
	}
	secure := tls.Client(conn, c)
	if err := secure.HandshakeContext(r.t.Context()); err != nil {
		return nil, err
	}
	if err := secure.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return nil, err
	}
	if _, err := secure.Read(make([]byte, 1)); err != nil { // The server's first frame, or its alert.
		return nil, err
	}
	return secure.ConnectionState().PeerCertificates[0], nil
}

// want demands that a handshake succeeds or fails.
func (r *rotation) want(what string, succeeds bool, err error) {
	r.t.Helper()
	if (err == nil) != succeeds {
		r.t.Errorf("%s: %v; must succeed: %t", what, err, succeeds)
	}
}

// rotate does one rotation under load, and demands that no call failed by then. shown is what do proved besides.
func (r *rotation) rotate(what, how, shown string, do func()) {
	r.t.Helper()
	before, _ := r.load.counts()
	r.t.Logf("%s", what)
	do()
	r.joins()
	after := r.load.more(400)
	if _, failures := r.load.counts(); len(failures) > 0 {
		r.t.Fatalf("%s: %d calls failed: %v", what, len(failures), failures[0])
	}
	select {
	case accident := <-r.accidents:
		r.t.Fatalf("%s: %v", what, accident)
	default:
	}
	r.rows = append(r.rows, rotationRow{what, how, shown, after - before})
}

// joins starts a gateway, which has nothing but what the files say now, and calls the service through it.
func (r *rotation) joins() {
	r.t.Helper()
	m := &member{name: "g9", host: r.prefix + ".99", gateway: true}
	m.log = filepath.Join(r.options.Dir, m.name+".log")
	if err := r.startMember(r.t.Context(), m); err != nil {
		r.t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(m.Kill(), os.Remove(filepath.Join(r.options.Dir, m.name+".ready"))); err != nil {
			r.t.Error(err)
		}
	}()
	c := r.load.dial(r.load.options(byToken), m.at(apiPort))
	defer c.Close()
	for i := range 20 {
		if err := r.load.call(r.t.Context(), c, i); err != nil {
			r.t.Fatalf("through a gateway that starts now: %v", err)
		}
	}
}

// startRotation starts Cassandra with roles, a cluster and the load.
func startRotation(t *testing.T) *rotation {
	t.Helper()
	r := &rotation{t: t, dir: t.TempDir()}
	r.store = cassandratest.Start(t, cassandratest.Config{
		Password: true, Mutual: true, Env: []string{"TIMEOUT=20s", "SYNC=group", "HEAP=768M"},
	})
	for _, name := range []string{"ca.pem", "client.pem", "client-key.pem"} {
		r.put(r.file("cassandra-"+name), r.read(r.store.Certificates(name)))
	}
	o := cassandratest.Keyspace(t, r.store.Options(), 1)
	if _, err := cassandra.ApplySchema(t.Context(), o, cassandra.ArchiveSchema, cassandra.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	r.roles = cassandratest.Roles{Admin: o}
	root := cassandratest.Connect(t, o)
	r.roles.Execute(t, root, "migration.cql")
	r.roles.Execute(t, root, "processes.cql")
	root.Close()
	options := Options{
		Dir: t.TempDir(), Binary: filepath.Join(harness.PlainPrograms(t), "licensed"), Nodes: 2, Gateways: 2,
		Store: "cassandra://unused/unused", Log: t.Logf,
	}
	if _, err := signingkeys.New(r.file("license-keys"), time.Now()); err != nil {
		t.Fatal(err)
	}
	var err error
	if r.next, err = newAuthority("next"); err != nil {
		t.Fatal(err)
	}
	for _, role := range []string{"node", "gateway"} {
		r.put(r.file(role+".password"), []byte(r.roles.As(role).Password))
	}
	// What the settings name exists before the processes do, and the authority as soon as they are about to start.
	options.more = func(m *member) [][2]string {
		role := "node"
		if m.gateway {
			role = "gateway"
		}
		all := [][2]string{{"store", r.url(role)}, {"store-password-file", r.file(role + ".password")}}
		if m.gateway {
			if _, err := os.Stat(r.file("clients-ca.pem")); err != nil {
				r.put(r.file("clients-ca.pem"), r.secrets.ca.pem())
				r.put(r.file("clients-crl.pem"), r.lists(r.secrets.ca))
			}
			all = append(all,
				[2]string{"license-keys", r.file("license-keys")}, [2]string{"license-issuer", "rotation"},
				[2]string{"tls-ca", r.file("clients-ca.pem")}, [2]string{"tls-crl", r.file("clients-crl.pem")},
				[2]string{"new-customers", "0"})
		}
		return all
	}
	options.begun = func(s *site) { r.site = s }
	site, err := start(t.Context(), options)
	t.Cleanup(func() {
		if err := site.stop(); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	r.put(r.file("server-ca.pem"), r.secrets.ca.pem())
	r.put(r.file("token"), r.read(r.secrets.path("service.token")))
	r.issue(r.secrets.ca, r.file("service"), "spiffe://licensed.dev/service")
	r.load = startRotationLoad(r)
	return r
}

// url returns the store of a role, without a password.
func (r *rotation) url(role string) string {
	o := r.roles.As(role)
	return fmt.Sprintf("cassandra://%s@%s/%s?%s", o.Username, strings.Join(o.Hosts, ","), o.Keyspace, url.Values{
		"accept_risk": {cassandra.RiskReplication1}, "tls_ca": {r.file("cassandra-ca.pem")},
		"tls_cert": {r.file("cassandra-client.pem")}, "tls_key": {r.file("cassandra-client-key.pem")},
		"timeout": {"20s"}, "connect_timeout": {"20s"},
	}.Encode())
}

// TestRotation rotates every key and certificate of a cluster under load. No call fails, though clients repeat nothing;
// a gateway that starts after each rotation is served and serves; what was replaced is refused.
func TestRotation(t *testing.T) {
	if testing.Short() {
		t.Skip("starts Cassandra and processes")
	}
	r := startRotation(t)
	r.load.more(400)
	r.apiCertificate()
	r.clientCertificates()
	r.processCertificates()
	r.gossipKey()
	r.signingKeys()
	r.issuerKeys()
	r.staticTokens()
	r.cassandraPasswords()
	r.cassandraCertificates()
	r.load.stop()
	calls, failures := r.load.counts()
	if len(failures) > 0 {
		t.Errorf("%d of %d calls failed: %v", len(failures), calls, failures[0])
	}
	t.Logf("%d calls, 0 failed", calls)
	if *rotationTable != "" {
		r.put(*rotationTable, []byte(r.table(calls)))
	}
}

func (r *rotation) apiCertificate() {
	former := r.secrets.ca
	r.rotate("certificate of API and admin port, and its CA",
		"clients trust both CAs; new certificate; clients trust the new CA",
		"a client of the former CA refuses the port", func() {
			r.put(r.file("server-ca.pem"), former.pem(), r.next.pem())
			r.load.more(50)
			r.issue(r.next, r.secrets.path("server"), "")
			r.load.more(50)
			r.put(r.file("server-ca.pem"), r.next.pem())
			for _, m := range r.gateways() {
				_, err := r.handshake(m, apiPort, r.next, nil)
				r.want("trusts the new CA", true, err)
				_, err = r.handshake(m, apiPort, former, nil)
				r.want("trusts the former CA", false, err)
			}
		})
}

func (r *rotation) clientCertificates() {
	former := r.secrets.ca
	old, err := tls.LoadX509KeyPair(r.file("service.pem"), r.file("service-key.pem"))
	if err != nil {
		r.t.Fatal(err)
	}
	stolen := r.issue(r.next, r.file("stolen"), "spiffe://licensed.dev/service")
	leaf, err := x509.ParseCertificate(stolen.Certificate[0])
	if err != nil {
		r.t.Fatal(err)
	}
	g := r.gateways()[0]
	r.rotate("client certificates, their CA and revocation list",
		"ports trust both CAs, each with a list; new certificates; ports trust the new CA; a list that revokes one",
		"a certificate of the former CA and a revoked one are refused", func() {
			r.put(r.file("clients-ca.pem"), former.pem(), r.next.pem())
			r.put(r.file("clients-crl.pem"), r.lists(former), r.lists(r.next))
			r.load.more(50)
			r.issue(r.next, r.file("service"), "spiffe://licensed.dev/service")
			r.load.more(50)
			_, err := r.handshake(g, apiPort, r.next, &stolen)
			r.want("not revoked yet", true, err)
			r.put(r.file("clients-crl.pem"), r.lists(r.next, leaf.SerialNumber))
			r.put(r.file("clients-ca.pem"), r.next.pem())
			_, err = r.handshake(g, apiPort, r.next, &old)
			r.want("of the former CA", false, err)
			_, err = r.handshake(g, apiPort, r.next, &stolen)
			r.want("revoked", false, err)
		})
}

func (r *rotation) processCertificates() {
	former, old := r.secrets.ca, r.secrets.gateway
	n := r.nodes()[0]
	r.rotate("certificates of nodes and gateways, and their CA",
		"all trust both CAs; new certificates; all trust the new CA",
		"a gateway's certificate of the former CA is refused",
		func() {
			r.put(r.secrets.path("ca.pem"), former.pem(), r.next.pem())
			r.load.more(50)
			r.issue(r.next, r.secrets.path("node"), nodeURI)
			next := r.issue(r.next, r.secrets.path("gateway"), gatewayURI)
			r.load.more(50)
			_, err := r.handshake(n, nodePort, r.next, &old)
			r.want("both are trusted", true, err)
			r.put(r.secrets.path("ca.pem"), r.next.pem())
			_, err = r.handshake(n, nodePort, r.next, &next)
			r.want("of the new CA", true, err)
			_, err = r.handshake(n, nodePort, r.next, &old)
			r.want("of the former CA", false, err)
		})
}

func (r *rotation) gossipKey() {
	path := r.secrets.path("gossip.key")
	former := append(r.read(path), '\n')
	key := make([]byte, 32)
	_, _ = rand.Read(key) // It never fails.
	next := []byte(base64.StdEncoding.EncodeToString(key) + "\n")
	r.rotate("gossip key", "add the new one; make it the first; remove the former one",
		"a gateway that knows the new key alone joins", func() {
			for i, content := range [][]byte{slices.Concat(former, next), slices.Concat(next, former), next} {
				r.put(path, content)
				r.logged("gossip keys reloaded", i+1)
				r.load.more(20)
			}
		})
}

func (r *rotation) signingKeys() {
	dir := r.file("license-keys")
	ring, err := signingkeys.Read(dir)
	if err != nil {
		r.t.Fatal(err)
	}
	r.rotate("keys that sign licences", "add a key; remove the former one",
		"each gateway publishes and uses the new key alone",
		func() {
			next, err := signingkeys.New(dir, time.Now().Add(2*time.Second))
			if err != nil {
				r.t.Fatal(err)
			}
			r.await("both keys are published", func() bool { return r.published() == 2 })
			r.await("the new key signs", func() bool { return r.signs() == next.ID })
			if err := os.Remove(ring[0].Path); err != nil {
				r.t.Fatal(err)
			}
			r.await("one key is published", func() bool { return r.published() == 1 })
		})
}

// published returns the number of keys that all gateways publish; -1 if they differ.
func (r *rotation) published() int {
	r.t.Helper()
	numbers := make(map[int]bool)
	for _, m := range r.gateways() {
		c := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
			DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: r.next.pool()},
		}}
		res, err := c.Get("https://" + m.at(apiPort) + "/.well-known/jwks.json")
		if err != nil {
			r.t.Fatal(err)
		}
		text, err := read(res)
		var set struct{ Keys []any }
		if err == nil {
			err = json.Unmarshal([]byte(text), &set)
		}
		if err != nil {
			r.t.Fatal(err)
		}
		numbers[len(set.Keys)] = true
	}
	if len(numbers) != 1 {
		return -1
	}
	return slices.Collect(maps.Keys(numbers))[0]
}

// signs returns the key that signs licences at all gateways; empty if they differ.
func (r *rotation) signs() string {
	r.t.Helper()
	keys := make(map[string]bool)
	for i, m := range r.gateways() {
		c := r.load.dial(r.load.options(byToken), m.at(apiPort))
		res, err := c.AcquireLicense(r.t.Context(), &licensedv1.AcquireLicenseRequest{
			CustomerId: fmt.Sprintf("signed%d%s", i, rand.Text()), DeviceId: "iphone", TitleId: "GlowS01E01",
			Signed: true,
		})
		if err != nil {
			r.t.Fatal(err)
		}
		_ = c.Close()
		token, _, err := jwt.NewParser().ParseUnverified(res.SignedLicense, jwt.MapClaims{})
		if err != nil {
			r.t.Fatal(err)
		}
		keys[fmt.Sprint(token.Header["kid"])] = true
	}
	if len(keys) != 1 {
		return ""
	}
	return slices.Collect(maps.Keys(keys))[0]
}

func (r *rotation) issuerKeys() {
	next, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		r.t.Fatal(err)
	}
	text := base64.RawURLEncoding.EncodeToString
	set := func(keys map[string]*rsa.PrivateKey) []byte {
		var all []any
		for id, key := range keys {
			all = append(all, map[string]string{
				"kty": "RSA", "kid": id, "use": "sig", "alg": "RS256", "n": text(key.N.Bytes()),
				"e": text(big.NewInt(int64(key.E)).Bytes()),
			})
		}
		content, err := json.Marshal(map[string]any{"keys": all})
		if err != nil {
			r.t.Fatal(err)
		}
		return content
	}
	former := r.secrets.issuer
	r.rotate("keys of the issuer of JSON Web Tokens", "publish both; sign with the new one; publish the new one",
		"a token of the former key is refused", func() {
			old, err := r.load.jwt()
			if err != nil {
				r.t.Fatal(err)
			}
			r.reloads(func() {
				r.put(r.secrets.path("jwks.json"), set(map[string]*rsa.PrivateKey{keyID: former, "siege-2": next}))
			})
			r.load.sign(next, "siege-2")
			r.load.more(50)
			r.reloads(func() {
				r.put(r.secrets.path("jwks.json"), set(map[string]*rsa.PrivateKey{"siege-2": next}))
			})
			r.refused(old)
		})
}

// reloads waits until each member read its auth file again.
func (r *rotation) reloads(change func()) {
	r.t.Helper()
	const line = "auth file reloaded"
	before := strings.Count(string(r.read(r.members[0].log)), line)
	change()
	r.logged(line, before+1)
}

// refused demands that no gateway accepts a token.
func (r *rotation) refused(token string) {
	r.t.Helper()
	for _, m := range r.gateways() {
		o := r.load.options(byToken)
		o.Token = func(context.Context) (string, error) { return token, nil }
		c := r.load.dial(o, m.at(apiPort))
		if err := r.load.call(r.t.Context(), c, 0); status.Code(err) != codes.Unauthenticated {
			r.t.Errorf("%s: a token that was replaced: %v", m.name, err)
		}
		_ = c.Close()
	}
}

func (r *rotation) staticTokens() {
	path := r.secrets.path(throwaway.AuthFile)
	former, next := r.read(r.file("token")), rand.Text()+rand.Text()
	hash := func(token string) string {
		sum := sha256.Sum256([]byte(strings.TrimSpace(token)))
		return hex.EncodeToString(sum[:])
	}
	r.rotate("static tokens", "add the new one; clients use it; remove the former one", "the former token is refused",
		func() {
			content := string(r.read(path))
			entry := fmt.Sprintf("tokens:\n    - subject: next\n      roles: [service]\n      sha256: %s\n", hash(next))
			both := strings.Replace(content, "tokens:\n", entry, 1)
			r.reloads(func() { r.put(path, []byte(both)) })
			r.put(r.file("token"), []byte(next))
			r.load.more(100)
			// The hash of nobody's token takes the place of the former one.
			r.reloads(func() { r.put(path, []byte(strings.Replace(both, hash(string(former)), hash(rand.Text()), 1))) })
			r.refused(strings.TrimSpace(string(former)))
		})
}

func (r *rotation) cassandraPasswords() {
	r.rotate("passwords for Cassandra", "ALTER ROLE; replace the file",
		"a gateway that starts logs in with the new one",
		func() {
			root := cassandratest.Connect(r.t, r.roles.Admin)
			defer root.Close()
			for _, role := range []string{"node", "gateway"} {
				next := rand.Text()
				alter := fmt.Sprintf("ALTER ROLE %s WITH PASSWORD = '%s'", r.roles.As(role).Username, next)
				if err := root.Exec(alter); err != nil {
					r.t.Fatal(err)
				}
				r.put(r.file(role+".password"), []byte(next))
			}
		})
}

func (r *rotation) cassandraCertificates() {
	path := r.store.Certificates
	ca, keystore := r.read(path("ca.pem")), r.read(path("keystore.pem"))
	reload := func() { r.store.Do(r.t, "nodetool", "1", "reloadssl") }
	r.rotate("certificates of Cassandra and of its clients, and their CA",
		"both sides trust both CAs; new certificates; both sides trust the new CA (`nodetool reloadssl`)",
		"a gateway that starts connects with the new ones alone", func() {
			r.store.Certify(r.t)
			next, nextKeystore := r.read(path("ca.pem")), r.read(path("keystore.pem"))
			r.put(path("keystore.pem"), keystore)
			r.put(path("truststore.pem"), ca, next)
			reload()
			r.put(r.file("cassandra-ca.pem"), ca, next)
			r.put(r.file("cassandra-client-key.pem"), r.read(path("client-key.pem")))
			r.put(r.file("cassandra-client.pem"), r.read(path("client.pem")))
			r.put(path("keystore.pem"), nextKeystore)
			reload()
			r.load.more(50)
			r.put(r.file("cassandra-ca.pem"), next)
			r.put(path("truststore.pem"), next)
			reload()
		})
}

// table returns the results as a page.
func (r *rotation) table(calls int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Rotation of keys and certificates\n\n"+
		"<!-- Generated: go test ./test/hostile/siege -run TestRotation "+
		"-rotation-table $PWD/docs/design/rotation.md -->\n\n"+
		"%s: %d nodes and %d gateways on Cassandra with passwords, roles and client certificates, as processes.\n"+
		"Every key and certificate was replaced while clients of package `client` called the service, "+
		"without a retry: by a token, by a JSON Web Token, by a certificate, and over a new connection for each "+
		"request.\n"+
		"After each rotation a gateway was started with the files as they were then, and served 20 calls.\n"+
		"%d calls, 0 failed.\n\n"+
		"[The guide](../guide/security.md#rotate-keys-and-certificates) has the steps for operators.\n\n"+
		"| what | steps | also shown | calls | failed |\n|---|---|---|---|---|\n",
		time.Now().UTC().Format("2006-01-02"), len(r.nodes()), len(r.gateways()), calls)
	for _, row := range r.rows {
		fmt.Fprintf(&b, "| %s | %s | %s | %d | 0 |\n", row.what, row.how, row.shown, row.calls)
	}
	return b.String()
}
