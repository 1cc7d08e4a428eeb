package gateway

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// AllowHosts serves only requests whose header Host has an address, localhost, one of these names, or over TLS the name
// that the client verified. A page of another site can otherwise reach the port under a name of that site, which it
// makes resolve to this address (DNS rebinding). A name like *.example.com stands for all names below a domain, and *
// for every name. Health checks are served under any name.
func AllowHosts(h http.Handler, names []string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		verified := r.TLS != nil && r.TLS.ServerName != "" && strings.EqualFold(r.TLS.ServerName, host)
		health := r.URL.Path == "/healthz" || r.URL.Path == "/readyz"
		if verified || health || allowedHost(strings.ToLower(host), names) {
			h.ServeHTTP(w, r)
			return
		}
		status := http.StatusForbidden
		if r.TLS != nil {
			status = http.StatusMisdirectedRequest // A client may have taken a connection to another name.
		}
		http.Error(w, fmt.Sprintf("not available under the host name %q; use an address, or add the name to "+
			"--allowed-hosts", host), status)
	})
}

// allowedHost reports whether a name is one of those that are allowed. Browsers always send one.
func allowedHost(host string, names []string) bool {
	if host == "" || host == "localhost" {
		return true
	}
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return true // No site has the address of this machine as its name.
	}
	return slices.ContainsFunc(names, func(name string) bool {
		suffix, below := strings.CutPrefix(strings.ToLower(name), "*")
		return below && strings.HasSuffix(host, suffix) || !below && strings.EqualFold(name, host)
	})
}
