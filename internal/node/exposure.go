package node

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"licensed/internal/tlsfiles"
	"licensed/messages/licensedv1"
)

// Risk is what a process does not start with, unless the operator accepts it by its name: a port that others reach and
// that does not know them, or does not encrypt.
type Risk struct {
	// Name for --accept-risk.
	Name string
	// Danger says what others can do, and Remedy which settings protect the port.
	Danger, Remedy string
	// address of the port; empty if the process does not have it.
	address func(*Config) string
	// protected reports whether the port is encrypted and knows its callers.
	protected func(*Config) bool
}

// Risks are all of them.
var Risks = []Risk{
	{
		"open-api", "others can call the API without credentials, or read its requests", "--tls-cert and --auth-file",
		func(c *Config) string { return c.ofGateway(c.Listen) }, apiProtected,
	},
	{
		"open-operations", "others can drain, import and archive without credentials", "--tls-cert and --auth-file",
		func(c *Config) string { return c.ofGateway(c.OperationsListen) }, apiProtected,
	},
	{
		"open-admin", "others can read metrics and profiles without credentials, or the admin token",
		"--admin-tls-cert and either --admin-token-file or --auth-file",
		func(c *Config) string { return c.Admin },
		func(c *Config) bool {
			return c.AdminTLS.Cert != "" && (c.Dashboard.TokenFile != "" || c.AuthFile != "")
		},
	},
	{
		"open-node", "others can read and change every customer as a process of the cluster",
		"--node-tls-cert and --node-tls-ca",
		func(c *Config) string { return c.ofMember(c.Cluster.NodeListen) },
		func(c *Config) bool { return c.Cluster.NodeTLS != (tlsfiles.Files{}) },
	},
	{
		"open-callers", "gateways can act for every customer without saying for whom", "--auth-file",
		func(c *Config) string {
			if !c.Roles.Has(RoleNode) {
				return ""
			}
			return c.ofMember(c.Cluster.NodeListen)
		},
		func(c *Config) bool { return c.AuthFile != "" },
	},
	{
		"open-gossip", "others can join the cluster's gossip", "--gossip-key-file",
		func(c *Config) string { return c.ofMember(c.Cluster.Bind) },
		func(c *Config) bool { return c.Cluster.KeyFile != "" },
	},
}

// isMember reports whether the process is one of several in a cluster.
func (c *Config) isMember() bool { return c.Store != "" && !c.Cluster.Alone }

// ofMember returns the address of a port that only members of a cluster have.
func (c *Config) ofMember(address string) string {
	if !c.isMember() {
		return ""
	}
	return address
}

// ofGateway returns the address of a port that nodes without the role of a gateway do not have.
func (c *Config) ofGateway(address string) string {
	if c.isMember() && !c.Roles.Has(RoleGateway) {
		return ""
	}
	return address
}

func apiProtected(c *Config) bool { return c.APITLS.Cert != "" && c.AuthFile != "" }

// expiredCRLDanger is what tlsfiles.RiskExpiredCRL risks, which belongs to no port.
const expiredCRLDanger = "certificates are accepted that were revoked after a revocation list expired"

// riskNames returns the names of all risks.
func riskNames() string {
	var names []string
	for _, r := range Risks {
		names = append(names, r.Name)
	}
	names = append(names, tlsfiles.RiskExpiredCRL)
	return strings.Join(names, ", ")
}

// ExposedError says that others reach ports of a process that are not protected.
type ExposedError struct{ Ports []Exposed }

// Exposed is a port that others reach and that is not protected.
type Exposed struct {
	Risk
	Address string
}

// Error implements error.
func (e *ExposedError) Error() string {
	var b strings.Builder
	for i, p := range e.Ports {
		if i > 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "%s is not a loopback address, and %s: protect the port with %s, or accept this with "+
			"--accept-risk %s", p.Address, p.Danger, p.Remedy, p.Name)
	}
	return b.String()
}

// exposed returns the ports that others reach and that are not protected, those accepted and the rest.
func (c *Config) exposed() (accepted, refused []Exposed) {
	for _, r := range Risks {
		address := r.address(c)
		switch {
		case address == "" || isLocal(address) || r.protected(c):
		case slices.Contains(c.AcceptRisks, r.Name):
			accepted = append(accepted, Exposed{r, address})
		default:
			refused = append(refused, Exposed{r, address})
		}
	}
	return accepted, refused
}

// isLocal reports whether only this machine reaches a HOST:PORT. A name that cannot be resolved is not local.
func isLocal(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil || host == "" {
		return false
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ips := []net.IP{net.ParseIP(host)}
	if ips[0] == nil {
		if ips, err = net.LookupIP(host); err != nil {
			return false
		}
	}
	return !slices.ContainsFunc(ips, func(ip net.IP) bool { return !ip.IsLoopback() })
}

// checkExposure is the first step of a start: a process does not start with a port that others reach and that is not
// protected.
func (n *Node) checkExposure(context.Context) error {
	accepted, refused := n.config.exposed()
	if len(refused) > 0 {
		return &ExposedError{refused}
	}
	n.accepted = accepted
	for _, p := range accepted {
		n.log.Warn("risk accepted", "risk", p.Name, "address", p.Address, "danger", p.Danger, "remedy", p.Remedy)
	}
	if n.acceptsExpiredCRLs() {
		n.log.Warn("risk accepted", "risk", tlsfiles.RiskExpiredCRL, "danger", expiredCRLDanger)
	}
	return nil
}

// acceptsExpiredCRLs reports whether revocation lists that expired are used all the same.
func (n *Node) acceptsExpiredCRLs() bool {
	return slices.Contains(n.config.AcceptRisks, tlsfiles.RiskExpiredCRL)
}

// acceptedRisk reports whether a risk was accepted that exists.
func (n *Node) acceptedRisk(name string) bool {
	return slices.ContainsFunc(n.accepted, func(p Exposed) bool { return p.Name == name })
}

// exposureWarnings tell of risks that were accepted.
func (n *Node) exposureWarnings() (all []*licensedv1.ClusterWarning) {
	for _, p := range n.accepted {
		all = append(all, &licensedv1.ClusterWarning{
			Level: licensedv1.WarningLevel_WARNING_LEVEL_WARNING, Node: n.name, Runbook: "accepted-risks",
			Text:     fmt.Sprintf("%s accepts the risk %s at %s: %s", n.name, p.Name, p.Address, p.Danger),
			NextStep: "Protect the port with " + p.Remedy + ", and remove --accept-risk " + p.Name + ".",
		})
	}
	if n.acceptsExpiredCRLs() {
		all = append(all, &licensedv1.ClusterWarning{
			Level: licensedv1.WarningLevel_WARNING_LEVEL_WARNING, Node: n.name, Runbook: "accepted-risks",
			Text:     fmt.Sprintf("%s accepts the risk %s: %s", n.name, tlsfiles.RiskExpiredCRL, expiredCRLDanger),
			NextStep: "Replace the lists before they expire, and remove --accept-risk " + tlsfiles.RiskExpiredCRL + ".",
		})
	}
	return all
}

// hostNames returns the names under which the HTTP ports are served.
func (n *Node) hostNames() []string {
	c := &n.config
	names := append(slices.Clone(c.AllowedHosts), n.name)
	if machine, err := os.Hostname(); err == nil {
		names = append(names, machine)
	}
	for _, address := range []string{
		c.Listen, c.OperationsListen, c.Admin,
		c.Cluster.Bind, c.Cluster.Advertise, c.Cluster.NodeListen, c.Cluster.NodeAdvertise,
	} {
		if host, _, err := net.SplitHostPort(address); err == nil && host != "" {
			names = append(names, host)
		}
	}
	return names
}
