package siege

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"
)

// goodClient is a service that behaves well. It calls all gateways from an address of its own.
type goodClient struct {
	site   *site
	token  string
	cancel context.CancelFunc
	all    sync.WaitGroup

	mu    sync.Mutex
	calls []call
	last  string // the last error
}

// call is a request of the good client.
type call struct {
	took   time.Duration
	served bool
}

// Service is how the good client was served.
type Service struct {
	Sent   int           `json:"sent"`
	Served int           `json:"served"`
	P99    time.Duration `json:"p99_ns"`
	Took   time.Duration `json:"took_ns"`
}

func (s Service) share() float64 { return float64(s.Served) / float64(max(s.Sent, 1)) }

// String returns the goodput and the p99.
func (s Service) String() string {
	return fmt.Sprintf("%d of %d served, %.0f/s, p99 %v", s.Served, s.Sent,
		float64(s.Served)/max(s.Took.Seconds(), 0.001), s.P99.Round(time.Millisecond))
}

const (
	goodWorkers   = 4
	goodCustomers = 40
	goodPause     = 20 * time.Millisecond
	// enough is the number of requests from which a share can be told.
	enough = 20
)

// canaryCustomer is the beginning of the ids of the good client's customers.
const canaryCustomer = "canarycustomer"

// startGood starts the good client, and returns when each of its customers was served once.
func (s *siege) startGood(ctx context.Context) (*goodClient, error) {
	g := &goodClient{site: s.site}
	var err error
	if g.token, err = s.secrets.token("service"); err != nil {
		return nil, err
	}
	client := s.client(s.visitor())
	for i := range goodCustomers {
		for {
			if err = g.command(ctx, client, i); err == nil {
				break
			}
			select {
			case <-ctx.Done():
				return nil, fmt.Errorf("the good client is not served: %w", err)
			case err := <-s.accidents:
				return nil, err
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	ctx, g.cancel = context.WithCancel(ctx)
	for worker := range goodWorkers {
		g.all.Go(func() { g.work(ctx, worker) })
	}
	return g, nil
}

func (g *goodClient) stop() {
	g.cancel()
	g.all.Wait()
}

// work calls again and again, one command to three queries.
func (g *goodClient) work(ctx context.Context, worker int) {
	client := g.site.client(g.site.visitor())
	defer client.CloseIdleConnections()
	for n := worker; ctx.Err() == nil; n++ {
		began := time.Now()
		var err error
		if n%4 == 0 {
			err = g.command(ctx, client, n%goodCustomers)
		} else {
			err = g.post(ctx, client, n, "ListLicenses", fmt.Sprintf(`{"customerId":"%s%d"}`, canaryCustomer, n%goodCustomers))
		}
		if ctx.Err() != nil {
			return
		}
		g.mu.Lock()
		g.calls = append(g.calls, call{time.Since(began), err == nil})
		if err != nil {
			g.last = err.Error()
		}
		g.mu.Unlock()
		time.Sleep(goodPause)
	}
}

// command sends a command of a customer.
func (g *goodClient) command(ctx context.Context, client *http.Client, customer int) error {
	return g.post(ctx, client, customer, "AcquireLicense", fmt.Sprintf(
		`{"customerId":"%s%d","deviceId":"phone","titleId":"T1","commandId":"%016x"}`, canaryCustomer, customer,
		rand.Uint64()))
}

// post calls a method of the licence service at one of the gateways.
func (g *goodClient) post(ctx context.Context, client *http.Client, n int, method, body string) error {
	gateways := g.site.gateways()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost,
		g.site.url(gateways[n%len(gateways)], apiPort)+"/licensed.v1.LicenseService/"+method, strings.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+g.token)
	res, err := client.Do(r)
	if err != nil {
		return err
	}
	answer, err := read(res)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", method, res.Status, answer)
	}
	return err
}

// mark returns the present moment.
func (g *goodClient) mark() mark {
	g.mu.Lock()
	defer g.mu.Unlock()
	return mark{len(g.calls), time.Now()}
}

// mark is a moment of the good client.
type mark struct {
	calls int
	at    time.Time
}

// await returns when enough requests were sent since a moment.
func (g *goodClient) await(ctx context.Context, since mark) error {
	for {
		if g.mark().calls >= since.calls+enough {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(goodPause):
		}
	}
}

// since returns how it was served since a moment.
func (g *goodClient) since(m mark) Service {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := Service{Took: time.Since(m.at)}
	var took []time.Duration
	for _, c := range g.calls[m.calls:] {
		s.Sent++
		if c.served {
			s.Served++
		}
		took = append(took, c.took)
	}
	if len(took) > 0 {
		slices.Sort(took)
		s.P99 = took[len(took)*99/100]
	}
	return s
}

func (g *goodClient) lastError() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.last
}

// version returns what a binary says of itself.
func version(ctx context.Context, binary string) string {
	out, err := exec.CommandContext(ctx, binary, "version").Output()
	if err != nil {
		return "unknown"
	}
	line, _, _ := bytes.Cut(out, []byte("\n"))
	return string(line)
}

// trimmed returns text without space around it.
func trimmed(b []byte) []byte { return bytes.TrimSpace(b) }
