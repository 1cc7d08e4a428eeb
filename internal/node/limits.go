package node

import (
	"crypto/tls"
	"time"

	"licensed/gateway"
	"licensed/internal/budget"
)

// adminAnswer is the time the admin port may take to answer: profiles take half a minute.
const adminAnswer = time.Minute

// apiServer returns how the API is served.
func (n *Node) apiServer(encryption *tls.Config) gateway.ServerConfig {
	c := gateway.DefaultServerConfig()
	c.TLS, c.Answer, c.Logger = encryption, n.config.MaxDeadline, n.log
	c.ReadTimeout, c.ReplyTimeout, c.MaxStreams = n.config.ReadTimeout, n.config.ReplyTimeout, n.config.MaxStreams
	c.AddressShare, c.MaxConnections = n.config.Limits.AddressShare, n.files.api
	return c
}

// adminServer returns how the admin port is served.
func (n *Node) adminServer() gateway.ServerConfig {
	c := gateway.DefaultServerConfig()
	c.Name, c.Answer, c.Logger = "admin_connections", adminAnswer, n.log
	c.AddressShare, c.MaxConnections = 0.5, n.files.admin
	return c
}

// connectionBudgets returns the budgets of the ports, whose use the gateway shows.
func (n *Node) connectionBudgets() []*budget.Budget {
	var all []*budget.Budget
	for _, s := range []*gateway.Server{n.api, n.admin} {
		if s != nil {
			all = append(all, s.Connections())
		}
	}
	return all
}
