package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"connectrpc.com/grpcreflect"
	"github.com/prometheus/client_golang/prometheus"

	"licensed/actors"
	"licensed/gateway/auth"
	"licensed/gateway/devicespage"
	"licensed/gateway/fallback"
	"licensed/gateway/wire"
	"licensed/internal/auditlog"
	"licensed/internal/budget"
	"licensed/messages/licensedv1/licensedv1connect"
	"licensed/persistence"
)

// MaxBodyBytes is the largest message a request may carry.
const MaxBodyBytes = 64 << 10

// maxOtherBytes is the largest message of other services, which have the name of a service or a symbol. A request of
// theirs is counted with streamBytes, for the message as it arrives, decompressed, and decoded.
const maxOtherBytes = 8 << 10

// compressFrom is the size of a reply from which compression, where the client offers it, is worth its
// time; replies to commands are a few hundred bytes.
const compressFrom = 4 << 10

// Aggregates executes commands and answers queries of customers; *actors.Runtime does. Safe for
// concurrent use.
type Aggregates interface {
	// Execute runs a command whose payload is a *licensedv1.Command.
	Execute(ctx context.Context, id string, c actors.Command) (actors.Reply, error)
	// Query answers a *licensedv1.Query with what license.Query answers.
	Query(ctx context.Context, id string, query any) (actors.Answer, error)
}

// Config of a gateway. DefaultConfig gives sensible values.
type Config struct {
	// MaxReply is the largest reply of GetState, TryAt and Why, which have no pages, in bytes (default 4 MiB: what
	// clients of gRPC accept unless told otherwise). Larger ones are refused, with a message that says how to read
	// the rest.
	MaxReply int
	// MaxDeadline caps the time a request may take and is what a request without a deadline gets.
	// Higher: clients wait longer for an aggregate in trouble; lower: a cold aggregate on a slow
	// store may not answer in time, and its client must ask again.
	MaxDeadline time.Duration
	// Limits of what requests use at a time.
	Limits
	// Budgets of others whose use is shown among the metrics of the gateway's own: those of servers, for instance.
	Budgets []*budget.Budget
	// HistoryReader reads what HistoryService tells, and what the aggregate's state no longer knows: downloads before
	// the last year. Nil for a gateway without that service.
	HistoryReader HistoryReader
	// StoredHead returns where a customer's history ends in the store, without asking the owner: Fallback answers
	// questions by it. Nil: it does so from former answers only. It needs HistoryReader and Kind. Errors: those of
	// actors.StoredHead.
	StoredHead func(ctx context.Context, customer string) (persistence.Head, error)
	// Operations are what AdminService offers; nil for a gateway without that service.
	Operations Operations
	// Kind of the aggregates, to decode and replay their events. HistoryService needs it.
	Kind actors.Kind
	// PolicyVersion names the policy in force. HistoryService needs it.
	PolicyVersion func() string
	// RenewAfterPlay reports whether a renewal begins the hours after the first playback anew, by the policy in force;
	// nil for no.
	RenewAfterPlay func() bool
	// FollowPoll is the interval at which the owner is asked for new events of a customer that is followed, where
	// they were not heard of (Appended). Shorter: events written by other nodes are seen sooner, at
	// the price of a question to the customer's actor each time.
	FollowPoll time.Duration
	// Fallback accepts renewals, releases and facts while owners cannot be reached, and answers questions; nil for a
	// gateway that does not. It needs SigningKeys. The owner of the gateway runs it.
	Fallback *fallback.Fallback
	// SigningKeys sign licences; nil for a gateway without signed licences.
	SigningKeys SigningKeys
	// LicenseIssuer names the service in signed licences. Those of another issuer are not accepted.
	LicenseIssuer string
	// Now is the clock for arrival times.
	Now func() time.Time
	// Logger takes what an operator must know (bugs, corrupt histories); requests are not logged.
	Logger *slog.Logger
	// Registry takes the metrics.
	Registry prometheus.Registerer
	// Interceptors surround all that the gateway does about a call, the first outermost: traces.
	Interceptors []connect.Interceptor
	// Authenticator finds out who calls; nil for an API that is open to all who reach it.
	Authenticator auth.Authenticator
	// Authorizer decides what callers may do; nil for the rules of the .proto files. Without an Authenticator it is not
	// asked.
	Authorizer auth.Authorizer
	// Audit records calls of operators, looks of support and others at customers, and calls that were denied; nil for
	// no record. A call that cannot be recorded is not executed.
	Audit interface {
		Append(r auditlog.Record) error
	}
	// DevicesPage lists the origins whose pages may show the customers' devices page in a frame, see package
	// devicespage; without any there is no such page.
	DevicesPage []string
	// Health is what health checks are answered with; the owner of the gateway sets it.
	Health *Health
}

// DefaultConfig returns the configuration that a node runs with unless told otherwise.
func DefaultConfig() Config {
	return Config{
		MaxReply: 4 << 20, MaxDeadline: 10 * time.Second,
		Limits:     DefaultLimits(),
		FollowPoll: 2 * time.Second,
		Now:        time.Now,
		Logger:     slog.Default(),
		Registry:   prometheus.NewRegistry(),
		Health:     new(Health),
	}
}

// Gateway serves the API. Safe for concurrent use.
type Gateway struct {
	config     Config
	aggregates Aggregates
	metrics    *metrics
	limits     *limits
	routes     map[string]*route // by path
	followed   followed
	// idle is the number of workers of sessions that wait for a call.
	idle atomic.Int64
	// stopping ends the streams, and stop ends it.
	stopping context.Context
	stop     context.CancelFunc
}

// New returns a gateway before the aggregates. It panics if the registry has a gateway's metrics already.
func New(c Config, a Aggregates) *Gateway {
	g := &Gateway{config: c, aggregates: a, metrics: newMetrics(), limits: newLimits(c.Limits)}
	if g.config.Authorizer == nil {
		g.config.Authorizer = auth.NewTable()
	}
	g.routes = g.newRoutes()
	g.followed.streams = make(map[string]map[chan struct{}]struct{})
	g.stopping, g.stop = context.WithCancel(context.Background())
	c.Registry.MustRegister(g.metrics.collectors(
		func() float64 { return float64(g.InFlight()) }, func() float64 { return float64(g.followed.count()) })...)
	c.Registry.MustRegister(g.signingMetrics()...)
	c.Registry.MustRegister(budgetMetrics{
		append(slices.Clone(c.Budgets), g.limits.all...), []*budget.Rate{g.limits.requests, g.limits.created},
	})
	return g
}

// newRoutes returns how the requests of each method are admitted, by path. Paths that are
// not in it are no calls of the API.
func (g *Gateway) newRoutes() map[string]*route {
	routes := make(map[string]*route)
	for path, m := range g.metrics.methods {
		r := &route{
			path: path, metrics: m, class: &g.limits.customers, body: MaxBodyBytes, reply: replyEstimates[m.name],
			stream: m.stream, session: path == licensedv1connect.LicenseServiceSessionProcedure,
		}
		// Requests of operators have budgets of their own, so that customers cannot keep
		// them out.
		if strings.HasPrefix(path, "/"+licensedv1connect.AdminServiceName+"/") {
			r.class = &g.limits.operators
		}
		// Imports are the largest messages, and wait for the store: they must not use up
		// the operators' budgets.
		if path == licensedv1connect.AdminServiceImportCustomerProcedure {
			r.class, r.body = &g.limits.imports, MaxImportBytes
		}
		routes[path] = r
	}
	return routes
}

// Handler returns the handler of the public port: the API, health checks and server
// reflection. Services without a reader of histories, or without operations, are left
// out, also of reflection.
func (g *Gateway) Handler() http.Handler { return g.handler(true) }

// WithoutOperations is Handler without AdminService, for a port of clients beside one of operators.
func (g *Gateway) WithoutOperations() http.Handler { return g.handler(false) }

func (g *Gateway) handler(operations bool) http.Handler {
	options := HandlerOptions()
	withInterceptor := append(options, connect.WithInterceptors(g.interceptors()...))
	mux, names := http.NewServeMux(), []string{licensedv1connect.LicenseServiceName, grpchealth.HealthV1ServiceName}
	mount := func(path string, api http.Handler) {
		mux.Handle(path, g.admit(api, connect.NewErrorWriter(options...)))
	}
	mount(licensedv1connect.NewLicenseServiceHandler(newService(g), withInterceptor...))
	if g.config.HistoryReader != nil {
		mount(licensedv1connect.NewHistoryServiceHandler(&historyService{g}, withInterceptor...))
		names = append(names, licensedv1connect.HistoryServiceName)
	}
	if operations && g.config.Operations != nil {
		mount(licensedv1connect.NewAdminServiceHandler(&adminService{g}, append(withInterceptor, largeImports)...))
		names = append(names, licensedv1connect.AdminServiceName)
	}
	// Other services have no budgets of their own. An orchestrator that asks for health
	// must not be refused because customers use up theirs.
	other := func(path string, h http.Handler, of *budget.Budget) { mux.Handle(path, bounded(h, of)) }
	options = append(slices.Clone(options), wire.Largest(maxOtherBytes))
	path, health := grpchealth.NewHandler(g.config.Health, options...)
	other(path, health, g.limits.operators.requests)
	reflector := grpcreflect.NewStaticReflector(names...)
	reject := connect.NewErrorWriter(options...)
	path, reflection := grpcreflect.NewHandlerV1(reflector, options...)
	other(path, g.identified(reflection, reject), g.limits.customers.streams)
	path, reflection = grpcreflect.NewHandlerV1Alpha(reflector, options...)
	other(path, g.identified(reflection, reject), g.limits.customers.streams)
	g.config.Health.mount(mux)
	if g.config.SigningKeys != nil {
		other("GET "+KeySetPath, http.HandlerFunc(g.keySet), g.limits.customers.streams)
	}
	if len(g.config.DevicesPage) > 0 {
		other("GET "+devicespage.Path, devicespage.Handler(g.config.DevicesPage), g.limits.customers.streams)
	}
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "licensed: POST JSON to /%s/METHOD, or use gRPC (server reflection is on).\n",
			licensedv1connect.LicenseServiceName)
	})
	return mux
}

// interceptors surround every call of the API, also those within sessions. The gateway's own is innermost: traces see a
// request that it refuses.
func (g *Gateway) interceptors() []connect.Interceptor {
	return append(slices.Clone(g.config.Interceptors), interceptor{g})
}

// HandlerOptions returns the options of the API's handlers, for others that must behave alike.
func HandlerOptions() []connect.HandlerOption {
	return []connect.HandlerOption{
		wire.Codecs(), wire.Largest(MaxBodyBytes), connect.WithCompressMinBytes(compressFrom),
	}
}

// largeImports lets messages of ImportCustomer, and no others, be larger.
var largeImports = connect.WithConditionalHandlerOptions(func(spec connect.Spec) []connect.HandlerOption {
	if spec.Procedure != licensedv1connect.AdminServiceImportCustomerProcedure {
		return nil
	}
	return []connect.HandlerOption{wire.Largest(MaxImportBytes)}
})
