package dashboard

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
)

// oneNode is a cluster of one. It implements Cluster.
type oneNode struct{ asked atomic.Uint64 }

func (c *oneNode) Cluster(context.Context) (*licensedv1.ClusterStatus, error) {
	n := c.asked.Add(1)
	return &licensedv1.ClusterStatus{Name: "test", Shards: 4, Nodes: []*licensedv1.NodeStatus{{
		Name:        "n1",
		Incarnation: "i1",
		State:       licensedv1.NodeState_NODE_STATE_READY,
		Activity:    &licensedv1.NodeActivity{Commands: 100 * n},
	}}}, nil
}

// licenses is an API that removes devices, once.
type licenses struct {
	licensedv1connect.LicenseServiceClient
	removed []string
}

func (l *licenses) DeactivateDevice(
	_ context.Context, r *connect.Request[licensedv1.DeactivateDeviceRequest],
) (*connect.Response[licensedv1.DeactivateDeviceResponse], error) {
	if !r.Msg.ValidateOnly {
		l.removed = append(l.removed, r.Msg.CustomerId+" "+r.Msg.DeviceId+" "+r.Msg.CommandId)
	}
	return connect.NewResponse(&licensedv1.DeactivateDeviceResponse{ReleasedTitleIds: []string{"GlowS01E01"}}), nil
}

// unanswered is a history that cannot be asked.
type unanswered struct {
	licensedv1connect.HistoryServiceClient
}

func (unanswered) GetState(
	context.Context, *connect.Request[licensedv1.GetStateRequest],
) (*connect.Response[licensedv1.GetStateResponse], error) {
	return nil, connect.NewError(connect.CodeUnavailable, errors.New("nobody answers"))
}

// rig is a dashboard behind a server.
type rig struct {
	*testing.T
	*licenses
	url    string
	now    atomic.Int64 // seconds that passed
	client *http.Client
}

func newRig(t *testing.T, change func(*AccessConfig), configure ...func(*Config)) *rig {
	t.Helper()
	r := &rig{T: t, licenses: new(licenses)}
	start := time.Now()
	a := AccessConfig{
		Loopback: true,
		Logger:   slog.New(slog.DiscardHandler),
		Now:      func() time.Time { return start.Add(time.Duration(r.now.Load()) * time.Second) },
	}
	if change != nil {
		change(&a)
	}
	c := Config{
		Cluster:  new(oneNode),
		Licenses: r.licenses,
		History:  unanswered{},
		Access:   NewAccess(a),
		NewID:    func() string { return "1" },
		Logger:   a.Logger,
		Now:      a.Now,
	}
	for _, f := range configure {
		f(&c)
	}
	d, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(d.Handler())
	t.Cleanup(server.Close)
	t.Cleanup(d.Close)
	r.url = server.URL
	r.client = &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return r
}

// answer to a request, read to its end.
type answer struct {
	status  int
	header  http.Header
	cookies []*http.Cookie
}

// do sends a request and returns the answer and its body.
func (r *rig) do(method, path string, form url.Values, change func(*http.Request)) (answer, string) {
	r.Helper()
	req, err := http.NewRequestWithContext(r.Context(), method, r.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		r.Fatal(err)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if change != nil {
		change(req)
	}
	res, err := r.client.Do(req)
	if err != nil {
		r.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		r.Fatal(err)
	}
	return answer{res.StatusCode, res.Header, res.Cookies()}, string(b)
}

func (r *rig) expect(method, path string, form url.Values, change func(*http.Request), status int) (answer, string) {
	r.Helper()
	res, body := r.do(method, path, form, change)
	if res.status != status {
		r.Errorf("%s %s: %d, want %d\n%s", method, path, res.status, status, body)
	}
	return res, body
}

// TestHeaders: nothing inline can run, no other site can embed a page, and nothing is kept.
func TestHeaders(t *testing.T) {
	r := newRig(t, nil)
	for _, path := range []string{"/dashboard/", "/dashboard/nowhere", "/dashboard/static/dashboard.css"} {
		res, body := r.do(http.MethodGet, path, nil, nil)
		csp := res.header.Get("Content-Security-Policy")
		if !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") ||
			!strings.Contains(csp, "frame-ancestors 'none'") {
			t.Errorf("%s: policy %q", path, csp)
		}
		if res.header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %v", path, res.header)
		}
		for _, inline := range []string{" style=", "<style", " onclick=", "javascript:"} {
			if strings.Contains(body, inline) {
				t.Errorf("%s has %s", path, inline)
			}
		}
	}
}

// TestStatic files are served by name, and not again if the browser has them.
func TestStatic(t *testing.T) {
	r := newRig(t, nil)
	res, body := r.expect(http.MethodGet, "/dashboard/static/vendor/uPlot.js", nil, nil, http.StatusOK)
	if !strings.HasPrefix(res.header.Get("Content-Type"), "text/javascript") || !strings.Contains(body, "uPlot") {
		t.Errorf("%v", res.header)
	}
	r.expect(http.MethodGet, "/dashboard/static/vendor/uPlot.js", nil, func(q *http.Request) {
		q.Header.Set("If-None-Match", res.header.Get("Etag"))
	}, http.StatusNotModified)
	for _, path := range []string{"vendor/README.md", "vendor", "", "..%2ftemplates/layout.html", "nothing.js"} {
		r.expect(http.MethodGet, "/dashboard/static/"+path, nil, nil, http.StatusNotFound)
	}
}

// TestNoWaysAround: what changes something is a POST of this very site.
func TestNoWaysAround(t *testing.T) {
	r := newRig(t, nil)
	form := url.Values{"id": {"Bayley"}, "device": {"iphone"}, "command": {"dashboard-1"}}
	r.expect(http.MethodGet, "/dashboard/devices/remove?"+form.Encode(), nil, nil, http.StatusOK) // asks
	for name, change := range map[string]func(*http.Request){
		"another site":   func(q *http.Request) { q.Header.Set("Sec-Fetch-Site", "cross-site") },
		"another origin": func(q *http.Request) { q.Header.Set("Origin", "https://evil.example") },
		"a sister site":  func(q *http.Request) { q.Header.Set("Sec-Fetch-Site", "same-site") },
		"another name":   func(q *http.Request) { q.Host = "evil.example:8081" },
	} {
		r.expect(http.MethodPost, "/dashboard/devices/remove", form, change, http.StatusForbidden)
		if len(r.removed) > 0 {
			t.Fatalf("%s removed %v", name, r.removed)
		}
	}
	res, _ := r.expect(http.MethodPost, "/dashboard/devices/remove", form, nil, http.StatusSeeOther)
	if want := "/dashboard/devices?ended=1&id=Bayley&removed=iphone"; res.header.Get("Location") != want {
		t.Errorf("%s", res.header.Get("Location"))
	}
	if len(r.removed) != 1 || r.removed[0] != "Bayley iphone dashboard-1" {
		t.Errorf("removed %v", r.removed)
	}
}

// TestHosts: under a name of another site that leads here nothing is told.
func TestHosts(t *testing.T) {
	for host, local := range map[string]bool{
		"localhost:8081": true, "LOCALHOST": true, "127.0.0.1:8081": true, "[::1]:8081": true, "127.8.8.8": true,
		"evil.example": false, "localhost.evil.example": false, "10.0.0.1:8081": false, "": false, "[::2]:1": false,
	} {
		if localHost(host) != local {
			t.Errorf("%q is local: %t", host, !local)
		}
	}
	r := newRig(t, nil)
	_, body := r.expect(http.MethodGet, "/dashboard/", nil, func(q *http.Request) { q.Host = "evil.example" },
		http.StatusForbidden)
	if strings.Contains(body, "n1") {
		t.Error("it told who is in the cluster")
	}
}

const token = "0123456789abcdef"

// TestToken: the token admits its holder for twelve hours; others get the login page.
func TestToken(t *testing.T) {
	r := newRig(t, func(c *AccessConfig) { c.Token, c.Loopback = token, false })
	res, _ := r.expect(http.MethodGet, "/dashboard/customer?id=Bayley&at=3", nil, nil, http.StatusSeeOther)
	if want := "/dashboard/login?next=%2Fdashboard%2Fcustomer%3Fid%3DBayley%26at%3D3"; res.header.Get(
		"Location",
	) != want {
		t.Errorf("%s", res.header.Get("Location"))
	}
	r.expect(http.MethodPost, "/dashboard/devices/remove", url.Values{"id": {"Bayley"}}, nil, http.StatusUnauthorized)
	r.expect(http.MethodPost, "/dashboard/login", url.Values{"token": {token + "x"}}, nil, http.StatusUnauthorized)
	r.expect(http.MethodPost, "/dashboard/login", url.Values{"token": {""}}, nil, http.StatusUnauthorized)
	r.expect(http.MethodGet, "/dashboard/", nil,
		func(q *http.Request) { q.Header.Set("Authorization", "Bearer "+token) }, http.StatusOK)
	r.expect(http.MethodGet, "/dashboard/", nil,
		func(q *http.Request) { q.Header.Set("Authorization", "Bearer wrong") }, http.StatusSeeOther)

	res, _ = r.expect(http.MethodPost, "/dashboard/login",
		url.Values{"token": {token}, "next": {"/dashboard/customers"}}, nil, http.StatusSeeOther)
	cookies := res.cookies
	if len(cookies) != 1 || !cookies[0].HttpOnly || cookies[0].SameSite != http.SameSiteStrictMode ||
		res.header.Get("Location") != "/dashboard/customers" {
		t.Fatalf("%v, %v", cookies, res.header)
	}
	with := func(value string) func(*http.Request) {
		return func(q *http.Request) { q.AddCookie(&http.Cookie{Name: sessionCookie, Value: value}) }
	}
	good := cookies[0].Value
	r.expect(http.MethodGet, "/dashboard/", nil, with(good), http.StatusOK)
	for _, forged := range []string{"", "x", good + "x", good[1:], strings.ToLower(good), token} {
		r.expect(http.MethodGet, "/dashboard/", nil, with(forged), http.StatusSeeOther)
	}
	r.now.Add(12*3600 + 1)
	r.expect(http.MethodGet, "/dashboard/", nil, with(good), http.StatusSeeOther)
}

// TestLogout: a cookie that was copied is worth nothing after the logout, that of another browser continues, and a
// token in a URL is none.
func TestLogout(t *testing.T) {
	r := newRig(t, func(c *AccessConfig) { c.Token = token })
	login := func() func(*http.Request) {
		res, _ := r.expect(http.MethodPost, "/dashboard/login", url.Values{"token": {token}}, nil, http.StatusSeeOther)
		return func(q *http.Request) { q.AddCookie(res.cookies[0]) }
	}
	one, other := login(), login()
	r.expect(http.MethodGet, "/dashboard/", nil, one, http.StatusOK)
	r.expect(http.MethodPost, "/dashboard/logout", nil, one, http.StatusSeeOther)
	r.expect(http.MethodGet, "/dashboard/", nil, one, http.StatusSeeOther)
	r.expect(http.MethodGet, "/dashboard/", nil, other, http.StatusOK)
	r.expect(http.MethodPost, "/dashboard/login?token="+token, nil, nil, http.StatusUnauthorized)
}

// TestGuesses are slowed down, and keep nobody out who knows the token.
func TestGuesses(t *testing.T) {
	r := newRig(t, func(c *AccessConfig) { c.Token = token })
	for range 10 {
		r.expect(http.MethodPost, "/dashboard/login", url.Values{"token": {"guess"}}, nil, http.StatusUnauthorized)
	}
	r.expect(http.MethodPost, "/dashboard/login", url.Values{"token": {"guess"}}, nil, http.StatusTooManyRequests)
	r.expect(http.MethodPost, "/dashboard/login", url.Values{"token": {token}}, nil, http.StatusSeeOther)
	r.now.Add(2)
	r.expect(http.MethodPost, "/dashboard/login", url.Values{"token": {"guess"}}, nil, http.StatusUnauthorized)
}

// TestGuessesInHeaders are slowed down as well, and logged; a right token is not.
func TestGuessesInHeaders(t *testing.T) {
	var log strings.Builder
	r := newRig(t, func(c *AccessConfig) { c.Token, c.Logger = token, slog.New(slog.NewTextHandler(&log, nil)) })
	with := func(token string) func(*http.Request) {
		return func(q *http.Request) {
			q.Header.Set("Authorization", "Bearer "+token)
			q.Header.Set("Sec-Fetch-Dest", "empty")
		}
	}
	for range 20 {
		r.expect(http.MethodGet, "/dashboard/", nil, with(token), http.StatusOK)
	}
	for range 10 {
		r.expect(http.MethodGet, "/dashboard/", nil, with("guess"), http.StatusUnauthorized)
	}
	r.expect(http.MethodGet, "/dashboard/", nil, with("guess"), http.StatusTooManyRequests)
	r.expect(http.MethodGet, "/dashboard/", nil, with(token), http.StatusOK)
	r.expect(http.MethodPost, "/dashboard/login", url.Values{"token": {token}}, nil, http.StatusSeeOther)
	if n := strings.Count(log.String(), "wrong admin token"); n != 10 {
		t.Errorf("%d of 10 wrong tokens are logged", n)
	}
}

// TestClosed: without a token nothing is told where others reach the port.
func TestClosed(t *testing.T) {
	r := newRig(t, func(c *AccessConfig) { c.Loopback = false })
	for _, path := range []string{"/dashboard/", "/dashboard/live", "/dashboard/customers", "/dashboard/login"} {
		r.expect(http.MethodGet, path, nil, nil, http.StatusForbidden)
	}
}

func TestBackTo(t *testing.T) {
	for next, want := range map[string]string{
		"/dashboard/customer?id=a%20b":    "/dashboard/customer?id=a%20b",
		"":                                Path,
		"https://evil.example/dashboard/": Path,
		"//evil.example/dashboard/":       Path, "/elsewhere": Path, `/dashboard/\evil.example`: Path, "%zz": Path,
	} {
		if got := backTo(next); got != want {
			t.Errorf("%q: %q", next, got)
		}
	}
}

// TestSampler shares one sampling among all who look, and ends with the dashboard.
func TestSampler(t *testing.T) {
	s := newSampler(new(oneNode), time.Now)
	first := s.first(t.Context())
	if first.Status == nil || first.Err != nil {
		t.Fatalf("%+v", first)
	}
	stop := s.watch()
	<-first.news
	if second := s.read(); second.number != 2 || second.Latest != nil {
		t.Errorf("%+v", second)
	}
	stop()
	s.close()
	if r := s.read(); !r.closed {
		t.Error("it goes on")
	}
}

// TestSamples: each sample stands for the same time, whether somebody looks or not: a load that does not change makes
// no peak in a chart when a viewer comes.
func TestSamples(t *testing.T) {
	start := time.Date(2026, 3, 1, 20, 0, 0, 0, time.UTC)
	now := start
	cluster := clusterFunc(func() *licensedv1.ClusterStatus {
		// A burst of 50 commands in the first second of each five.
		seconds := uint64(now.Sub(start) / time.Second)
		return &licensedv1.ClusterStatus{Nodes: []*licensedv1.NodeStatus{{
			Name: "n1", Activity: &licensedv1.NodeActivity{Commands: 50 * ((seconds + 4) / 5)},
		}}}
	})
	s := &sampler{cluster: cluster, now: func() time.Time { return now }, news: make(chan struct{})}
	s.sample(t.Context())
	for i := range 60 {
		// Nobody looks for half a minute, then somebody does; their readings come a little early.
		step := 5 * time.Second
		if i >= 6 {
			step = 999 * time.Millisecond
		}
		now = now.Add(step)
		s.sample(t.Context())
	}
	if len(s.samples) < 15 {
		t.Errorf("%d samples", len(s.samples))
	}
	for i, x := range s.samples {
		if x.Commands < 9.9 || x.Commands > 10.1 {
			t.Errorf("sample %d: %v commands a second, want 10", i, x.Commands)
		}
	}
}

// clusterFunc is a status that a function makes. It implements Cluster.
type clusterFunc func() *licensedv1.ClusterStatus

func (f clusterFunc) Cluster(context.Context) (*licensedv1.ClusterStatus, error) { return f(), nil }

// TestCompare marks what is new, gone and different.
func TestCompare(t *testing.T) {
	before := &licensedv1.CustomerState{
		CustomerId: "Bayley", PlanId: "standard", DeviceLimit: 2, ActiveLicenses: 1,
		Devices: []*licensedv1.DeviceState{{DeviceId: "iphone", Active: true, ActiveLicenses: 1}},
		Licenses: []*licensedv1.LicenseState{
			{DeviceId: "iphone", TitleId: "Glow", Active: true}, {DeviceId: "iphone", TitleId: "Old"},
		},
	}
	now := &licensedv1.CustomerState{
		CustomerId: "Bayley", PlanId: "premium", DeviceLimit: 4, ActiveLicenses: 1,
		Devices: []*licensedv1.DeviceState{
			{DeviceId: "iphone", Active: true, ActiveLicenses: 1}, {DeviceId: "tv", Active: true},
		},
		Licenses: []*licensedv1.LicenseState{{DeviceId: "iphone", TitleId: "Glow", Active: true, Renewals: 1}},
	}
	v := compare(before, now)
	got := strings.Join(v.Changes, "\n")
	const want = `Plan: premium, was standard
Devices with downloads: 0 of 4, was 0 of 2
Licence iphone/Glow: Renewals 1, was 0
Licence iphone/Old: no longer known
Device tv: new`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if v := compare(nil, now); v.Compared || len(v.Changes) > 0 {
		t.Errorf("%+v", v.Changes)
	}
	if v := compare(new(licensedv1.CustomerState), now); len(v.Changes) != 3 {
		t.Errorf("from nothing: %q", v.Changes)
	}
}

// TestMap draws shards that are served, moving, without an owner, and never taken.
func TestMap(t *testing.T) {
	s := &licensedv1.ClusterStatus{
		Shards: 5, Nodes: []*licensedv1.NodeStatus{
			{Name: "a", Incarnation: "ia"}, {Name: "gateway"}, {Name: "b", Incarnation: "ib"},
		},
		ShardMap: []*licensedv1.ShardStatus{
			{Id: 0, Epoch: 3, Owner: "ia", State: licensedv1.ShardState_SHARD_STATE_OPEN},
			{Id: 1, Epoch: 4, Owner: "ia", State: licensedv1.ShardState_SHARD_STATE_OPEN},
			{Id: 2, Epoch: 4, Successor: "ib", State: licensedv1.ShardState_SHARD_STATE_MOVING},
			{Id: 3, Epoch: 2, Owner: "somebody", State: licensedv1.ShardState_SHARD_STATE_ORPHANED},
			{Id: 77, Epoch: 2, Owner: "ia"},
		},
	}
	m := mapOf(s)
	if want := "5 shards: a has 2, 1 is moving, 2 are not served."; m.Words != want {
		t.Errorf("%s", m.Words)
	}
	if len(m.Owners) != 1 || m.Owners[0].Epochs != "epochs 3 to 4" || m.Cells[2].Class != "owner-2 moving" ||
		m.Cells[4].Class != "orphaned" {
		t.Errorf("%+v", m)
	}
	if m := mapOf(nil); m.Known {
		t.Errorf("%+v", m)
	}
}

// TestBoard: the level of the page is that of the status, and there is none if the status is not of now.
func TestBoard(t *testing.T) {
	at := time.Date(2026, 3, 1, 20, 0, 0, 0, time.UTC)
	status := func(l licensedv1.ClusterLevel) *licensedv1.ClusterStatus {
		return &licensedv1.ClusterStatus{Level: l, Summary: "All systems normal", AsOf: timestamppb.New(at)}
	}
	good := licensedv1.ClusterLevel_CLUSTER_LEVEL_OK
	for name, test := range map[string]struct {
		r            reading
		after        time.Duration
		level, words string
	}{
		"nothing yet": {reading{}, 0, "unknown", "Waiting for the first status"},
		"never answered": {
			reading{Err: context.DeadlineExceeded},
			0,
			"unknown",
			"Unknown: no status since this gateway started: Context deadline exceeded.",
		},
		"OK": {reading{Status: status(good), At: at}, time.Second, "good", "All systems normal"},
		"degraded": {reading{Status: status(licensedv1.ClusterLevel_CLUSTER_LEVEL_DEGRADED), At: at}, 0, "warning",
			"Degraded: all customers are served"},
		"deferred commands": {reading{Status: &licensedv1.ClusterStatus{
			Level: licensedv1.ClusterLevel_CLUSTER_LEVEL_DEGRADED,
			Nodes: []*licensedv1.NodeStatus{
				{Name: "n1"},
				{Name: "g1", Fallback: &licensedv1.FallbackFigures{DeferredCommands: 1200, DeferredCustomers: 900}},
				{Name: "g2", Fallback: &licensedv1.FallbackFigures{
					DeferredCommands: 34, DeferredCustomers: 30, UnavailableOwners: []string{"n1-a"},
				}},
			},
		}, At: at}, 0, "warning",
			"Degraded: 1 gateway cannot reach nodes or the store; 1,234 commands of 930 customers deferred"},
		"breaker open": {reading{Status: &licensedv1.ClusterStatus{
			Level: licensedv1.ClusterLevel_CLUSTER_LEVEL_DEGRADED,
			Nodes: []*licensedv1.NodeStatus{
				{Name: "g1", Fallback: &licensedv1.FallbackFigures{UnavailableOwners: []string{"n1-a"}}},
				{Name: "g2", Fallback: &licensedv1.FallbackFigures{UnavailableOwners: []string{"n1-a"}}},
			},
		}, At: at}, 0, "warning", "Degraded: 2 gateways cannot reach nodes or the store"},
		"critical": {reading{Status: status(licensedv1.ClusterLevel_CLUSTER_LEVEL_CRITICAL), At: at}, 0, "critical",
			"Critical: some customers are not served"},
		"another release": {
			reading{Status: &licensedv1.ClusterStatus{}, At: at}, 0, "unknown",
			"Unknown: this gateway is of another release",
		},
		"old": {
			reading{Status: status(good), At: at}, 6 * time.Second, "unknown", "Unknown: the last status is 6.0 s old.",
		},
		"no new one": {reading{Status: status(good), At: at, Err: errors.New("timeout")}, 2 * time.Second, "unknown",
			"Unknown: the last status is 2.0 s old: Timeout."},
	} {
		b := boardOf(test.r, at.Add(test.after))
		if b.Level != test.level || b.Verdict != test.words {
			t.Errorf("%s: %s %q", name, b.Level, b.Verdict)
		}
	}
}

// finding is a cluster with a finding. It implements Cluster.
type finding struct{}

func (finding) Cluster(context.Context) (*licensedv1.ClusterStatus, error) {
	return &licensedv1.ClusterStatus{
		Level: licensedv1.ClusterLevel_CLUSTER_LEVEL_DEGRADED,
		Nodes: []*licensedv1.NodeStatus{
			{Name: "n1", Roles: []licensedv1.NodeRole{licensedv1.NodeRole_NODE_ROLE_NODE}, CommandsPerSecond: 1214},
		},
		Warnings: []*licensedv1.ClusterWarning{{
			Level:    licensedv1.WarningLevel_WARNING_LEVEL_WARNING,
			Text:     "2 of 3 nodes running",
			NextStep: "Restart <n1>.",
			Runbook:  "licenseddown",
			Since:    timestamppb.New(time.Date(2026, 3, 1, 20, 0, 0, 0, time.UTC)),
		}},
	}, nil
}

// TestFinding: a finding has a next step and a link, which leads to an entry of the runbook; and what a node's
// customers get is what the node says.
func TestFinding(t *testing.T) {
	r := newRig(t, nil, func(c *Config) {
		c.Cluster = finding{}
		c.Runbook = []byte("# Running\n\n### LicensedDown\n\n" +
			"Read [cluster.md](cluster.md#clocks) and [this](#running). <script>alert()</script>\n")
	})
	_, body := r.expect(http.MethodGet, "/dashboard/", nil, nil, http.StatusOK)
	for _, want := range []string{
		"2 of 3 nodes running", "Restart &lt;n1&gt;.", `href="/dashboard/runbook#licenseddown"`,
		"2026-03-01 20:00:00", "1,214/s",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in %s", want, body)
		}
	}
	_, body = r.expect(http.MethodGet, "/dashboard/runbook", nil, nil, http.StatusOK)
	if !strings.Contains(body, `<h3 id="licenseddown">`) || strings.Contains(body, "cluster.md#") ||
		strings.Contains(body, "<script>alert") || !strings.Contains(body, `href="#running"`) {
		t.Errorf("%s", body)
	}
}

func TestFormats(t *testing.T) {
	for got, want := range map[string]string{
		number(uint64(0)): "0", number(uint64(1234567)): "1,234,567", count(uint64(1), "event", "events"): "1 event",
		size(1023):                       "1023 B",
		size(1536):                       "1.50 KiB",
		size(700 << 30):                  "700 GiB",
		rateOf(12.34):                    "12.3",
		rateOf(4321):                     "4,321",
		duration(250 * time.Millisecond): "250 ms",
		duration(90 * time.Second):       "1 min 30 s",
		duration(-2 * time.Second):       "−2.0 s",
		duration(math.MinInt64):          "−106751 d 23 h", // A difference of times that is as wrong as can be.
		duration(50 * time.Hour):         "2 d 2 h",
		three(.5):                        "0.50",
		short("0123456789"):              "01234567",
		sentence("so it is"):             "So it is.",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestErrors shows what the API says in words, and hides what is nobody's business.
func TestErrors(t *testing.T) {
	dash := &Dashboard{config: Config{Logger: slog.New(slog.DiscardHandler)}}
	r := httptest.NewRequest(http.MethodGet, "/dashboard/customer?id=Bayley", nil)
	for err, want := range map[error]int{
		connect.NewError(connect.CodeUnavailable, errors.New("the owner is away")): http.StatusServiceUnavailable,
		connect.NewError(connect.CodeInternal, errors.New("secret")):               http.StatusInternalServerError,
		errors.New("secret"): http.StatusInternalServerError,
		errNoPage:            http.StatusNotFound,
	} {
		e := dash.explain(r, err)
		if e.status != want || strings.Contains(e.text, "secret") {
			t.Errorf("%v: %d %s", err, e.status, e.text)
		}
	}
}

// clockNode is a cluster of one that tells when it was asked. It implements Cluster.
type clockNode struct{ now func() time.Time }

func (c clockNode) Cluster(context.Context) (*licensedv1.ClusterStatus, error) {
	at := timestamppb.New(c.now())
	return &licensedv1.ClusterStatus{Name: "test", AsOf: at, Nodes: []*licensedv1.NodeStatus{{Name: "n1", SeenAt: at}}},
		nil
}

// TestCurrent: a page that is opened after nobody looked for a while shows the present, not the past.
func TestCurrent(t *testing.T) {
	var now func() time.Time
	r := newRig(t, nil, func(c *Config) {
		now = c.Now
		c.Cluster = clockNode{now}
	})
	r.expect(http.MethodGet, "/dashboard/", nil, nil, http.StatusOK)
	r.now.Store(8)
	_, body := r.expect(http.MethodGet, "/dashboard/", nil, nil, http.StatusOK)
	if want := clock(timestamppb.New(now())); !strings.Contains(body, want) || strings.Contains(body, "silent for") {
		t.Errorf("no %s in %s", want, body)
	}
}

// TestCurrentWaits: what began before somebody looked, and ends after, is not current.
func TestCurrentWaits(t *testing.T) {
	start := time.Now()
	var ahead atomic.Int64 // seconds
	asked, late, goOn := make(chan bool, 100), atomic.Bool{}, make(chan struct{})
	s := newSampler(new(oneNode), func() time.Time {
		at := start.Add(time.Duration(ahead.Load()) * time.Second)
		if late.CompareAndSwap(true, false) {
			asked <- true
			<-goOn
		} else {
			asked <- false
		}
		return at
	})
	defer s.close()
	s.first(t.Context())
	<-asked
	late.Store(true)
	s.watch()() // wakes it, and does not stay
	if !<-asked {
		t.Fatal("that was not the second sample")
	}
	ahead.Store(8)
	result := make(chan reading)
	go func() { result <- s.current(t.Context()) }()
	<-asked // it has seen how old the first is
	late.Store(true)
	goOn <- struct{}{}
	select {
	case r := <-result:
		goOn <- struct{}{}
		t.Fatalf("a reading of %v was current", r.At)
	case <-time.After(50 * time.Millisecond): // time enough for a request that does not wait
	}
	goOn <- struct{}{}
	if r := <-result; r.At != start.Add(8*time.Second) {
		t.Errorf("a reading of %v ago", start.Add(8*time.Second).Sub(r.At))
	}
}

// body is that of a request; it counts what is read.
type body struct {
	io.Reader
	read int
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	b.read += n
	return n, err
}

// TestLargeForms: a form without a login cannot make the process use much memory.
func TestLargeForms(t *testing.T) {
	d, err := New(Config{
		Cluster: new(oneNode), Now: time.Now, Logger: slog.New(slog.DiscardHandler),
		Access: NewAccess(AccessConfig{Token: token, Now: time.Now, Logger: slog.New(slog.DiscardHandler)}),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	large := strings.Repeat("x", 1<<20)
	for kind, content := range map[string]string{
		"application/x-www-form-urlencoded": "token=" + large,
		"multipart/form-data; boundary=b": "--b\r\nContent-Disposition: form-data; name=token\r\n\r\n" + large +
			"\r\n--b--\r\n",
	} {
		b := &body{Reader: strings.NewReader(content)}
		r := httptest.NewRequest(http.MethodPost, "/dashboard/login", b)
		r.Header.Set("Content-Type", kind)
		w := httptest.NewRecorder()
		d.Handler().ServeHTTP(w, r)
		if b.read > 100<<10 || w.Code/100 != 4 {
			t.Errorf("%s: %d bytes were read, answered %d", kind, b.read, w.Code)
		}
	}
}
