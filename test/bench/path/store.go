package path

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// store is nodes of Cassandra that a run starts, by scripts/cassandra.sh.
type store struct {
	script  string
	env     []string
	network string // the first three bytes of its addresses
	nodes   int
}

// startStore starts nodes and waits until they accept clients. On an error there are none.
func startStore(ctx context.Context, c *Config) (*store, error) {
	network, err := freeNetwork()
	if err != nil {
		return nil, err
	}
	s := &store{
		script: filepath.Join(c.Tree, "scripts", "cassandra.sh"), network: network, nodes: c.Cassandra,
		env: append([]string{
			"DIR=" + filepath.Join(c.Dir, "cassandra"), "NET=" + network, "FIRST=1", "PORT=9042",
		}, c.CassandraEnv...),
	}
	if _, err := s.do(ctx, "up", strconv.Itoa(s.nodes)); err != nil {
		return nil, errors.Join(err, s.destroy())
	}
	return s, nil
}

// do runs the script and returns what it printed.
func (s *store) do(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, s.script, args...)
	cmd.Env = append(os.Environ(), s.env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("run cassandra.sh %s: %w: %s",
			strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// destroy stops the nodes and removes their data, also when the run was interrupted.
func (s *store) destroy() error {
	_, err := s.do(context.Background(), "destroy")
	return err
}

// pids returns the nodes' processes.
func (s *store) pids(ctx context.Context) ([]int, error) {
	out, err := s.do(ctx, "status")
	if err != nil {
		return nil, err
	}
	var pids []int
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if pid, err := strconv.Atoi(fields[len(fields)-1]); err == nil {
			pids = append(pids, pid)
		}
	}
	if len(pids) != s.nodes {
		return nil, fmt.Errorf("find the processes of Cassandra: %d of %d in %q", len(pids), s.nodes, out)
	}
	return pids, nil
}

// hosts returns the addresses of the nodes.
func (s *store) hosts() []string {
	var all []string
	for i := range s.nodes {
		all = append(all, fmt.Sprintf("%s.%d:9042", s.network, i+1))
	}
	return all
}

// url returns the URL of a keyspace, with further parameters.
func (s *store) url(keyspace, parameters string) string {
	u := fmt.Sprintf("cassandra://%s/%s?accept_risk=replication-1", strings.Join(s.hosts(), ","), keyspace)
	if parameters != "" {
		u += "&" + parameters
	}
	return u
}

// createKeyspace makes a keyspace with the tables of that program.
func (s *store) createKeyspace(ctx context.Context, program, keyspace string) error {
	cmd := exec.CommandContext(ctx, program, "schema", "apply", "--create-keyspace", strconv.Itoa(min(s.nodes, 3)),
		"--store", s.url(keyspace, ""))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("create keyspace %s: %w\n%s", keyspace, err, out)
	}
	return nil
}

// freeNetwork returns the first three bytes of loopback addresses that nothing listens on.
func freeNetwork() (string, error) {
	for range 100 {
		network := fmt.Sprintf("127.%d.%d", 1+rand.IntN(254), rand.IntN(256))
		free := true
		for _, port := range []string{"9042", "8080", "8081"} {
			l, err := net.Listen("tcp", net.JoinHostPort(network+".1", port))
			if free = free && err == nil; err == nil {
				_ = l.Close()
			}
		}
		if free {
			return network, nil
		}
	}
	return "", fmt.Errorf("find free loopback addresses: none of 100 networks in 127.0.0.0/8 can be listened on")
}
