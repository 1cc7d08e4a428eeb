package node

import (
	"context"
	"fmt"
	"net"
	"net/http"

	"github.com/google/uuid"

	"licensed/docs"
	"licensed/gateway"
	"licensed/gateway/dashboard"
	"licensed/gateway/server"
	"licensed/messages/licensedv1/licensedv1connect"
)

// DashboardConfig of the web page on the admin port.
type DashboardConfig struct {
	// Off leaves it out.
	Off bool
	// TokenFile has the token that opens the dashboard and the profiles. Without one the dashboard is closed
	// unless the admin port is on a loopback address.
	TokenFile string
}

// adminHandler returns the handler of the admin port. The dashboard is present once there is a gateway.
func (n *Node) adminHandler() http.Handler {
	basic := gateway.AdminHandler(n.health, n.registry, n.log)
	mux := http.NewServeMux()
	mux.Handle("/", basic)
	page := func(h func(*dashboard.Dashboard) http.Handler, without http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			// Looked up for each request: the admin port is served before the gateway
			// exists.
			if d, ok := n.dashboard.Get(); ok {
				h(d).ServeHTTP(w, r)
				return
			}
			without.ServeHTTP(w, r)
		})
	}
	// Profiles show memory: with a token they need it, as the dashboard does.
	if n.adminToken != "" {
		byToken := dashboard.Bearer(n.adminToken, n.log, basic)
		mux.Handle("/debug/", page(func(d *dashboard.Dashboard) http.Handler { return d.Guard(basic) }, byToken))
	}
	if n.config.Dashboard.Off {
		return mux
	}
	mux.Handle(dashboard.Path, page((*dashboard.Dashboard).Handler, http.HandlerFunc(notYet)))
	mux.Handle("GET /{$}", page(func(*dashboard.Dashboard) http.Handler {
		return http.RedirectHandler(dashboard.Path, http.StatusSeeOther)
	}, basic))
	return mux
}

// notYet answers for a dashboard that the process has not, or not yet.
func notYet(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "this process serves no dashboard, or not yet", http.StatusServiceUnavailable)
}

// startDashboard puts the dashboard on the admin port of a gateway. It uses the API from within the process.
func (n *Node) startDashboard(context.Context) error {
	g, _ := n.gateway.Get()
	admin, ok := n.admin.Get()
	if !ok || n.config.Dashboard.Off {
		return nil
	}
	// Requests do not leave the process: the API is called without a port, and under its
	// limits.
	client, loopback := server.InProcess(g.Handler()), isLoopback(admin.Addr())
	const base = "http://in.process"
	d, err := dashboard.New(dashboard.Config{
		Cluster:  &operations{n},
		Licenses: licensedv1connect.NewLicenseServiceClient(client, base),
		History:  licensedv1connect.NewHistoryServiceClient(client, base),
		Admin:    licensedv1connect.NewAdminServiceClient(client, base),
		Runbook:  docs.Operations,
		Token:    n.adminToken, Loopback: loopback, Now: n.config.Now, NewID: uuid.NewString, Logger: n.log,
	})
	if err != nil {
		return fmt.Errorf("dashboard: %w", err)
	}
	if n.adminToken == "" && !loopback {
		n.log.Warn("the dashboard is closed: others can reach the admin port, and there is no admin token",
			"address", admin.Addr().String())
	}
	n.dashboard.Set(d)
	n.parts.Push("dashboard", func(context.Context) error { d.Close(); return nil })
	return nil
}

// adminPages names what the admin port has, for people.
func (n *Node) adminPages() string {
	const basic = "/metrics /debug/pprof/ /healthz /readyz"
	if _, ok := n.dashboard.Get(); !ok {
		return basic
	}
	return dashboard.Path + " " + basic
}

// isLoopback reports whether only this machine reaches an address.
func isLoopback(a net.Addr) bool {
	t, ok := a.(*net.TCPAddr)
	return ok && t.IP.IsLoopback()
}
