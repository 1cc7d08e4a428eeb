package node

import (
	"context"
	"fmt"
	"net/http"

	"github.com/google/uuid"

	"licensed/actors/license"
	"licensed/cluster"
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
	// TokenFile has the token that opens dashboard, metrics and profiles. Without one, and without Config.AuthFile,
	// they are open on a loopback address, and elsewhere if that risk is accepted.
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
	mux.Handle("/metrics", n.access.Guard(basic, dashboard.Metrics))
	mux.Handle("/debug/", page(
		func(d *dashboard.Dashboard) http.Handler { return d.Guard(basic, dashboard.Profiles) },
		n.access.Guard(basic, dashboard.Profiles)))
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
	if _, ok := n.admin.Get(); !ok || n.config.Dashboard.Off {
		return nil
	}
	// Requests do not leave the process: the API is called without a port, and under its
	// limits.
	client := server.InProcess(g.Handler())
	const base = "http://in.process"
	d, err := dashboard.New(dashboard.Config{
		Cluster:  &operations{n},
		Licenses: licensedv1connect.NewLicenseServiceClient(client, base),
		History:  licensedv1connect.NewHistoryServiceClient(client, base),
		Admin:    licensedv1connect.NewAdminServiceClient(client, base),
		Runbook:  docs.Operations,
		Shard: func(customer string) uint32 {
			return cluster.ShardOf(customer+":"+license.Name, n.shards.Shards())
		},
		Access: n.access, Now: n.config.Now, NewID: uuid.NewString, Logger: n.log,
	})
	if err != nil {
		return fmt.Errorf("dashboard: %w", err)
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
