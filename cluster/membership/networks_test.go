package membership

import (
	"log/slog"
	"strings"
	"sync"
	"testing"

	"licensed/internal/networks"
)

// lines is a log that can be read while it is written.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) has(what string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), what)
}

// TestNetworks: a member hears nobody from other networks, and lists nobody whose address is in one.
func TestNetworks(t *testing.T) {
	for name, c := range map[string]struct{ network, stranger, refused string }{
		// A process on 127.0.0.9 connects from 127.0.0.1, and sends packets from its own address.
		"packets": {"127.0.0.1/32", "127.0.0.9:0", "gossip packet refused"},
		"streams": {"127.0.0.2/31", "127.0.0.1:0", "gossip stream refused"},
	} {
		t.Run(name, func(t *testing.T) {
			log := &lines{}
			ca, cb := quick("a"), quick("b")
			ca.Log = slog.New(slog.NewTextHandler(log, nil))
			var err error
			if ca.Networks, err = networks.Parse([]string{c.network}); err != nil {
				t.Fatal(err)
			}
			a := start(t, ca)
			cb.Bind, cb.Join = c.stranger, []string{a.Address()}
			b := start(t, cb)
			until("refusal", t, func() bool { return log.has(c.refused) && log.has(networks.ErrOutside.Error()) })
			if names(a) != "a" {
				t.Errorf("a sees %q", names(a))
			}
			if name == "streams" {
				if names(b) != "b" {
					t.Errorf("b sees %q", names(b))
				}
				return
			}
			friend := quick("c")
			friend.Join = cb.Join
			start(t, friend)
			until("friend", t, func() bool { return names(a) == "a c" })
		})
	}
}
