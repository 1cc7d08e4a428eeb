package cassandra

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"

	"github.com/gocql/gocql"
)

// secure sets who the process is to Cassandra and how connections are encrypted. The driver keeps for all connections
// what it is given at first; password and TLS are asked for here at each connection.
func secure(cfg *gocql.ClusterConfig, o *Options) {
	if o.Username != "" {
		password := o.ReadPassword
		if password == nil {
			password = func() string { return o.Password }
		}
		cfg.AuthProvider = func(*gocql.HostInfo) (gocql.Authenticator, error) {
			return gocql.PasswordAuthenticator{Username: o.Username, Password: password()}, nil
		}
	}
	if o.TLS != nil {
		o.Certificates.LogTo(o.logger())
		cfg.HostDialer = &dialer{
			Dialer: net.Dialer{Timeout: cfg.ConnectTimeout, KeepAlive: cfg.SocketKeepalive}, config: o.TLS,
		}
	}
}

// dialer connects with TLS.
type dialer struct {
	net.Dialer
	config func() *tls.Config
}

// DialHost implements gocql.HostDialer.
func (d *dialer) DialHost(ctx context.Context, host *gocql.HostInfo) (*gocql.DialedHost, error) {
	if ip := host.ConnectAddress(); len(ip) == 0 || ip.IsUnspecified() || host.Port() == 0 {
		return nil, fmt.Errorf("the address of Cassandra node %s is not known", host.HostID())
	}
	c, err := d.DialContext(ctx, "tcp", host.ConnectAddressAndPort())
	if err != nil {
		return nil, err
	}
	return gocql.WrapTLS(ctx, c, host.HostnameAndPort(), d.config())
}
