package path

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"licensed/client"
	"licensed/internal/harness"
	"licensed/messages/licensedv1"
	"licensed/test/bench/meter"
	"licensed/test/chaos/process"
)

const (
	deviceID, titleID = "iphone", "GlowS01E01"
	// readyTimeout is the time that a process may take to start, and a cluster to distribute its shards.
	readyTimeout = 2 * time.Minute
	// acquiring is the number of customers that are brought to memory at a time.
	acquiring = 64
)

// fleet is the processes of a variant, with their clients.
type fleet struct {
	Variant
	customers int
	roles     []*role // of licensed: nodes and gateway, or the one process
	processes []*member
	gateway   string // address of the API
	unary     *client.Client
	session   *client.Client // nil: the gateway has no sessions
	next      atomic.Uint64
}

// role is processes that are counted together.
type role struct {
	name    string
	members []*member
}

// member is a process of licensed.
type member struct {
	*process.Process
	admin string
	// scrape is the number of objects that one request for metrics allocates.
	scrape float64
}

// launch starts a cluster of a variant, and waits until each shard is where it belongs.
func launch(
	ctx context.Context, c *Config, v Variant, key string, store *store, fail func(error),
) (*fleet, error) {
	f := &fleet{Variant: v, customers: c.Customers}
	network, err := freeNetwork()
	if err != nil {
		return nil, err
	}
	f.gateway = network + ".1:8080"
	start := func(name, host string, args ...string) (*member, error) {
		m := &member{admin: "http://" + host + ":8081"}
		m.Process = process.New(process.Spec{
			Name: v.Name + " " + name, Path: v.Program, Log: filepath.Join(c.Dir, key+"-"+name+".log"),
			Args:  append(args, "--log-format", "json"),
			Ready: func(ctx context.Context) error { return ready(ctx, m.admin) },
		}, fail)
		f.processes = append(f.processes, m)
		limited, cancel := context.WithTimeout(ctx, readyTimeout)
		defer cancel()
		if err := m.Start(limited); err != nil {
			return nil, fmt.Errorf("%w\n%s", err, m.Tail(2000))
		}
		return m, nil
	}
	if store == nil {
		m, err := start("process", network+".1", "dev", "--data", filepath.Join(c.Dir, key+"-data"),
			"--listen", f.gateway, "--admin", network+".1:8081", "--passivate-after", "24h")
		if err != nil {
			return f, err
		}
		f.roles = []*role{{"process", []*member{m}}}
		return f, f.dial(ctx)
	}
	url, join := store.url(key, v.Parameters), network+".2"
	nodes, gateway := &role{name: "nodes"}, &role{name: "gateway"}
	for i := range c.Nodes {
		host := fmt.Sprintf("%s.%d", network, i+2)
		m, err := start(fmt.Sprint("n", i+1), host, "node", "--store", url, "--name", fmt.Sprint("n", i+1),
			"--host", host, "--join", join, "--archive", "off", "--passivate-after", "24h")
		if err != nil {
			return f, err
		}
		nodes.members = append(nodes.members, m)
	}
	host := network + ".1"
	m, err := start("g1", host, "gateway", "--store", url, "--name", "g1", "--host", host, "--join", join,
		"--archive", "off")
	if err != nil {
		return f, err
	}
	gateway.members = append(gateway.members, m)
	f.roles = []*role{nodes, gateway}
	if err := f.dial(ctx); err != nil {
		return f, err
	}
	return f, f.settle(ctx, c.Nodes)
}

// ready reports whether a process serves.
func ready(ctx context.Context, admin string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, admin+"/readyz", nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s/readyz: %s", admin, res.Status)
	}
	return nil
}

// dial connects the clients, and finds out whether the gateway has sessions.
func (f *fleet) dial(ctx context.Context) error {
	var err error
	if f.unary, err = client.Dial([]string{f.gateway}, client.Options{}); err != nil {
		return err
	}
	stream, err := licensedv1.NewLicenseServiceClient(f.unary).Session(ctx)
	if err == nil {
		_ = stream.CloseSend() // It returns no error.
		_, err = stream.Recv()
	}
	if status.Code(err) == codes.Unimplemented {
		return nil
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("open a session at %s: %w", f.Name, err)
	}
	f.session, err = client.Dial([]string{f.gateway}, client.Options{Session: true})
	return err
}

// settle waits until all shards are open at the nodes that placement chooses.
func (f *fleet) settle(ctx context.Context, nodes int) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	admin := licensedv1.NewAdminServiceClient(f.unary)
	for {
		res, err := admin.GetCluster(ctx, &licensedv1.GetClusterRequest{})
		if err == nil {
			if _, err = harness.SettledOwners(res.Cluster, nodes); err == nil {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until the shards of %s are distributed: %w: %w", f.Name, ctx.Err(), err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// stop ends the clients, then the processes. Their data goes, so there is nothing to hand over.
func (f *fleet) stop() error {
	var errs []error
	for _, c := range []*client.Client{f.unary, f.session} {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	for _, m := range f.processes {
		errs = append(errs, m.Kill())
	}
	return errors.Join(errs...)
}

func customer(i uint64) string { return fmt.Sprintf("customer-%05d", i) }

// acquire gives each customer a licence, which brings it to memory.
func (f *fleet) acquire(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Uint64
	var wg sync.WaitGroup
	for range acquiring {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < uint64(f.customers) && ctx.Err() == nil; i = next.Add(1) - 1 {
				if _, err := f.unary.AcquireLicense(ctx, &licensedv1.AcquireLicenseRequest{
					CustomerId: customer(i), DeviceId: deviceID, TitleId: titleID,
				}); err != nil {
					cancel(fmt.Errorf("acquire the licence of %s at %s: %w", customer(i), f.Name, err))
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// renewals returns a contender that renews the licences of one customer after the other.
func (f *fleet) renewals(c *client.Client, mode string, inFlight int, counters *counters) meter.Contender {
	return meter.Contender{
		Name: fmt.Sprintf("%s, %s, %d in flight", f.Name, mode, inFlight), InFlight: inFlight,
		Do: func(ctx context.Context, _ int) error {
			_, err := c.RenewLicense(ctx, &licensedv1.RenewLicenseRequest{
				CustomerId: customer(f.next.Add(1) % uint64(f.customers)), DeviceId: deviceID, TitleId: titleID,
			})
			return err
		},
		Counters: counters.read,
	}
}
