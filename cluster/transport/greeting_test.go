package transport

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"licensed/actors"
	"licensed/cluster/membership"
	"licensed/persistence"
)

// TestOtherClusterID: two clusters of one name stay apart, and each reports it once.
func TestOtherClusterID(t *testing.T) {
	var mu sync.Mutex
	logged := map[string]int{}
	as := func(name string, id persistence.ClusterID) func(*Config) {
		return func(c *Config) {
			c.ClusterID = id
			c.Strangers = membership.NewStrangers(id, slog.New(slog.NewTextHandler(writer(func(line string) {
				mu.Lock()
				defer mu.Unlock()
				if strings.Contains(line, "process of another cluster") && strings.Contains(line, id.String()) {
					logged[name]++
				}
			}), nil)))
		}
	}
	b := start(t, as("b", persistence.ClusterID{2}))
	b.handler.execute = func(context.Context, string, actors.Command) (actors.Reply, error) {
		t.Error("executed for another cluster")
		return actors.Reply{}, nil
	}
	a := start(t, as("a", persistence.ClusterID{1}))
	for range 3 {
		if _, err := a.Execute(t.Context(), b.Address(), "K", "x",
			actors.Command{ID: "1", Payload: "p"}); !errors.Is(err, ErrNotSent) {
			t.Errorf("asking a process of another cluster: %v", err)
		}
	}
	// One of an earlier release has no id: its name tells.
	c := start(t, nil)
	if _, err := c.Query(t.Context(), b.Address(), "K", "x", "q"); err != nil {
		t.Errorf("asked by a process without an id: %v", err)
	}
	mu.Lock()
	defer mu.Unlock()
	if b.journal.count("another cluster") == 0 || logged["b"] != 1 || logged["a"] != 1 {
		t.Errorf("logged %v", logged)
	}
}

// TestStrangerAtAnAddress: who answers under an address and is not admitted is sent nothing.
func TestStrangerAtAnAddress(t *testing.T) {
	who := persistence.NewIncarnation()
	b := start(t, func(c *Config) { c.Incarnation = func() persistence.Incarnation { return who } })
	var refuse error
	a := start(t, func(c *Config) {
		c.Admit = func(_ context.Context, address string, i persistence.Incarnation) error {
			if address != b.Address() || i != who {
				t.Errorf("%s says it is %s", address, i)
			}
			return refuse
		}
	})
	refuse = errors.New("the lease is another's")
	b.handler.query = func(context.Context, string, any) (actors.Answer, error) {
		t.Error("a stranger was asked")
		return actors.Answer{}, nil
	}
	if _, err := a.Query(t.Context(), b.Address(), "K", "x", "q"); !errors.Is(err, ErrNotSent) ||
		!strings.Contains(err.Error(), refuse.Error()) {
		t.Errorf("a stranger: %v", err)
	}
	refuse, b.handler.query = nil, nil
	for {
		_, err := a.Query(t.Context(), b.Address(), "K", "x", "q")
		if err == nil {
			return
		}
		if !errors.Is(err, ErrNotSent) || !strings.Contains(err.Error(), "the lease is another's") {
			t.Fatal(err)
		}
	}
}

// writer is a function that is written to.
type writer func(line string)

func (w writer) Write(b []byte) (int, error) { w(string(b)); return len(b), nil }
