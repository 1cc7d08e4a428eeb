// Package deploy gives chaos runs something to run against.
//
// # The model
//
// A [Deployment] is brought up, tells where its gateways are, and offers the kinds of faults that can be
// done to it. There are three: [Embedded], one process with its store on a disk of its own; [Cluster],
// nodes, gateways and Cassandra as processes of this machine, each in a network namespace where the
// machine allows it; and [Attached], a cluster that is present already, with faults by commands of its
// owner.
//
// The programs are those that users run, built with the tag failpoints where the run is to hit named
// points; what cannot be done on a machine is left out and said in Notes.
package deploy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"licensed/test/chaos/fault"
)

// Role of a member.
type Role string

// The roles.
const (
	Node    Role = "node"
	Gateway Role = "gateway"
	Store   Role = "cassandra"
)

// Member is a process of a deployment.
type Member struct {
	Name string
	Role Role
	// API and Admin are URLs; empty where the member has none.
	API, Admin string
}

// Deployment is what a run runs against. Its methods are safe for concurrent use after Start.
type Deployment interface {
	// Start brings everything up.
	Start(ctx context.Context) error
	// Stop takes down what Start brought up.
	Stop(ctx context.Context) error
	// Gateways returns the URLs that clients use.
	Gateways() []string
	// Members returns all processes.
	Members() []Member
	// Kinds returns what can go wrong.
	Kinds() []fault.Kind
	// Notes says what this deployment cannot do here, and why.
	Notes() []string
	// Coverage returns how often each failpoint was passed and how often a process died at it; nil without
	// failpoints.
	Coverage() map[string]Point
}

// Point is what happened at a failpoint.
type Point struct {
	Passed  uint64 `json:"passed"`
	Crashes int    `json:"crashes"`
}

// Options of a deployment of processes.
type Options struct {
	// Dir keeps data, logs and sockets.
	Dir string
	// Binary is the licensed program.
	Binary string
	// Policy is the content of the policy file.
	Policy string
	// TTL is that of leases. Faults last for multiples of it.
	TTL time.Duration
	// Ordinary gives nodes the settings that they have in production, in place of those of which shared tells.
	Ordinary bool
	// GatewayFlags returns further flags of a gateway; nil for none.
	GatewayFlags func(name string) []string
	// Accident is told when a process ends that nobody asked to. It is started again.
	Accident func(error)
}

// Build builds the licensed program of a source tree, with failpoints, and returns its path. Tags are
// further build tags.
func Build(ctx context.Context, tree, dir string, tags ...string) (string, error) {
	path := filepath.Join(dir, "licensed")
	cmd := exec.CommandContext(ctx, "go", "build", "-C", tree, "-tags",
		strings.Join(append([]string{"failpoints"}, tags...), ","), "-o", path, "./cmd/licensed")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build licensed in %s: %w\n%s", tree, err, out)
	}
	return path, nil
}

// freePort returns a port of an address that nobody listens on, and that nobody gets by chance while its
// owner is dead: below those that systems choose from.
func freePort(address string) (string, error) {
	for range 100 {
		port := fmt.Sprint(15_000 + rand.IntN(15_000))
		l, err := net.Listen("tcp", net.JoinHostPort(address, port))
		if err == nil {
			return port, l.Close()
		}
	}
	return "", fmt.Errorf("no free port on %s", address)
}

// writeFile writes a file of a deployment and makes its directory.
func writeFile(path, content string) error {
	return errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o600))
}

// maxDeadline of a request is a little shorter than the patience of clients, so that it is the service that
// says what became of a request, and may be wrong about it.
const maxDeadline = "1500ms"

// shared are the settings that make a short run meet what takes days otherwise: rollovers, passivations,
// archiving.
func shared(policy string) []string {
	return strings.Fields("--log-format text --log-level info --policy " + policy +
		" --snapshot-every 20 --passivate-after 3s --archive-after 5s --archive-segment-bytes 4KiB --archive-rate 0")
}
