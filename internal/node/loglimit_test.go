package node_test

import (
	"log/slog"
	"net"
	"strings"
	"testing"

	"licensed/internal/harness"
	"licensed/internal/node"
)

// TestGarbageIsLoggedInPart: a process that reaches the gossip port does not decide how much is logged.
func TestGarbageIsLoggedInPart(t *testing.T) {
	c := newCompany(t)
	log := new(harness.Log)
	c.with = func(config *node.Config) {
		config.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	n := c.start("n1", node.RoleNode)
	stranger, err := net.Dial("udp", n.Gossip())
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	label := func(name, message string) []byte { return []byte("\xf4" + string(rune(len(name))) + name + message) }
	cluster := node.DefaultConfig().Cluster.Name
	for range 500 {
		for _, packet := range [][]byte{
			[]byte("garbage"), []byte("\x00garbage"), label(cluster, "\x09compressed"), label(cluster, "\x00\xa3abc"),
			label(cluster, "\x08\xff"),
		} {
			_, _ = stranger.Write(packet)
		}
	}
	// A line at DEBUG, of which there is no limit, tells when all before it was heard.
	until(func() bool {
		_, _ = stranger.Write(label(cluster, "\x00\x82\xa5SeqNo\x01\xa4Node\xa4last")) // a ping for another member
		return strings.Contains(log.String(), "last")
	})
	lines := strings.Count(log.String(), "\n") - strings.Count(log.String(), "level=DEBUG")
	refused := strings.Count(log.String(), "gossip packet refused")
	if refused == 0 || refused > 50 || lines > 300 {
		t.Errorf("%d of %d lines tell of refused packets", refused, lines)
	}
}
