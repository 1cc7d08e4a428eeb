// Package cassandratest gives tests and benchmarks a real Cassandra: the one that the environment
// variable LICENSED_CASSANDRA names ("host:port,host:port", or a URL as cassandra.ParseURL takes), or
// nodes of their own, started by scripts/cassandra.sh on loopback addresses that nobody else uses.
//
// Most tests take [Shared], with keyspaces of their own. Tests that stop or configure nodes start theirs with [Start].
//
// There is no way to go without: if there is neither an address nor a JDK 17, the test fails and says
// so. Only `go test -short` skips.
package cassandratest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"licensed/internal/certs"
	"licensed/persistence/cassandra"
)

const (
	// AddressVariable names the Cassandra to use instead of starting nodes.
	AddressVariable = "LICENSED_CASSANDRA"
	// DirectoryVariable names a directory. The first process that needs a shared node starts it there, and all
	// others use it too. Who sets the variable destroys the node after the last of them: scripts/cassandra.sh
	// destroy.
	DirectoryVariable = "LICENSED_CASSANDRA_DIR"
)

// FromEnvironment returns how to reach the Cassandra that LICENSED_CASSANDRA names, or false.
func FromEnvironment() (cassandra.Options, bool, error) {
	v := os.Getenv(AddressVariable)
	if v == "" {
		return cassandra.Options{}, false, nil
	}
	if !strings.Contains(v, "://") {
		v = "cassandra://" + v
	}
	o, err := cassandra.ParseURL(v)
	if err != nil {
		return cassandra.Options{}, false, fmt.Errorf("%s: %w", AddressVariable, err)
	}
	return o, true, nil
}

// shared is what Shared returns, and the node that this process started alone for it.
var shared struct {
	once    sync.Once
	options cassandra.Options
	own     *Cluster
	ownDir  string
	err     error
}

// Shared returns how to reach the node that tests share, of this process and of those that have the same
// LICENSED_CASSANDRA_DIR. It demands a password. A test needs a keyspace of its own, and [Main] must run the tests.
func Shared(t testing.TB) cassandra.Options {
	t.Helper()
	SkipIfShort(t)
	shared.once.Do(func() { shared.err = startShared() })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.options
}

// startShared finds or starts the node that tests share. Other processes wait at a lock
// in the directory while one starts it; the first of them chose its addresses, and wrote
// them there. The lock ends with the process, the node does not.
func startShared() (err error) {
	var given bool
	if shared.options, given, err = FromEnvironment(); given || err != nil {
		return err
	}
	dir := os.Getenv(DirectoryVariable)
	if dir == "" {
		if dir, err = os.MkdirTemp("", "licensed-cassandra-"); err != nil {
			return err
		}
		shared.ownDir = dir
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	lock, err := os.Create(filepath.Join(dir, "lock"))
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	network, err := os.ReadFile(filepath.Join(dir, "network"))
	if errors.Is(err, fs.ErrNotExist) {
		network = []byte(freeNetwork())
		err = os.WriteFile(filepath.Join(dir, "network"), network, 0o600)
	}
	if err != nil {
		return err
	}
	// A few seconds of the tests' load are too much for the defaults of a small node.
	own := Config{Password: true, Env: []string{"TIMEOUT=20s"}}
	c := prepare(dir, string(network), own)
	if err := c.up(own); err != nil {
		return err
	}
	shared.options = c.options
	if shared.ownDir != "" {
		shared.own = c
	}
	return nil
}

// Main runs the tests of a package, ends the node that this process started alone, and returns the exit code.
func Main(m *testing.M) int {
	code := m.Run()
	if shared.own != nil {
		if err := shared.own.Destroy(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	if shared.ownDir != "" {
		_ = os.RemoveAll(shared.ownDir) // In the temporary directory.
	}
	return code
}

// URL returns options as the URL that programs take, with a query, "accept_risk=replication-1", or none.
func URL(o cassandra.Options, query string) string {
	u := url.URL{Scheme: "cassandra", Host: strings.Join(o.Hosts, ","), Path: "/" + o.Keyspace, RawQuery: query}
	if o.Username != "" {
		u.User = url.UserPassword(o.Username, o.Password)
	}
	return u.String()
}

// Cluster is Cassandra nodes that this process started. Its methods fail the test that they are called
// with.
type Cluster struct {
	// dir has logs, data and process ids; env are settings for scripts/cassandra.sh.
	dir     string
	env     []string
	options cassandra.Options
}

// Config is for nodes; see scripts/cassandra.sh for what the values mean.
type Config struct {
	Nodes int
	// Password makes the nodes ask for one.
	Password bool
	// TLS makes the nodes take nothing else.
	TLS bool
	// Mutual has them also demand a certificate of each client: see Cluster.Certificates.
	Mutual bool
	// Env is further settings of scripts/cassandra.sh, "SYNC=batch".
	Env []string
}

// Start starts nodes of their own, which t.Cleanup stops and removes.
func Start(t testing.TB, c Config) *Cluster {
	t.Helper()
	SkipIfShort(t)
	cluster := prepare(t.TempDir(), freeNetwork(), c)
	if c.Mutual {
		cluster.Certify(t)
		cluster.env = append(cluster.env, "TLS=mutual", "KEYSTORE="+cluster.Certificates("keystore.pem"),
			"TRUSTSTORE="+cluster.Certificates("truststore.pem"))
		if err := cluster.trust(cluster.Certificates("ca.pem"), cluster.Certificates("client.pem"),
			cluster.Certificates("client-key.pem")); err != nil {
			t.Fatal(err)
		}
	}
	if err := cluster.up(c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Destroy(); err != nil {
			t.Error(err)
		}
	})
	return cluster
}

// SkipIfShort skips the test with a message if `go test -short` was asked for.
func SkipIfShort(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs Cassandra: not run with -short")
	}
}

// prepare returns nodes that are to run at the addresses of a network.
func prepare(dir, network string, c Config) *Cluster {
	dir = filepath.Join(dir, "cassandra")
	cluster := &Cluster{
		dir: dir,
		env: append([]string{"DIR=" + dir, "NET=" + network, "FIRST=1", "PORT=9042"}, c.Env...),
	}
	cluster.options = cassandra.DefaultOptions()
	cluster.options.Hosts = nil
	for i := range max(1, c.Nodes) {
		cluster.options.Hosts = append(cluster.options.Hosts, fmt.Sprintf("%s.%d:9042", network, i+1))
	}
	if c.Password {
		cluster.env = append(cluster.env, "AUTH=password")
		cluster.options.Username, cluster.options.Password = "cassandra", "cassandra"
	}
	if c.TLS {
		cluster.env = append(cluster.env, "TLS=required")
	}
	return cluster
}

// up starts the nodes, or finds those that were started before, and waits until they accept a login. After an error
// there are none.
func (c *Cluster) up(config Config) error {
	_, err := c.script("up", strconv.Itoa(len(c.options.Hosts)))
	if err != nil {
		err = fmt.Errorf("%w\nThese tests need a Cassandra: set %s to its host:port, "+
			"or install JDK 17 and Maven, or run go test -short to leave them out", err, AddressVariable)
	}
	if err == nil && config.TLS {
		err = c.trust(filepath.Join(c.dir, "n1", "cert.pem"), "", "")
	}
	if err == nil {
		err = c.awaitLogin()
	}
	if err != nil {
		_ = c.Destroy()
	}
	return err
}

// Certificates returns the path of a file of the certificates of nodes and clients (Config.Mutual): ca.pem, client.pem
// and client-key.pem of clients, keystore.pem and truststore.pem of Cassandra.
func (c *Cluster) Certificates(name string) string { return filepath.Join(c.dir+"-tls", name) }

// Certify makes certificates of a new authority, for Cassandra and for clients. Cassandra reads them when it starts.
func (c *Cluster) Certify(t testing.TB) {
	t.Helper()
	if err := os.MkdirAll(c.Certificates(""), 0o700); err != nil {
		t.Fatal(err)
	}
	var addresses []net.IP
	for _, address := range c.options.Hosts {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			t.Fatal(err)
		}
		addresses = append(addresses, net.ParseIP(host))
	}
	authority := certs.New(t)
	server, serverKey := authority.SignPEM(2, addresses...)
	client, clientKey := authority.SignPEM(3)
	for name, content := range map[string][]byte{
		"ca.pem": authority.PEM(), "client.pem": client, "client-key.pem": clientKey,
		"truststore.pem": authority.PEM(),
		"keystore.pem":   slices.Concat(serverKey, server, authority.PEM()),
	} {
		if err := os.WriteFile(c.Certificates(name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// trust has the options use these files; without a certificate they show none.
func (c *Cluster) trust(ca, cert, key string) error {
	query := url.Values{"tls_ca": {ca}}
	if cert != "" {
		query["tls_cert"], query["tls_key"] = []string{cert}, []string{key}
	}
	o, err := cassandra.ParseURL("cassandra://localhost?" + query.Encode())
	c.options.TLS, c.options.Certificates = o.TLS, o.Certificates
	return err
}

// awaitLogin waits until the nodes let clients in: the first user is made some time after the port
// opens.
func (c *Cluster) awaitLogin() error {
	o := c.options
	o.Keyspace = "system"
	o.Logger = slog.New(slog.DiscardHandler)
	var err error
	for range 60 {
		if _, err = cassandra.SchemaStatus(context.Background(), o, cassandra.HotSchema); err == nil {
			return nil
		}
		time.Sleep(500 * time.Millisecond)
	}
	return err
}

// freeNetwork returns the first three bytes of loopback addresses that nobody listens on.
func freeNetwork() string {
	for {
		network := fmt.Sprintf("127.%d.%d", 1+rand.IntN(254), rand.IntN(256))
		conn, err := net.Dial("tcp", network+".1:9042")
		if err != nil {
			return network
		}
		_ = conn.Close()
	}
}

// Options returns how to reach the nodes.
func (c *Cluster) Options() cassandra.Options { return c.options }

// PIDs returns the nodes' processes.
func (c *Cluster) PIDs(t testing.TB) []int {
	t.Helper()
	var pids []int
	for line := range strings.Lines(c.Do(t, "status")) {
		fields := strings.Fields(line)
		if pid, err := strconv.Atoi(fields[len(fields)-1]); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// DiskUsage returns the bytes of a table's files on all nodes.
func (c *Cluster) DiskUsage(t testing.TB, keyspace, table string) int64 {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(c.dir, "n*", "data", keyspace, table+"-*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	var sum int64
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().IsRegular() {
			sum += info.Size()
		}
	}
	return sum
}

// Destroy stops the nodes and removes their data.
func (c *Cluster) Destroy() error {
	_, err := c.script("destroy")
	return err
}

// Do runs scripts/cassandra.sh for these nodes: kill, pause, resume, start, stop and a node from 1, or
// nodetool.
func (c *Cluster) Do(t testing.TB, args ...string) string {
	t.Helper()
	out, err := c.script(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// script runs scripts/cassandra.sh and returns what it printed. The error has what it
// printed as an error.
func (c *Cluster) script(args ...string) (string, error) {
	_, file, _, _ := runtime.Caller(0)
	script := filepath.Join(filepath.Dir(file), "..", "..", "..", "scripts", "cassandra.sh")
	cmd := exec.Command(script, args...)
	cmd.Env = append(os.Environ(), c.env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("cassandra.sh %s: %w\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String(), nil
}

// dropAttempts is the number of attempts to drop a keyspace: schema changes of tests that share a Cassandra wait
// for one another, and on a busy machine longer than a request may.
const dropAttempts = 4

// Keyspace returns options for a new keyspace with a schema and that many copies, at the Cassandra that
// base reaches. t.Cleanup drops it.
func Keyspace(t testing.TB, base cassandra.Options, copies int) cassandra.Options {
	t.Helper()
	o := NewKeyspace(t, base)
	if _, err := cassandra.ApplySchema(context.Background(), o, cassandra.HotSchema,
		cassandra.ApplyOptions{CreateKeyspace: copies}); err != nil {
		t.Fatal(err)
	}
	return o
}

// NewKeyspace returns options for a keyspace that does not exist yet, which t.Cleanup drops. The risk of
// a single copy is accepted, what is logged goes to the test's log, and a slow machine is waited for.
func NewKeyspace(t testing.TB, base cassandra.Options) cassandra.Options {
	t.Helper()
	o := base
	o.Keyspace = cassandra.TestKeyspacePrefix + strconv.FormatUint(rand.Uint64(), 36)
	o.Timeout, o.ConnectTimeout = 30*time.Second, 30*time.Second
	o.AcceptRisks = []string{cassandra.RiskReplication1}
	o.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	t.Cleanup(func() {
		var err error
		for range dropAttempts {
			if err = cassandra.DropTestKeyspace(context.Background(), o); err == nil {
				return
			}
		}
		t.Error(err)
	})
	return o
}
