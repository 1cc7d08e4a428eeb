package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"licensed/client"
	"licensed/internal/demo"
	"licensed/internal/node"
	"licensed/internal/storage"
	"licensed/internal/version"
)

// errSecondSignal ends the program without waiting for anything.
var errSecondSignal = errors.New("stopped at once by a second signal; what was acknowledged is safe")

// sameSignal is the time that signals after the first are taken for echoes of it: shells and supervisors
// send one to the process and another to its group.
const sameSignal = 250 * time.Millisecond

// serve runs a node until a signal or a failure. The first signal stops it in order; a
// second one, later than sameSignal, ends the program at once. Errors: why it did not
// start, or why it stopped.
func (p *program) serve(ctx context.Context, o *options, c node.Config) error {
	log := c.Logger
	limitMemory(log)
	starting, cancel := context.WithCancel(ctx)
	defer cancel()
	n, err := p.start(starting, cancel, c)
	if err != nil {
		return explain(err, c)
	}
	if err := p.announce(ctx, n, o, log); err != nil {
		return errors.Join(err, n.Stop(ctx))
	}
	stopDemo := func() {}
	if o.demo {
		if stopDemo, err = simulate(ctx, n, o, log); err != nil {
			return errors.Join(err, n.Stop(ctx))
		}
	}
	failure := p.wait(n, log)
	stopping, stopped := time.Now(), make(chan error, 1)
	go func() {
		stopDemo()
		stopped <- n.Stop(ctx)
	}()
	for {
		select {
		case err := <-stopped:
			if failure != nil {
				log.Debug("stopped after a failure", "error", err) // Its consequences.
				return failure
			}
			if err == nil {
				log.Info("stopped")
			}
			return err
		case s := <-p.signals:
			if s != syscall.SIGHUP && time.Since(stopping) > sameSignal {
				return errSecondSignal
			}
		}
	}
}

// start starts the node; a signal meanwhile cancels the start, which may take long while
// the store cannot be reached. A node that was ready at that moment is stopped again.
func (p *program) start(ctx context.Context, cancel context.CancelFunc, c node.Config) (*node.Node, error) {
	type result struct {
		node *node.Node
		err  error
	}
	started := make(chan result, 1)
	go func() {
		n, err := node.Start(ctx, c)
		started <- result{n, err}
	}()
	var signaled time.Time
	for {
		select {
		case r := <-started:
			// The start succeeded in spite of the signal: the node is stopped as after a
			// wait.
			if !signaled.IsZero() && r.err == nil {
				r.err = errors.Join(context.Canceled, r.node.Stop(context.WithoutCancel(ctx)))
			}
			return r.node, r.err
		case s := <-p.signals:
			switch {
			case s == syscall.SIGHUP:
			case signaled.IsZero():
				// Start ends at its next step. Its error is the result.
				signaled = time.Now()
				cancel()
			// A second signal, later than one sent twice to a process group, ends the
			// program at once.
			case time.Since(signaled) > sameSignal:
				return nil, errSecondSignal
			}
		}
	}
}

// wait returns nil when the node is asked to stop, or the failure because of which it
// must. SIGHUP reloads the policy.
func (p *program) wait(n *node.Node, log *slog.Logger) error {
	for {
		select {
		case err := <-n.Failed():
			log.Error("stopping after a failure", "error", err)
			return err
		case s := <-p.signals:
			if s == syscall.SIGHUP {
				n.ReloadPolicy()
				continue
			}
			log.Info("stopping", "signal", s.String())
			return nil
		}
	}
}

// explain adds what to do to the errors that operators meet when starting. The packages
// below do not know the flags.
func explain(err error, c node.Config) error {
	switch {
	case errors.As(err, new(*node.ExposedError)):
		return usageError{err}
	case errors.Is(err, context.Canceled):
		return errors.New("stopped before it was ready")
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf(
			"%w: another program listens there; stop it, or choose other addresses with --listen and --admin", err,
		)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%w: this machine has no such address", err)
	case errors.Is(err, node.ErrOtherCluster):
		return fmt.Errorf("%w; name it with --cluster, or another keyspace with --store", err)
	case errors.Is(err, storage.ErrUnsafe):
		return fmt.Errorf("%w; to start all the same, add accept_risk=NAME to the URL of the store "+
			"(docs/guide/cassandra.md tells what to do instead)", err)
	case errors.Is(err, storage.ErrWrongArchive):
		return fmt.Errorf("%w; mount its disk, name its directory with --archive, or start without archived history "+
			"with --archive off", err)
	case errors.Is(err, storage.ErrLocked):
		return fmt.Errorf("%w: another licensed runs on %s; stop it, or choose another directory with --data",
			err, c.Data)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w: the user of this process may not do that", err)
	}
	return err
}

// announce tells people and programs where the service is: on stderr, as no result of the command, in the log, and in
// the ready file.
func (p *program) announce(ctx context.Context, n *node.Node, o *options, log *slog.Logger) error {
	api, admin, source := "", "", "built in"
	if o.config.Policy != "" {
		source = o.config.Policy
	}
	store := n.Store(ctx)
	fmt.Fprintf(p.stderr, "licensed %s, policy %s (%s), data in %s\n",
		version.Version(), n.PolicyVersion(), source, store)
	fmt.Fprintln(p.stderr)
	for _, line := range n.Ports() {
		fmt.Fprintf(p.stderr, "  %-7s %s\n", line[0], line[1])
	}
	if a := n.Admin(); a != nil {
		admin = a.String()
	}
	if a := n.API(); a != nil {
		api = a.String()
		// The first command a reader tries: with the address as it is.
		fmt.Fprintf(p.stderr, `
Try:
  curl -d '{"customerId":"Bayley","deviceId":"iphone","titleId":"GlowS01E01","commandId":"c1"}' \
    -H 'content-type: application/json' %s/licensed.v1.LicenseService/AcquireLicense
`, n.APIURL())
	}
	fmt.Fprintln(p.stderr)
	// systemd, if it started the process, begins now with the units that wait for this one.
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		log.Warn("systemd not notified", "error", err)
	}
	log.Info("ready", "api", api, "admin", admin, "data", store, "policy", n.PolicyVersion(), "pid", os.Getpid())
	return writeReadyFile(o.readyFile, api, admin)
}

// writeReadyFile writes the addresses for programs that chose port 0. The file appears as
// a whole, by renaming: its reader polls for it.
func writeReadyFile(path, api, admin string) error {
	if path == "" {
		return nil
	}
	content, err := json.Marshal(struct {
		PID   int    `json:"pid"`
		API   string `json:"api"`
		Admin string `json:"admin,omitempty"`
	}{os.Getpid(), api, admin})
	if err != nil {
		return fmt.Errorf("ready file: %w", err)
	}
	// In the same directory, so that the renaming is atomic.
	temporary, err := os.CreateTemp(filepath.Dir(path), ".ready-*")
	if err != nil {
		return fmt.Errorf("ready file: %w", err)
	}
	_, err = temporary.Write(append(content, '\n'))
	if err := errors.Join(err, temporary.Close()); err != nil {
		return fmt.Errorf("ready file: %w", err)
	}
	if err := os.Rename(temporary.Name(), path); err != nil {
		return fmt.Errorf("ready file: %w", err)
	}
	return nil
}

// simulate starts the demo against the node's own API, over the network like any client;
// the function returned stops it and waits.
func simulate(ctx context.Context, n *node.Node, o *options, log *slog.Logger) (stop func(), err error) {
	c := o.demoConfig
	c.Logger = log
	service, err := client.Dial([]string{strings.TrimPrefix(n.APIURL(), "http://")}, client.Options{})
	if err != nil {
		return nil, fmt.Errorf("start the demo: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		demo.New(c, service).Run(ctx)
	}()
	log.Info("demo: simulating customers", "customers", c.Customers, "rate", c.Rate)
	return func() {
		cancel()
		<-done
		_ = service.Close() // Nothing is in progress any more.
	}, nil
}
