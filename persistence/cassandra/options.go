package cassandra

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gocql/gocql"

	"licensed/internal/tlsfiles"
)

// Consistency is the level of plain reads and writes.
type Consistency string

// The levels whose reads and writes overlap, which is what the protocol needs.
const (
	// LocalQuorum is a majority of the replicas in the data centre of the node that is asked.
	LocalQuorum Consistency = "LOCAL_QUORUM"
	// Quorum is a majority of all replicas.
	Quorum Consistency = "QUORUM"
	// All is every replica: one that is down stops everything.
	All Consistency = "ALL"
)

// Options say where the store is and how to use it. Start from [DefaultOptions] or [ParseURL].
type Options struct {
	// Hosts are contact points, "host" or "host:port"; the others are found from them. With a LOCAL
	// consistency they are of one data centre.
	Hosts []string
	// Port of contact points that name none.
	Port int
	// Keyspace, which [ApplySchema] fills: lower-case letters, digits and _, at most 48.
	Keyspace string
	// Username and Password; empty means no authentication.
	Username, Password string
	// ReadPassword, if not nil, is asked for the password of each connection, so that it may change.
	ReadPassword func() string
	// TLS, if not nil, is asked how to encrypt each connection, so that its files may change. Certificates are those
	// files, nil for none; Open has them write to Logger.
	TLS          func() *tls.Config
	Certificates *tlsfiles.Certificates

	// Consistency of plain reads and writes.
	Consistency Consistency
	// DataCenter that all nodes of this cluster use; empty means that of the contact points. Others
	// are never asked: a LOCAL level there would be another quorum.
	DataCenter string

	// Timeout of one request. Above Cassandra's own (2 s for writes), its answer says more than none;
	// below, a stalled node is noticed sooner.
	Timeout time.Duration
	// ConnectTimeout of one attempt to connect, and of its handshake.
	ConnectTimeout time.Duration
	// ReconnectInterval is the interval between attempts at nodes that are down.
	ReconnectInterval time.Duration
	// Connections per Cassandra node. More spread the work over more cores; fewer make larger writes
	// to the network.
	Connections int
	// CoalesceWait is the time a connection collects requests before it writes them to the network. It
	// saves system calls while many are in progress, but each waits for it, and groups save them too; 0
	// writes at once.
	CoalesceWait time.Duration

	// MaxMutationBytes is the size of the data of one mutation or root above which it is refused. It
	// must stay below Cassandra's max_mutation_size (half a commit log segment: 16 MiB).
	MaxMutationBytes int

	// GroupPartitions is the number of partitions one group commit may touch; 1 turns grouping of
	// different customers off, 0 means what Cassandra does not warn about
	// (unlogged_batch_across_partitions_warn_threshold).
	GroupPartitions int
	// GroupBytes bounds a group; 0 means what Cassandra does not warn about
	// (batch_size_warn_threshold). A write above it goes alone.
	GroupBytes int
	// BatchesInFlight is the number of requests with writes to one node that may be in progress. Fewer are while writes
	// can be grouped, see the package comment. More allow more writes in progress, if a store answers late and can do
	// more at a time; less keep what waits out of Cassandra.
	BatchesInFlight int
	// ReadsInFlight is the number of reads of events and roots in progress, an equal share of them, and 8 at least,
	// for each set of replicas; others of the same set wait for their turn. When a node dies, the others wake its
	// customers as they are asked for, all at once. Reads that Cassandra cannot answer within Timeout would be tried
	// again at other nodes, and add to what it cannot do. One that has not had its turn within Timeout is
	// unavailable.
	ReadsInFlight int

	// AcceptRisks names risks that Open must not fail for, see [Risk]; "all" accepts all.
	AcceptRisks []string
	// Logger gets the driver's complaints; nil means slog.Default().
	Logger *slog.Logger
}

// DefaultOptions returns options for a Cassandra on this machine.
func DefaultOptions() Options {
	return Options{
		Hosts:             []string{"127.0.0.1"},
		Port:              9042,
		Keyspace:          "licensed",
		Consistency:       LocalQuorum,
		Timeout:           3 * time.Second,
		ConnectTimeout:    5 * time.Second,
		ReconnectInterval: time.Second,
		Connections:       2,
		MaxMutationBytes:  8 << 20,
		BatchesInFlight:   8,
		ReadsInFlight:     256,
	}
}

// ParseURL returns the default options changed by a URL:
//
//	cassandra://user:password@host:port,host2/keyspace?consistency=QUORUM&dc=eu-1&tls=true
//
// Parameters: consistency, dc, timeout, connect_timeout, connections, coalesce_wait, group_partitions,
// group_bytes, batches_in_flight, reads_in_flight, accept_risk (repeatable), tls (true), tls_ca, tls_cert, tls_key,
// tls_crl (files).
func ParseURL(s string) (Options, error) {
	o, err := parseURL(s)
	if err == nil {
		err = o.Validate()
	}
	if err != nil {
		return Options{}, fmt.Errorf("cassandra URL %s: %w", redacted(s), err)
	}
	return o, nil
}

// parseURL is ParseURL without its checks. No error has the password in it: it is logged.
func parseURL(s string) (Options, error) {
	o := DefaultOptions()
	rest, ok := strings.CutPrefix(s, "cassandra://")
	if !ok {
		return o, errors.New("it does not start with cassandra://")
	}
	// net/url takes one host only, so the list is parsed here and the rest there.
	authority, path := rest, ""
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority, path = rest[:i], rest[i:]
	}
	hosts := authority
	user := ""
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		user, hosts = authority[:i+1], authority[i+1:]
	}
	u, err := url.Parse("cassandra://" + user + "host" + path)
	if err != nil {
		return o, errors.New("malformed") // the error would show the password
	}
	o.Hosts = strings.Split(hosts, ",")
	o.Username = u.User.Username()
	o.Password, _ = u.User.Password()
	if ks := strings.Trim(u.Path, "/"); ks != "" {
		o.Keyspace = ks
	}
	return o, o.setAll(u.Query())
}

// setAll applies the parameters of a URL, in no fixed order. Several values of one
// parameter are applied in order, which only accept_risk uses. Errors name the parameter
// and its value.
func (o *Options) setAll(params url.Values) error {
	var encryption tlsParameters
	for name, values := range params {
		set := parameters[name]
		if set == nil {
			return fmt.Errorf("%s: no such parameter", name)
		}
		for _, v := range values {
			if err := set(o, &encryption, v); err != nil {
				return fmt.Errorf("%s=%s: %w", name, v, err)
			}
		}
	}
	// A certificate of any kind turns encryption on; tls=true alone uses the system's
	// roots.
	certificates, err := encryption.Open("tls_", tlsfiles.Options{
		AcceptExpiredCRLs: slices.Contains(o.AcceptRisks, tlsfiles.RiskExpiredCRL),
	})
	switch {
	case err != nil:
		return err
	case certificates != nil:
		o.Certificates, o.TLS = certificates, certificates.Client
	case encryption.on:
		o.TLS = func() *tls.Config { return &tls.Config{MinVersion: tls.VersionTLS12} }
	}
	return nil
}

// parameters of a URL, each with the function that sets it from its text.
var parameters = map[string]func(o *Options, encryption *tlsParameters, v string) error{
	"consistency": func(o *Options, _ *tlsParameters, v string) error {
		o.Consistency = Consistency(strings.ToUpper(v))
		return nil
	},
	"dc": func(o *Options, _ *tlsParameters, v string) error { o.DataCenter = v; return nil },
	"accept_risk": func(o *Options, _ *tlsParameters, v string) error {
		o.AcceptRisks = append(o.AcceptRisks, v)
		return nil
	},
	"timeout": func(o *Options, _ *tlsParameters, v string) error { return setDuration(&o.Timeout, v) },
	"connect_timeout": func(o *Options, _ *tlsParameters, v string) error {
		return setDuration(&o.ConnectTimeout, v)
	},
	"coalesce_wait":     func(o *Options, _ *tlsParameters, v string) error { return setDuration(&o.CoalesceWait, v) },
	"connections":       func(o *Options, _ *tlsParameters, v string) error { return setInt(&o.Connections, v) },
	"group_partitions":  func(o *Options, _ *tlsParameters, v string) error { return setInt(&o.GroupPartitions, v) },
	"group_bytes":       func(o *Options, _ *tlsParameters, v string) error { return setInt(&o.GroupBytes, v) },
	"batches_in_flight": func(o *Options, _ *tlsParameters, v string) error { return setInt(&o.BatchesInFlight, v) },
	"reads_in_flight":   func(o *Options, _ *tlsParameters, v string) error { return setInt(&o.ReadsInFlight, v) },
	"tls": func(_ *Options, f *tlsParameters, v string) (err error) {
		f.on, err = strconv.ParseBool(v)
		return err
	},
	"tls_ca":   func(_ *Options, f *tlsParameters, v string) error { f.CA = v; return nil },
	"tls_cert": func(_ *Options, f *tlsParameters, v string) error { f.Cert = v; return nil },
	"tls_crl":  func(_ *Options, f *tlsParameters, v string) error { f.CRL = v; return nil },
	"tls_key":  func(_ *Options, f *tlsParameters, v string) error { f.Key = v; return nil },
}

// setDuration and setInt set a field from the text of a parameter.
func setDuration(d *time.Duration, v string) (err error) {
	*d, err = time.ParseDuration(v)
	return err
}

func setInt(i *int, v string) (err error) {
	*i, err = strconv.Atoi(v)
	return err
}

// tlsParameters are those of encryption; on alone means the system's CAs.
type tlsParameters struct {
	on bool
	tlsfiles.Files
}

// redacted returns the URL without its password, for errors.
func redacted(s string) string {
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return s
	}
	scheme := strings.Index(s, "://") + len("://")
	if scheme > at || scheme < len("://") {
		return "(hidden)"
	}
	user, _, found := strings.Cut(s[scheme:at], ":")
	if !found {
		return s
	}
	return s[:scheme] + user + ":xxxxx" + s[at:]
}

// validKeyspace is what CQL takes without quotes: statements are put together with the
// name.
var validKeyspace = regexp.MustCompile(`^[a-z][a-z0-9_]{0,47}$`)

// Validate returns what is wrong with the options, or nil.
func (o *Options) Validate() error {
	var errs []error
	// All that is wrong is reported at once.
	complain := func(wrong bool, format string, args ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	complain(len(o.Hosts) == 0, "no contact points")
	for _, h := range o.Hosts {
		complain(!validHost(h), "contact point %q is not host or host:port", h)
	}
	complain(o.Port < 1 || o.Port > 65535, "port %d", o.Port)
	complain(!validKeyspace.MatchString(o.Keyspace),
		"keyspace %q is not 1 to 48 lower-case letters, digits and _, a letter first", o.Keyspace)
	_, known := consistencies[o.Consistency]
	complain(!known, "consistency %q: only LOCAL_QUORUM, QUORUM and ALL make reads and writes overlap", o.Consistency)
	complain(o.Username == "" && o.Password != "", "a password without a user name")
	complain(o.Timeout <= 0 || o.ConnectTimeout <= 0 || o.ReconnectInterval <= 0 || o.CoalesceWait < 0,
		"timeouts and intervals must be above 0")
	complain(o.Connections < 1, "connections %d", o.Connections)
	complain(o.MaxMutationBytes < 1, "max mutation bytes %d", o.MaxMutationBytes)
	complain(o.BatchesInFlight < 1, "batches in flight %d", o.BatchesInFlight)
	complain(o.ReadsInFlight < 1, "reads in flight %d", o.ReadsInFlight)
	complain(o.GroupPartitions < 0 || o.GroupBytes < 0, "group limits below 0")
	return errors.Join(errs...)
}

// validHost reports whether a contact point is HOST or HOST:PORT. An IPv6 address needs
// brackets and a port.
func validHost(h string) bool {
	if h == "" {
		return false
	}
	host, port, err := net.SplitHostPort(h)
	if err != nil {
		return !strings.ContainsAny(h, ":/ ")
	}
	n, err := strconv.Atoi(port)
	return host != "" && err == nil && n > 0 && n < 65536
}

// levels are the driver's names of a consistency and of the serial consistency that goes with it. The
// pairs are fixed: conditional updates at SERIAL and LOCAL_SERIAL do not exclude each other, so all
// nodes must use the same one, and with LOCAL_SERIAL the same data centre.
type levels struct {
	plain  gocql.Consistency
	serial gocql.SerialConsistency
}

// consistencies has the levels of each setting: for reads and writes, and for the Paxos
// rounds. LOCAL levels keep to one data centre for both.
var consistencies = map[Consistency]levels{
	LocalQuorum: {gocql.LocalQuorum, gocql.LocalSerial},
	Quorum:      {gocql.Quorum, gocql.Serial},
	All:         {gocql.All, gocql.Serial},
}

// levels returns the driver's levels; the zero value for options that are not valid.
func (o *Options) levels() levels { return consistencies[o.Consistency] }

// logger returns the logger to use.
func (o *Options) logger() *slog.Logger {
	if o.Logger != nil {
		return o.Logger
	}
	return slog.Default()
}
