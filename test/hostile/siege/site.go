package siege

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"licensed/internal/throwaway"
	"licensed/test/chaos/process"
)

// Ports of every member, at its own address.
const (
	apiPort    = "8080"
	adminPort  = "8081"
	gossipPort = "7946"
	nodePort   = "7947"
)

// clusterName is the default of --cluster.
const clusterName = "licensed"

// Options of a cluster to besiege.
type Options struct {
	// Dir keeps keys, logs and the data of Cassandra.
	Dir string
	// Binary is the licensed program. Settings that it does not know are left out, so that former releases can be
	// besieged; what that leaves open is part of the result.
	Binary string
	// Nodes and Gateways are their numbers.
	Nodes, Gateways int
	// Store is the URL of a store with schema; empty: one Cassandra node is started by scripts/cassandra.sh of Tree.
	Store, Tree string
	// Without are settings that are left out, and Risks those accepted: weaknesses that the siege must find.
	Without, Risks []string
	// Hold is the time for which each attack lasts (default 5 s).
	Hold time.Duration
	// Only runs the attacks whose "group: name" has one of these in it; empty: all.
	Only []string
	// Log is told what happens.
	Log func(format string, arguments ...any)

	// more returns further settings of a member, which take the place of those of the same name; nil for none.
	more func(m *member) [][2]string
	// begun is called with the site before anything is started; nil if nobody waits for it.
	begun func(s *site)
}

// member is a process of the cluster.
type member struct {
	*process.Process
	name, host string
	gateway    bool
	log        string
}

func (m *member) at(port string) string { return net.JoinHostPort(m.host, port) }

// site is a cluster that runs.
type site struct {
	options   Options
	prefix    string // of its addresses
	members   []*member
	known     map[string]bool // settings of the binary
	secrets   *secrets
	collector *collector
	store     string
	cassandra bool // this site started it
	accidents chan error
}

// start starts a cluster. Stop it in any case.
func start(ctx context.Context, o Options) (s *site, err error) {
	s = &site{options: o, store: o.Store, accidents: make(chan error, 100)}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop())
		}
	}()
	if o.begun != nil {
		o.begun(s)
	}
	if s.prefix, err = freePrefix(); err != nil {
		return s, err
	}
	var hosts []string
	for i := range o.Nodes + o.Gateways {
		m := &member{name: fmt.Sprintf("n%d", i+1), host: fmt.Sprintf("%s.%d", s.prefix, i+11)}
		if i >= o.Nodes {
			m.name, m.gateway = fmt.Sprintf("g%d", i-o.Nodes+1), true
		}
		m.log = filepath.Join(o.Dir, m.name+".log")
		s.members, hosts = append(s.members, m), append(hosts, m.host)
	}
	if s.secrets, err = newSecrets(filepath.Join(o.Dir, "keys"), hosts); err != nil {
		return s, err
	}
	if s.collector, err = newCollector(); err != nil {
		return s, err
	}
	if s.known, err = knownSettings(ctx, o.Binary); err != nil {
		return s, err
	}
	if s.store == "" {
		if err := s.startCassandra(ctx); err != nil {
			return s, err
		}
	}
	for _, m := range s.members {
		if err := s.startMember(ctx, m); err != nil {
			return s, err
		}
	}
	return s, nil
}

// freePrefix returns the first three bytes of loopback addresses that nobody uses.
func freePrefix() (string, error) {
	for range 100 {
		prefix := fmt.Sprintf("127.%d.%d", 1+rand.IntN(254), rand.IntN(256))
		l, err := net.Listen("tcp", prefix+".1:9042")
		if err == nil {
			return prefix, l.Close()
		}
	}
	return "", errors.New("no loopback addresses are free")
}

// flagName finds the names of settings in help texts.
var flagName = regexp.MustCompile(`(?m)^\s+--([a-z][a-z-]+)`)

// knownSettings returns the settings of nodes and gateways of a program.
func knownSettings(ctx context.Context, binary string) (map[string]bool, error) {
	known := make(map[string]bool)
	for _, role := range []string{"node", "gateway"} {
		out, err := exec.CommandContext(ctx, binary, role, "--help-all").CombinedOutput()
		if err != nil { // A release that lists all of them anyway.
			out, err = exec.CommandContext(ctx, binary, role, "--help").CombinedOutput()
		}
		if err != nil {
			return nil, fmt.Errorf("%s %s --help: %w\n%s", binary, role, err, out)
		}
		for _, match := range flagName.FindAllSubmatch(out, -1) {
			known[role+" "+string(match[1])] = true
		}
	}
	return known, nil
}

// script runs scripts/cassandra.sh.
func (s *site) script(ctx context.Context, arguments ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(s.options.Tree, "scripts", "cassandra.sh"), arguments...)
	cmd.Env = append(os.Environ(), "DIR="+filepath.Join(s.options.Dir, "cassandra"), "NET="+s.prefix, "HEAP=512M",
		"SYNC=group", "TIMEOUT=20s", "WAIT=300")
	// Cassandra keeps the file open; a pipe would be waited for.
	log, err := os.OpenFile(filepath.Join(s.options.Dir, "cassandra.log"), os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("cassandra.sh %s: %w, see %s", strings.Join(arguments, " "), err, log.Name())
	}
	return nil
}

func (s *site) startCassandra(ctx context.Context) error {
	s.cassandra = true
	if err := s.script(ctx, "up", "1"); err != nil {
		return err
	}
	s.store = "cassandra://" + s.prefix + ".1:9042/licensed?accept_risk=replication-1"
	schema := exec.CommandContext(ctx, s.options.Binary,
		"schema", "apply", "--create-keyspace", "1", "--store", s.store)
	if out, err := schema.CombinedOutput(); err != nil {
		return fmt.Errorf("schema apply: %w\n%s", err, out)
	}
	return nil
}

// settings returns those of a member: everything that protects it.
func (s *site) settings(m *member) [][2]string {
	all := [][2]string{
		{"name", m.name}, {"host", m.host}, {"admin", m.at(adminPort)}, {"bind", m.at(gossipPort)},
		{"node-listen", m.at(nodePort)}, {"join", s.seeds()}, {"shards", "16"}, {"log-level", "debug"},
		{"archive", "off"}, {"otlp-endpoint", s.collector.url()}, {"trace-ratio", "1"},
		{"auth-file", s.secrets.path(throwaway.AuthFile)},
		{"admin-token-file", s.secrets.path("admin.token")},
		{"admin-tls-cert", s.secrets.path("server.pem")}, {"admin-tls-key", s.secrets.path("server-key.pem")},
		{"gossip-key-file", s.secrets.path("gossip.key")},
		{"node-tls-ca", s.secrets.path("ca.pem")},
		{"node-sans", nodeURI}, {"gateway-sans", gatewayURI},
	}
	role := "node"
	if m.gateway {
		role = "gateway"
		all = append(all, [2]string{"listen", m.at(apiPort)}, [2]string{"tls-cert", s.secrets.path("server.pem")},
			[2]string{"tls-key", s.secrets.path("server-key.pem")},
			[2]string{"audit-file", filepath.Join(s.options.Dir, m.name+".audit")}, [2]string{"max-deadline", "5s"},
			[2]string{"new-customers", "600"})
	} else {
		all = append(all, [2]string{"lease-ttl", "10s"}) // A busy machine must not look like an attack that succeeds.
	}
	all = append(all, [2]string{"node-tls-cert", s.secrets.path(role + ".pem")},
		[2]string{"node-tls-key", s.secrets.path(role + "-key.pem")})
	if s.options.more != nil {
		further := s.options.more(m)
		all = append(slices.DeleteFunc(all, func(setting [2]string) bool {
			return slices.ContainsFunc(further, func(other [2]string) bool { return other[0] == setting[0] })
		}), further...)
	}
	return slices.DeleteFunc(all, func(setting [2]string) bool {
		return !s.known[role+" "+setting[0]] || slices.Contains(s.options.Without, setting[0])
	})
}

// has says whether gateways run with a setting.
func (s *site) has(setting string) bool {
	return slices.ContainsFunc(s.settings(s.gateways()[0]), func(x [2]string) bool { return x[0] == setting })
}

func (s *site) seeds() string {
	var all []string
	for _, m := range s.members[:s.options.Nodes] {
		all = append(all, m.at(gossipPort))
	}
	return strings.Join(all, ",")
}

func (s *site) startMember(ctx context.Context, m *member) error {
	ready := filepath.Join(s.options.Dir, m.name+".ready")
	arguments := []string{"node"}
	if m.gateway {
		arguments[0] = "gateway"
	}
	for _, setting := range s.settings(m) {
		arguments = append(arguments, "--"+setting[0], setting[1])
	}
	m.Process = process.New(process.Spec{
		Name: m.name, Path: s.options.Binary, Args: append(arguments, "--ready-file", ready), Log: m.log,
		Env: []string{"LICENSED_STORE=" + s.store, "LICENSED_ACCEPT_RISK=" + strings.Join(s.options.Risks, ",")},
		Ready: func(context.Context) error {
			_, err := os.Stat(ready)
			return err
		},
	}, func(err error) {
		select {
		case s.accidents <- err:
		default: // A hundred are enough.
		}
	})
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := m.Start(ctx); err != nil {
		return fmt.Errorf("%w: %s", err, m.Tail(2000))
	}
	return nil
}

// stop ends all that start started.
func (s *site) stop() (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, m := range slices.Backward(s.members) {
		if m.Process != nil {
			err = errors.Join(err, m.Kill())
		}
	}
	if s.cassandra {
		err = errors.Join(err, s.script(ctx, "destroy"))
	}
	if s.collector != nil {
		s.collector.stop()
	}
	return err
}

func (s *site) nodes() []*member    { return s.members[:s.options.Nodes] }
func (s *site) gateways() []*member { return s.members[s.options.Nodes:] }

// attacker is the address that attacks come from, and visitor that of good clients.
func (s *site) attacker() net.IP { return net.ParseIP(s.prefix + ".66") }
func (s *site) visitor() net.IP  { return net.ParseIP(s.prefix + ".77") }

// encrypted says whether a port is.
func (s *site) encrypted(port string) bool {
	return s.has(map[string]string{apiPort: "tls-cert", adminPort: "admin-tls-cert", nodePort: "node-tls-cert"}[port])
}

// url returns that of a port of a member.
func (s *site) url(m *member, port string) string {
	if s.encrypted(port) {
		return "https://" + m.at(port)
	}
	return "http://" + m.at(port)
}

// dial connects from an address of this machine.
func (s *site) dial(ctx context.Context, from net.IP, address string) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: from}, Timeout: 5 * time.Second}
	return d.DialContext(ctx, "tcp", address)
}

// secure connects to a port, encrypted if that is.
func (s *site) secure(ctx context.Context, m *member, port string, protocols ...string) (net.Conn, error) {
	conn, err := s.dial(ctx, s.attacker(), m.at(port))
	if err != nil || !s.encrypted(port) {
		return conn, err
	}
	c := tls.Client(conn, &tls.Config{RootCAs: s.secrets.ca.pool(), ServerName: m.host, NextProtos: protocols})
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return c, nil
}

// client returns one of HTTP from an address.
func (s *site) client(from net.IP) *http.Client {
	return &http.Client{Timeout: answerWithin, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			return s.dial(ctx, from, address)
		},
		TLSClientConfig:   &tls.Config{RootCAs: s.secrets.ca.pool()},
		ForceAttemptHTTP2: true,
	}}
}

// answerWithin is the time in which a client must have an answer.
const answerWithin = 10 * time.Second

// maxAnswer is how much of an answer is read.
const maxAnswer = 8 << 20

// read reads an answer.
func read(res *http.Response) (string, error) {
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	return string(b), err
}
