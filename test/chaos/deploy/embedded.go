package deploy

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"licensed/internal/failpoint"
	"licensed/test/chaos/fault"
	"licensed/test/chaos/process"
)

// Embedded is one licensed process on the embedded store.
type Embedded struct {
	options Options
	server  *server
	data    string // directory of the store
	cages   *cages // nil where the machine allows none
	mounted string // a file system of its own for the data, so that it can be filled
	notes   []string
	cancel  context.CancelFunc
}

// diskSize is the space of the store: an hour of load takes a third of it, and writing as much again.
const diskSize = "2g"

// NewEmbedded prepares a deployment.
func NewEmbedded(o Options) (*Embedded, error) {
	e := &Embedded{options: o, data: filepath.Join(o.Dir, "disk", "data")}
	api, err := freePort("127.0.0.1")
	if err != nil {
		return nil, err
	}
	admin, err := freePort("127.0.0.1")
	if err != nil {
		return nil, err
	}
	policy, disk := filepath.Join(o.Dir, "policy.yaml"), filepath.Join(o.Dir, "disk")
	if err := errors.Join(writeFile(policy, o.Policy), writeFile(filepath.Join(disk, ".keep"), "")); err != nil {
		return nil, err
	}
	args := append([]string{
		"dev", "--data", e.data, "--archive", filepath.Join(o.Dir, "archive"), "--listen", "127.0.0.1:" + api,
		"--admin", "127.0.0.1:" + admin,
		"--max-deadline", maxDeadline,
	}, shared(policy)...)
	m := Member{Name: "dev", Role: Node, API: "http://127.0.0.1:" + api, Admin: "http://127.0.0.1:" + admin}
	e.server = newServer(m, process.Spec{
		Name: m.Name, Path: o.Binary, Args: args, Log: filepath.Join(o.Dir, m.Name+".log"),
	}, filepath.Join(o.Dir, "dev.sock"), o.Accident)
	if e.cages, err = findCages(); err != nil {
		e.notes = append(e.notes, fmt.Sprintf("no memory pressure: %v", err))
	}
	e.notes = append(e.notes,
		"one process with a store of its own: no leases, no hand-over, no network between members")
	return e, nil
}

// Start implements Deployment.
func (e *Embedded) Start(ctx context.Context) error {
	disk := filepath.Join(e.options.Dir, "disk")
	if err := mount(disk, diskSize); err != nil {
		e.notes = append(e.notes, fmt.Sprintf("no full disk: a file system of its own cannot be mounted (%v)", err))
	} else {
		e.mounted = disk
	}
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	e.cancel = cancel
	go watch(background, []*server{e.server})
	return e.server.Start(ctx)
}

// Stop implements Deployment.
func (e *Embedded) Stop(ctx context.Context) error {
	if e.cancel != nil {
		e.cancel()
	}
	err := e.server.Stop(ctx)
	if e.mounted != "" {
		err = errors.Join(err, unmount(e.mounted))
	}
	return err
}

// Gateways implements Deployment.
func (e *Embedded) Gateways() []string { return []string{e.server.API} }

// Members implements Deployment.
func (e *Embedded) Members() []Member { return []Member{e.server.Member} }

// Notes implements Deployment.
func (e *Embedded) Notes() []string { return e.notes }

// Coverage implements Deployment.
func (e *Embedded) Coverage() map[string]Point {
	e.server.look(context.Background())
	all := coverage([]*server{e.server})
	for name := range all {
		if solo(name) {
			delete(all, name)
		}
	}
	return all
}

// solo says whether a point is of leases or hand-over, which one process has at its start only.
func solo(point string) bool {
	return strings.HasPrefix(point, "lease.") || strings.HasPrefix(point, "shard.")
}

// Kinds implements Deployment.
func (e *Embedded) Kinds() []fault.Kind {
	ps, ss, ttl := []*process.Process{e.server.Process}, []*server{e.server}, e.options.TTL
	kinds := []fault.Kind{
		killKind(Node, ps, ttl), pauseKind(Node, ps, ttl), starveKind(Node, ps, ttl), restartKind(Node, ps),
		clockKind(ss, ttl), slowKind(ss, ttl),
		crashKind(ss, slices.DeleteFunc(failpoint.Points(), solo), ttl),
		damageKind(victims{ss, ss}, e.server.Process.Name(), ttl, e.damage),
		hostileKind(&intruder{address: "127.0.66.6"}, ss, nil, ttl),
	}
	if e.cages != nil {
		kinds = append(kinds, memoryKind(e.cages, ss, ttl))
	}
	if e.mounted != "" {
		kinds = append(kinds, fullDiskKind(e.server, e.mounted, ttl))
	}
	return kinds
}
