package node

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"licensed/gateway"
	"licensed/gateway/auth"
	"licensed/gateway/dashboard"
	"licensed/gateway/server"
	"licensed/internal/auditlog"
	"licensed/internal/auditlog/auditexport"
	"licensed/internal/budget"
	"licensed/internal/lifecycle"
	"licensed/internal/openfiles"
	"licensed/internal/optional"
	"licensed/internal/signingkeys"
	"licensed/internal/tlsfiles"
	"licensed/internal/version"
)

// openAuth reads who may call the API and use the admin port.
func (n *Node) openAuth(context.Context) (err error) {
	if n.config.AuthFile == "" {
		return nil
	}
	n.verifier, err = auth.Open(auth.Config{File: n.config.AuthFile, Now: n.config.Now, Logger: n.log})
	if err != nil {
		return err
	}
	n.expiries.AddTokens(n.config.AuthFile, n.verifier.Expiries)
	n.parts.Push("auth file", func(context.Context) error { n.verifier.Close(); return nil })
	return nil
}

// authenticator returns who knows callers; nil where they need no credentials.
func (n *Node) authenticator() auth.Authenticator {
	if n.verifier == nil {
		return nil // and no interface with a nil in it
	}
	return n.verifier
}

// encryption returns how a port for clients is encrypted. Where there is an auth file, a certificate is one of the
// means to prove who a client is; elsewhere the only one.
func (n *Node) encryption(port string, files tlsfiles.Files, prefix string) (*tls.Config, error) {
	c, err := files.OpenServer(prefix, tlsfiles.Options{Log: n.log, AcceptExpiredCRLs: n.acceptsExpiredCRLs()})
	n.expiries.Add(port, c)
	if err != nil || n.verifier == nil {
		return c.Server(), err
	}
	return c.Asking(), nil
}

// startAdmin serves the admin port, if there is to be one, before anything slow or exclusive.
func (n *Node) startAdmin(context.Context) (err error) {
	if n.config.Admin == "" {
		return nil
	}
	token, err := dashboard.ReadToken(n.config.Dashboard.TokenFile)
	if err != nil {
		return err
	}
	encryption, err := n.encryption("admin", n.config.AdminTLS, "admin-tls-")
	if err != nil {
		return err
	}
	admin, err := server.Listen(n.config.Admin, n.adminServer(encryption))
	if err != nil {
		return fmt.Errorf("admin port: %w", err)
	}
	n.access = dashboard.NewAccess(dashboard.AccessConfig{
		Token: token, Authenticator: n.authenticator(), Loopback: isLocal(admin.Addr().String()),
		Open: n.acceptedRisk("open-admin"), Now: n.config.Now, Logger: n.log,
	})
	n.admin.Set(admin)
	n.parts.Push("admin port", admin.Shutdown)
	// A port that ends by itself is a failure of the process.
	go n.watch(admin.Start(gateway.AllowHosts(n.adminHandler(), n.hostNames())))
	return nil
}

// bindAPI takes the address of the API, before anything slow or exclusive.
func (n *Node) bindAPI(context.Context) error {
	encryption, err := n.encryption("api", n.config.APITLS, "tls-")
	if err != nil {
		return err
	}
	api, err := server.Listen(n.config.Listen, n.apiServer(encryption))
	if err != nil {
		return fmt.Errorf("API port: %w", err)
	}
	n.api.Set(api)
	n.parts.Push("API address", func(context.Context) error { api.Close(); return nil })
	if n.config.OperationsListen == "" {
		return nil
	}
	c := n.apiServer(encryption)
	c.Name, c.MaxConnections = "operations_connections", n.operationsConnections()
	operators, err := server.Listen(n.config.OperationsListen, c)
	if err != nil {
		return fmt.Errorf("operations port: %w", err)
	}
	n.operators.Set(operators)
	n.parts.Push("operations address", func(context.Context) error { operators.Close(); return nil })
	return nil
}

// keysPoll is the interval between looks at the keys that sign licences.
const keysPoll = time.Second

// startAPI serves the API.
func (n *Node) startAPI(ctx context.Context) error {
	api, _ := n.api.Get()
	c := gateway.DefaultConfig()
	c.MaxDeadline, c.Limits = n.config.MaxDeadline, n.config.Limits
	c.Budgets = n.connectionBudgets()
	c.HistoryReader, c.StoredHead, c.Operations = n.storage.Reader(), n.storedHead, &operations{n}
	c.Logger, c.Registry, c.Health, c.Now = n.log, n.registry, n.health, n.config.Now
	c.Kind, c.PolicyVersion = n.policy.Kind(), n.policy.Version
	c.RenewAfterPlay = func() bool { return n.policy.Kind().Policy().RenewAfterPlay() }
	var err error
	if c.Interceptors, err = n.tracer.Interceptors(); err != nil {
		return err
	}
	if n.config.LicenseKeys != "" {
		keys, err := signingkeys.Open(signingkeys.SourceConfig{
			Path: n.config.LicenseKeys, Grace: n.config.LicenseKeyGrace, Poll: keysPoll, Now: n.config.Now, Log: n.log,
		})
		if err != nil {
			return fmt.Errorf("license-keys: %w", err)
		}
		n.parts.Push("keys of licences", func(context.Context) error { keys.Close(); return nil })
		c.SigningKeys, c.LicenseIssuer = keys, n.config.LicenseIssuer
	}
	c.DevicesPage, c.Authenticator = n.config.DevicesPage, n.authenticator()
	if n.config.AuditFile != "" {
		if c.Audit, err = n.openAudit(ctx); err != nil {
			return err
		}
	}
	if c.Fallback, err = n.openFallback(); err != nil {
		return err
	}
	g := gateway.New(c, n.aggregates)
	n.gateway.Set(g)
	public := g.Handler()
	if operators, ok := n.operators.Get(); ok {
		public = g.WithoutOperations()
		go n.watch(operators.Start(gateway.AllowHosts(g.Handler(), n.hostNames())))
		n.parts.Push("operations port", lifecycle.Most(operators.Shutdown))
	}
	go n.watch(api.Start(gateway.AllowHosts(gateway.CrossOrigin(public, n.config.Origins), n.hostNames())))
	n.parts.Push("API port", lifecycle.Most(api.Shutdown))
	// Pushed last, so stopped first: open streams would hold up the port's shutdown.
	n.parts.Push("streams", func(context.Context) error { g.EndStreams(); return nil })
	return nil
}

// openAudit opens the audit log, whose records go to the collector of traces as well, if there is one.
func (n *Node) openAudit(ctx context.Context) (*auditlog.Log, error) {
	export, err := auditexport.Start(ctx, n.collector(), n.registry, n.log)
	if err != nil {
		return nil, err
	}
	n.parts.Push("export of the audit log", func(ctx context.Context) error {
		return n.sendLast(ctx, "audit records not exported, they are in the file", export.Close)
	})
	audit, err := auditlog.Open(auditlog.Config{
		File: n.config.AuditFile, Logger: n.log, Listener: auditlog.Listener{Appended: export.Appended},
	})
	if err != nil {
		return nil, err
	}
	n.parts.Push("audit log", func(context.Context) error { return audit.Close() })
	return audit, nil
}

// operationsConnections is the number of connections to the port of operators, a part of those that the API could
// have; 0 if there is no such port.
func (n *Node) operationsConnections() int {
	if n.config.OperationsListen == "" {
		return 0
	}
	return max(4, n.files.API/8)
}

// Operations returns the address of the port of operators, nil if there is none.
func (n *Node) Operations() net.Addr {
	if operators, ok := n.operators.Get(); ok {
		return operators.Addr()
	}
	return nil
}

// API returns the address of the API, nil if there is none.
func (n *Node) API() net.Addr {
	if api, ok := n.api.Get(); ok {
		return api.Addr()
	}
	return nil
}

// APIURL returns how clients on this machine reach the API; empty if there is none.
func (n *Node) APIURL() string {
	api, ok := n.api.Get()
	if !ok {
		return ""
	}
	scheme := "http://"
	if n.config.APITLS != (tlsfiles.Files{}) {
		scheme = "https://"
	}
	return scheme + dialable(api.Addr())
}

// Admin returns the address of the admin port, nil if there is none.
func (n *Node) Admin() net.Addr {
	if admin, ok := n.admin.Get(); ok {
		return admin.Addr()
	}
	return nil
}

// Ports returns what there is at which address, for people.
func (n *Node) Ports() [][2]string {
	var all [][2]string
	if n.API() != nil {
		all = append(all, [2]string{"API", n.APIURL() + "  (gRPC, gRPC-Web, JSON)"})
	}
	if a := n.Operations(); a != nil {
		scheme, _, _ := strings.Cut(n.APIURL(), "://")
		all = append(all, [2]string{"Ops API", scheme + "://" + dialable(a) + "  (AdminService too)"})
	}
	if admin, ok := n.admin.Get(); ok {
		scheme := "http://"
		if n.config.AdminTLS != (tlsfiles.Files{}) {
			scheme = "https://"
		}
		all = append(all, [2]string{"Admin", scheme + dialable(admin.Addr()) + "  (" + n.adminPages() + ")"})
	}
	if m, ok := n.member.Get(); ok {
		all = append(all, [2]string{"Node", m.Transport.Address()}, [2]string{"Gossip", m.Gossip.Address()})
	}
	return all
}

// dialable returns an address that reaches a listener, also one on all interfaces.
func dialable(a net.Addr) string {
	if t, ok := a.(*net.TCPAddr); ok && t.IP.IsUnspecified() {
		return net.JoinHostPort("localhost", fmt.Sprint(t.Port))
	}
	return a.String()
}

// planFiles says at the start what the limit of open files is used for, before anything has opened many.
func (n *Node) planFiles(context.Context) error {
	c := &n.config
	n.files = openfiles.Divide(openfiles.Limit(), openfiles.Needs{
		Store: c.Store == "", Archive: c.ArchiveDir() != "", Members: !c.Cluster.Alone, Cassandra: c.OnCassandra(),
		Node: c.Cluster.MaxConnections, API: c.MaxConnections,
	})
	f := &n.files
	n.log.Info("limits set", "open_files", f.Limit, "api_connections", f.API, "admin_connections", f.Admin,
		"store_files", f.Store,
		"archive_files", f.Archive, "node_connections", f.Node, "member_connections", f.Members,
		"cassandra_connections", f.Cassandra,
		"request_memory_bytes", c.Limits.Memory, "address_share", c.Limits.AddressShare)
	if need := f.Reserved() + f.API; need > f.Limit {
		n.log.Warn("limit of open files too low", "open_files", f.Limit, "needed", need,
			"remedy", fmt.Sprintf(
				"raise it to %d (ulimit -n, LimitNOFILE), or set --max-connections and --max-node-connections", need,
			))
	}
	return nil
}

// adminAnswer is the time the admin port may take to answer: profiles take half a minute.
const adminAnswer = time.Minute

// apiServer returns how the API is served.
func (n *Node) apiServer(encryption *tls.Config) server.Config {
	c := server.DefaultConfig()
	c.TLS, c.Answer, c.Logger = encryption, n.config.MaxDeadline, n.log
	c.ReadTimeout, c.ReplyTimeout, c.MaxStreams = n.config.ReadTimeout, n.config.ReplyTimeout, n.config.MaxStreams
	c.AddressShare, c.MaxConnections = n.config.Limits.AddressShare, max(4, n.files.API-n.operationsConnections())
	return c
}

// adminServer returns how the admin port is served.
func (n *Node) adminServer(encryption *tls.Config) server.Config {
	c := server.DefaultConfig()
	c.Name, c.Answer, c.Logger = "admin_connections", adminAnswer, n.log
	c.TLS = encryption
	c.AddressShare, c.MaxConnections = 0.5, n.files.Admin
	return c
}

// connectionBudgets returns the budgets of the ports, whose use the gateway shows.
func (n *Node) connectionBudgets() []*budget.Budget {
	var all []*budget.Budget
	for _, port := range []*optional.Value[server.Server]{&n.api, &n.admin, &n.operators} {
		if s, ok := port.Get(); ok {
			all = append(all, s.Connections())
		}
	}
	return all
}

// newRegistry returns a registry with what is known of every process.
func newRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "licensed_build_info",
		Help:        "Always 1; the labels describe the build.",
		ConstLabels: prometheus.Labels{"version": version.Version(), "goversion": runtime.Version()},
	})
	build.Set(1)
	r.MustRegister(build, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}
