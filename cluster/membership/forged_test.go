package membership

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"licensed/internal/forge"
	"licensed/messages/clusterv1"
)

// nobody is an address at which nobody answers.
const nobody = "127.0.0.1:9"

// forger returns one that sends to a member.
func forger(t *testing.T, to *Membership) *forge.Forger {
	t.Helper()
	f, err := forge.New(to.Address(), "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// forgeries are messages about a member.
var forgeries = map[string]func(f *forge.Forger, about *Membership, incarnation uint32) error{
	"dead": func(f *forge.Forger, about *Membership, incarnation uint32) error {
		return f.GoneAt(about.ID(), incarnation)
	},
	"a foreign address": func(f *forge.Forger, about *Membership, incarnation uint32) error {
		return f.Alive(forge.Alive{
			Name: about.ID(), Gossip: nobody, Incarnation: incarnation, Meta: &clusterv1.Meta{Version: "forged"},
		})
	},
	"a foreign address after death": func(f *forge.Forger, about *Membership, incarnation uint32) error {
		_ = f.GoneAt(about.ID(), incarnation-1)
		return f.Alive(forge.Alive{
			Name: about.ID(), Gossip: nobody, Incarnation: incarnation, Meta: &clusterv1.Meta{Version: "forged"},
		})
	},
	"a forged meta": func(f *forge.Forger, about *Membership, incarnation uint32) error {
		return f.Alive(forge.Alive{
			Name:        about.ID(),
			Gossip:      about.Address(),
			Incarnation: incarnation,
			Meta:        &clusterv1.Meta{Version: "forged", Draining: true},
		})
	},
	"a farewell": func(f *forge.Forger, about *Membership, incarnation uint32) error {
		_ = f.Alive(forge.Alive{
			Name:        about.ID(),
			Gossip:      about.Address(),
			Incarnation: incarnation - 1,
			Meta:        &clusterv1.Meta{Draining: true},
		})
		return f.GoneAt(about.ID(), incarnation)
	},
}

// TestForgeries: messages about all members are sent to all, or to all but the one that they are about, for a while.
// When that has passed all list each other as they are.
func TestForgeries(t *testing.T) {
	for name, send := range forgeries {
		for _, incarnation := range []uint32{1000, maxIncarnation - 1, maxIncarnation, math.MaxUint32} {
			for _, behind := range []bool{false, true} {
				if behind && incarnation > maxIncarnation {
					continue // Nobody believes it.
				}
				t.Run(fmt.Sprintf("%s/%d/behind=%t", name, incarnation, behind), func(t *testing.T) {
					t.Parallel()
					var all []*Membership
					var forgers []*forge.Forger
					for _, name := range []string{"a", "b", "c"} {
						c := quick(name)
						c.Meta = &clusterv1.Meta{Version: name + "1", NodeAddress: name}
						if len(all) > 0 {
							c.Join = []string{all[0].Address()}
						}
						all = append(all, start(t, c))
						forgers = append(forgers, forger(t, all[len(all)-1]))
					}
					awaitAll(t, all, "1")
					for range 20 {
						for to, f := range forgers {
							for about, m := range all {
								if behind && to == about {
									continue
								}
								if err := send(f, m, incarnation); err != nil {
									t.Fatal(err)
								}
							}
						}
						time.Sleep(20 * time.Millisecond) // while gossip continues
					}
					for _, m := range all { // What they say of themselves is believed again.
						if err := m.SetMeta(
							&clusterv1.Meta{Version: m.config.Name + "2", NodeAddress: m.config.Name},
						); err != nil {
							t.Fatal(err)
						}
					}
					awaitAll(t, all, "2")
				})
			}
		}
	}
}

// awaitAll waits until all list each other, and nobody else, at their addresses with that version of their meta.
func awaitAll(t *testing.T, all []*Membership, version string) {
	t.Helper()
	for _, m := range all {
		for began := time.Now(); ; time.Sleep(5 * time.Millisecond) {
			if lists(m, all, version) {
				break
			}
			if t.Context().Err() != nil || time.Since(began) > time.Minute {
				t.Fatalf("%s lists %v", m.ID(), m.Members())
			}
		}
	}
}

func lists(m *Membership, all []*Membership, version string) bool {
	members := m.Members()
	return len(members) == len(all) && !slices.ContainsFunc(all, func(o *Membership) bool {
		return !slices.ContainsFunc(members, func(l Member) bool {
			return l.ID == o.ID() && l.Name == o.config.Name && l.Gossip == o.Address() &&
				l.Meta.Version == l.Name+version && l.Meta.NodeAddress == l.Name
		})
	})
}

// TestIdentityRenewed: a member that hears of itself with a count that it should not have takes another id, reports
// it once, is never missing from what listeners hear, and spreads news as before.
func TestIdentityRenewed(t *testing.T) {
	r := &recorder{}
	ca, cb := quick("a"), quick("b")
	var mu sync.Mutex
	var log strings.Builder
	seen, missing := false, 0
	ca.Listener.Members = func(all []Member) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case slices.ContainsFunc(all, func(m Member) bool { return m.Name == "b" }):
			seen = true
		case seen:
			missing++
		}
	}
	ca.Listener.News = r.listener().News
	cb.Log = slog.New(slog.NewTextHandler(writer(func(b []byte) { mu.Lock(); defer mu.Unlock(); log.Write(b) }), nil))
	a := start(t, ca)
	cb.Join = []string{a.Address()}
	b := start(t, cb)
	until("both", t, func() bool { return names(a) == "a b" && names(b) == "a b" })
	until("b is published", t, func() bool { mu.Lock(); defer mu.Unlock(); return seen })
	before, address := b.ID(), b.Address()
	if err := forger(t, b).GoneAt(before, maxIncarnation); err != nil {
		t.Fatal(err)
	}
	until("another id", t, func() bool { return b.ID() != before })
	until("the former id has gone", t, func() bool {
		all := a.Members()
		return len(all) == 2 && all[1].ID == b.ID() && all[1].Gossip == address && b.Address() == address
	})
	b.Spread(&clusterv1.News{Shards: []*clusterv1.Shard{{Id: 7, Owner: make([]byte, 16)}}},
		func(Member) bool { return false })
	until("news", t, func() bool { return slices.Contains(r.shards(), 7) })
	until("its clock", t, func() bool { _, peers := a.ClockOffset(map[string]bool{b.ID(): true}); return peers == 1 })
	mu.Lock()
	times := missing
	mu.Unlock()
	if err := b.Leave(t.Context()); err != nil {
		t.Error(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if n := strings.Count(log.String(), "gossip identity renewed"); n != 1 || times > 0 {
		t.Errorf("b was missing %d times, and logged %d times that it has another id: %s", times, n, &log)
	}
}

// TestNotListed: memberlist would refuse all exchanges while it lists somebody who speaks no version that others
// speak; and nobody else is at its own address.
func TestNotListed(t *testing.T) {
	a := start(t, quick("a"))
	versions := [6]uint8{1, memberlist.ProtocolVersionMax, protocolVersion, 1, 1, delegateVersion}
	for at, version := range map[int]uint8{0: 3, 1: 1, 2: 5, 3: 2, 4: 0, 5: 2} {
		v := versions
		v[at] = version
		n := &memberlist.Node{
			Name: "x", Port: 9, PMin: v[0], PMax: v[1], PCur: v[2], DMin: v[3], DMax: v[4], DCur: v[5],
		}
		if err := (delegate{a.run()}).NotifyAlive(n); !errors.Is(err, errVersion) {
			t.Errorf("%v: %v", v, err)
		}
	}
	host, port, _ := net.SplitHostPort(a.Address())
	number, _ := strconv.Atoi(port)
	n := &memberlist.Node{
		Name: "a@00000000", Addr: net.ParseIP(host), Port: uint16(number),
		PMin: versions[0], PMax: versions[1], PCur: versions[2], DMin: versions[3], DMax: versions[4],
		DCur: versions[5],
	}
	if err := (delegate{a.run()}).NotifyAlive(n); !errors.Is(err, errFormer) {
		t.Error("a former id of the process:", err)
	}
	n.Port++
	if err := (delegate{a.run()}).NotifyAlive(n); err != nil {
		t.Error("a former run elsewhere:", err)
	}
}

// TestInventedMembers: many that do not exist are announced all the time. Few are listed; a true member is admitted
// meanwhile, and in the end nobody else is listed.
func TestInventedMembers(t *testing.T) {
	ca, cb := quick("a"), quick("b")
	a := start(t, ca)
	cb.Join = []string{a.Address()}
	b := start(t, cb)
	until("both", t, func() bool { return names(a) == "a b" && names(b) == "a b" })
	stop := make(chan struct{})
	var flood sync.WaitGroup
	most := 0
	for _, f := range []*forge.Forger{forger(t, a), forger(t, b)} {
		flood.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
				}
				_ = f.Alive(
					forge.Alive{Name: fmt.Sprintf("x%d", i), Gossip: nobody, Incarnation: 1, Meta: &clusterv1.Meta{}},
				)
				_ = f.GoneAt(fmt.Sprintf("x%d", i), 1)
				_ = f.Alive(
					forge.Alive{Name: fmt.Sprintf("y%d", i), Gossip: nobody, Incarnation: 1, Meta: &clusterv1.Meta{}},
				)
			}
		})
	}
	until("many", t, func() bool { n := len(a.Members()); most = max(most, n); return n >= maxNewcomers/2 })
	cc := quick("c")
	cc.Join = []string{a.Address()}
	c := start(t, cc)
	listed := func(m *Membership, id string) bool {
		all := m.Members()
		most = max(most, len(all))
		return slices.ContainsFunc(all, func(o Member) bool { return o.ID == id })
	}
	until("c is listed", t,
		func() bool { return listed(a, c.ID()) && listed(b, c.ID()) && listed(c, a.ID()) && listed(c, b.ID()) })
	close(stop)
	flood.Wait()
	if most > maxNewcomers+3 {
		t.Errorf("%d members were listed", most)
	}
	a.mu.Lock()
	lost := len(a.lost)
	a.mu.Unlock()
	if lost > maxLost+3 {
		t.Errorf("%d addresses are tried", lost)
	}
}
