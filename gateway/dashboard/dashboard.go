package dashboard

import (
	"context"
	"embed"
	"errors"
	"html/template"
	"io/fs"
	"log/slog"
	"net/http"
	"slices"
	"time"
	"unicode/utf8"

	"licensed/gateway/auth"
	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
)

//go:embed templates static
var files embed.FS

// Path is where the dashboard is mounted.
const Path = "/dashboard/"

// Cluster returns the status of the cluster. It is safe for concurrent use.
type Cluster interface {
	// Cluster returns the cluster as it is known now. The message is the caller's.
	Cluster(ctx context.Context) (*licensedv1.ClusterStatus, error)
}

// Config of a dashboard. All but Runbook and Shard is required.
type Config struct {
	// Cluster that is shown.
	Cluster Cluster
	// Licenses, History and Admin are the API.
	Licenses licensedv1connect.LicenseServiceClient
	History  licensedv1connect.HistoryServiceClient
	Admin    licensedv1connect.AdminServiceClient
	// Runbook is a document in Markdown. Findings link to the headings in it.
	Runbook []byte
	// Access decides who may look.
	Access *Access
	// Shard returns the shard of a customer; nil if that is not known.
	Shard func(customer string) uint32
	// Now is the clock.
	Now func() time.Time
	// NewID makes ids of commands.
	NewID func() string
	// Logger hears of removals of devices, and of bugs.
	Logger *slog.Logger
}

// Dashboard serves the pages. Safe for concurrent use.
type Dashboard struct {
	// Everything down to runbookPage is made by New and does not change.
	config  Config
	pages   map[string]*template.Template
	assets  map[string]asset
	sampler *sampler
	updates *updates
	access  *Access
	handler http.Handler
	// runbookPage is Config.Runbook as HTML.
	runbookPage template.HTML
	// closing ends what would take long, and close ends it.
	closing context.Context
	close   context.CancelFunc
}

// New returns a dashboard. Its sampling continues until Close.
func New(c Config) (*Dashboard, error) {
	// What may fail is done before the sampler starts, which only Close ends.
	assets, err := loadAssets()
	if err != nil {
		return nil, err
	}
	d := &Dashboard{config: c, assets: assets, access: c.Access}
	if d.pages, err = parsePages(); err != nil {
		return nil, err
	}
	if d.runbookPage, err = renderRunbook(c.Runbook); err != nil {
		return nil, err
	}
	d.updates = &updates{part: d.part, now: c.Now}
	d.handler = d.routes()
	d.closing, d.close = context.WithCancel(context.Background())
	d.sampler = newSampler(c.Cluster, c.Now)
	return d, nil
}

// Close ends the sampling, all streams and downloads.
func (d *Dashboard) Close() {
	d.close()
	d.sampler.close()
}

// Handler returns the handler of everything below Path.
func (d *Dashboard) Handler() http.Handler { return d.handler }

// routes returns the handler of all pages. Pages are behind the guard; what the login
// page needs is not.
func (d *Dashboard) routes() http.Handler {
	// Patterns without a method would also take a POST, which must be only where a form
	// of this dashboard sends one.
	open, guarded := http.NewServeMux(), http.NewServeMux()
	handle := func(pattern string, h func(http.ResponseWriter, *http.Request) error) {
		guarded.Handle(pattern, d.page(h))
	}
	handle("GET /dashboard/{$}", d.cluster)
	handle("GET /dashboard/live", d.live)
	handle("GET /dashboard/runbook", d.runbook)
	handle("GET /dashboard/customers", d.customers)
	handle("GET /dashboard/customer", d.served(d.customer))
	handle("GET /dashboard/customer/find", d.served(d.find))
	handle("GET /dashboard/customer/live", d.customerLive)
	handle("GET /dashboard/customer/events.json", d.download)
	handle("GET /dashboard/devices", d.served(d.devices))
	handle("GET /dashboard/devices/remove", d.served(d.askRemoval))
	handle("POST /dashboard/devices/remove", d.removeDevice)
	handle("POST /dashboard/logout", d.logout)
	handle("/dashboard/", func(http.ResponseWriter, *http.Request) error { return errNoPage })
	open.HandleFunc("GET /dashboard/static/{file...}", d.static)
	open.Handle("GET /dashboard/login", d.page(d.login))
	open.Handle("POST /dashboard/login", d.page(d.enter))
	// What no open pattern matches needs a login, also a page that does not exist: without a
	// login nobody learns which pages exist.
	open.Handle("/", d.Guard(guarded, viewers))
	return secured(open)
}

// Guard lets callers with a role through to h, which finds them in its context. Others are led to the login.
func (d *Dashboard) Guard(h http.Handler, roles auth.Roles) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		comes, claims := d.access.admits(r, roles)
		switch comes {
		case admitted:
			h.ServeHTTP(w, r.WithContext(auth.NewContext(r.Context(), claims)))
		case forbidden:
			d.fail(w, r, errForbidden)
		case wrongHost:
			d.fail(w, r, errWrongHost)
		case closed:
			d.fail(w, r, errClosed)
		case tooMany:
			d.fail(w, r, errTooMany)
		default:
			// A browser that opens a page is led to the login; a script of the page gets
			// the status, and shows it.
			if r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Dest") != "empty" {
				http.Redirect(w, r, loginPath(r), http.StatusSeeOther)
				return
			}
			d.fail(w, r, errNotLoggedIn)
		}
	})
}

// page runs a handler and shows its error as a page.
func (d *Dashboard) page(h func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Here, so that FormValue does not parse files as well, which no page takes. What is wrong with a form
		// otherwise shows in the values that it lacks.
		err := r.ParseForm()
		if _, large := errors.AsType[*http.MaxBytesError](err); large {
			d.fail(w, r, errLargeForm)
			return
		}
		// Names are UTF-8, as all texts of the API are: other values are those of nobody.
		for _, values := range r.Form {
			if slices.ContainsFunc(values, func(v string) bool { return !utf8.ValidString(v) }) {
				d.fail(w, r, errNoText)
				return
			}
		}
		if err := h(w, r); err != nil {
			d.fail(w, r, err)
		}
	})
}

// static files keep their names, so browsers ask each time whether theirs is still the one.
func (d *Dashboard) static(w http.ResponseWriter, r *http.Request) {
	a, ok := d.assets[r.PathValue("file")]
	if !ok {
		http.NotFound(w, r)
		return
	}
	a.serve(w, r)
}

// subtree returns a folder of the files in the program.
func subtree(name string) fs.FS {
	sub, err := fs.Sub(files, name)
	if err != nil {
		panic(err) // The names are constants.
	}
	return sub
}
