package membership

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
	"google.golang.org/protobuf/proto"

	"licensed/messages/clusterv1"
	"licensed/persistence"
)

// quick is a configuration for tests on one machine.
func quick(name string) Config {
	c := DefaultConfig()
	c.Name, c.Bind, c.Label = name, "127.0.0.1:0", "test"
	c.JoinEvery, c.SyncEvery = 20*time.Millisecond, 200*time.Millisecond
	c.ProbeEvery, c.ProbeTimeout = 50*time.Millisecond, 25*time.Millisecond
	c.SuspicionMult = 4 // a suspect hears of it by gossip, every 100 ms
	c.Log = quiet
	return c
}

var quiet = slog.New(slog.DiscardHandler)

func start(t *testing.T, c Config) *Membership {
	t.Helper()
	m, err := Start(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Abandon() })
	return m
}

// until waits for a condition; the test's own deadline is the only limit.
func until(what string, t *testing.T, f func() bool) {
	t.Helper()
	for !f() {
		select {
		case <-t.Context().Done():
			t.Fatalf("no %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func names(m *Membership) string {
	var all []string
	for _, o := range m.Members() {
		all = append(all, o.Name)
	}
	return strings.Join(all, " ")
}

// recorder keeps what a listener hears.
type recorder struct {
	mu      sync.Mutex
	members []Member
	news    []*clusterv1.News
}

func (r *recorder) listener() Listener {
	return Listener{
		Members: func(m []Member) { r.mu.Lock(); defer r.mu.Unlock(); r.members = m },
		News:    func(n *clusterv1.News) { r.mu.Lock(); defer r.mu.Unlock(); r.news = append(r.news, n) },
	}
}

func (r *recorder) version(name string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.members {
		if m.Name == name {
			return m.Meta.Version
		}
	}
	return ""
}

func (r *recorder) shards() []uint32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	var ids []uint32
	for _, n := range r.news {
		for _, s := range n.Shards {
			if !slices.Contains(ids, s.Id) {
				ids = append(ids, s.Id)
			}
		}
	}
	return ids
}

func TestJoinAndLeave(t *testing.T) {
	a := start(t, quick("a"))
	var all []*Membership
	for _, name := range []string{"b", "c"} {
		c := quick(name)
		c.Join = []string{a.Address()}
		all = append(all, start(t, c))
	}
	all = append(all, a)
	for _, m := range all {
		until("full list", t, func() bool { return names(m) == "a b c" })
	}
	if err := all[0].goodbye(time.Minute); err != nil { // b
		t.Error(err)
	}
	until("good-bye of b", t, func() bool {
		return slices.ContainsFunc(a.Members(), func(m Member) bool { return m.Name == "b" && m.Meta.Draining })
	})
	if err := all[0].Leave(t.Context()); err != nil {
		t.Error(err)
	}
	until("b has left", t, func() bool { return names(a) == "a c" })
	if err := all[1].Abandon(); err != nil { // c
		t.Error(err)
	}
	until("c was missed", t, func() bool { return names(a) == "a" })
	if err := all[1].Leave(t.Context()); err != nil {
		t.Error("leaving twice:", err)
	}
}

// TestLostOrGone: a member that is gone after a good-bye is looked for shortly, and one that is gone without a
// good-bye long.
func TestLostOrGone(t *testing.T) {
	for _, draining := range []bool{true, false} {
		now := time.Now()
		c := quick("a")
		c.Now = func() time.Time { return now }
		m := &Membership{config: c, lost: map[string]lost{}, newcomers: newNewcomers(), changed: make(chan struct{}, 1)}
		m.current = &run{m: m, members: map[string]*peer{}}
		m.clocks.init()
		meta, err := (&Membership{}).marshalMeta(&clusterv1.Meta{Draining: draining})
		if err != nil {
			t.Fatal(err)
		}
		n := &memberlist.Node{Name: "b", Addr: net.IPv4(127, 0, 0, 1), Port: 1}
		m.answered("b")
		d := delegate{m.current}
		d.NotifyJoin(n)
		n.Meta = meta
		d.NotifyUpdate(n)
		d.NotifyLeave(n)
		want := []string{"127.0.0.1:1"}
		if got := m.missing(); !slices.Equal(got, want) {
			t.Errorf("draining: %t, and at first looked for at %v", draining, got)
		}
		now = now.Add(forgetSoon + 1)
		if got := m.missing(); draining && len(got) != 0 || !draining && !slices.Equal(got, want) {
			t.Errorf("draining: %t, and later looked for at %v", draining, got)
		}
		now = now.Add(forgetLost)
		if got := m.missing(); len(got) != 0 {
			t.Errorf("looked for at %v for ever", got)
		}
	}
}

// TestAddressWhileMetaChanges: memberlist processes its own meta while somebody asks for the address. The race
// detector sees whether they share something.
func TestAddressWhileMetaChanges(t *testing.T) {
	a := start(t, quick("a"))
	want := a.Address()
	stop := make(chan struct{})
	var asking sync.WaitGroup
	asking.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if got := a.Address(); got != want {
				t.Errorf("address %s, before %s", got, want)
			}
		}
	})
	for i := range 20 {
		version := fmt.Sprint(i)
		if err := a.SetMeta(&clusterv1.Meta{Version: version}); err != nil {
			t.Fatal(err)
		}
		until("the own meta", t, func() bool { return a.Members()[0].Meta.Version == version })
	}
	close(stop)
	asking.Wait()
}

// TestLeaveInAHurry: a member that has no time to tell the others has left in good order all the same.
func TestLeaveInAHurry(t *testing.T) {
	a, c := start(t, quick("a")), quick("b")
	c.Join = []string{a.Address()}
	b := start(t, c)
	until("full list", t, func() bool { return names(a) == "a b" && names(b) == "a b" })
	ctx, cancel := context.WithDeadline(t.Context(), time.Now())
	defer cancel()
	if err := b.Leave(ctx); err != nil {
		t.Error(err)
	}
	until("b was missed", t, func() bool { return names(a) == "a" })
}

func TestMetaSpreads(t *testing.T) {
	r := &recorder{}
	ca := quick("a")
	ca.Listener = r.listener()
	a := start(t, ca)
	cb := quick("b")
	cb.Join = []string{a.Address()}
	cb.Meta = &clusterv1.Meta{Version: "1", Incarnation: make([]byte, 16)}
	b := start(t, cb)
	until("first meta", t, func() bool { return r.version("b") == "1" })
	for _, v := range []string{"2", "3"} {
		if err := b.SetMeta(&clusterv1.Meta{Version: v}); err != nil {
			t.Fatal(err)
		}
	}
	until("last meta", t, func() bool { return r.version("b") == "3" })
	if err := b.SetMeta(&clusterv1.Meta{Version: strings.Repeat("x", 600)}); err == nil {
		t.Error("600 bytes of meta are accepted")
	}
}

func TestNews(t *testing.T) {
	r := &recorder{}
	ca := quick("a")
	ca.Listener = r.listener()
	ca.Join = nil
	a := start(t, ca)
	cb := quick("b")
	cb.Join = []string{a.Address()}
	owner := make([]byte, 16)
	missed := &clusterv1.News{Shards: []*clusterv1.Shard{{Id: 1000, Epoch: 1, Owner: owner}}}
	cb.Listener.State = func() *clusterv1.News { return missed }
	b := start(t, cb)
	until("state on joining", t, func() bool { return slices.Contains(r.shards(), 1000) })
	until("somebody to tell", t, func() bool { return names(b) == "a b" })
	news := &clusterv1.News{Dead: [][]byte{owner}}
	for id := range uint32(300) {
		news.Shards = append(news.Shards, &clusterv1.Shard{Id: id, Epoch: 7, Owner: owner})
	}
	b.Spread(news, func(Member) bool { return false })
	until("news by gossip", t, func() bool { return len(r.shards()) == 301 })
	b.Spread(&clusterv1.News{Shards: []*clusterv1.Shard{{Id: 2000, Owner: owner}}}, func(Member) bool { return true })
	until("direct news", t, func() bool { return slices.Contains(r.shards(), 2000) })
}

func TestStrangersAreNotHeard(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"another label": func(c *Config) { c.Label = "other" },
		"another key":   func(c *Config) { c.Keys = newKeys(t, "f") },
		"no key":        func(c *Config) { c.Keys = nil },
	} {
		t.Run(name, func(t *testing.T) {
			ca, cb, cc := quick("a"), quick("b"), quick("c")
			ca.Keys, cb.Keys, cc.Keys = newKeys(t, "0"), newKeys(t, "0"), newKeys(t, "0")
			a := start(t, ca)
			cb.Join, cc.Join = []string{a.Address()}, []string{a.Address()}
			change(&cb)
			b, c := start(t, cb), start(t, cc)
			until("friend", t, func() bool { return names(c) == "a c" && names(a) == "a c" })
			time.Sleep(10 * cb.JoinEvery)
			if names(b) != "b" || strings.Contains(names(a)+names(c), "b") {
				t.Errorf("a sees %q, c sees %q, b sees %q", names(a), names(c), names(b))
			}
		})
	}
}

func TestBadConfig(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"name": func(c *Config) { c.Name = "" }, "bind": func(c *Config) { c.Bind = "nowhere" },
		"advertise": func(c *Config) { c.Advertise = "nowhere" },
		"meta":      func(c *Config) { c.Meta = &clusterv1.Meta{Version: strings.Repeat("x", 600)} },
		"port":      func(c *Config) { c.Bind = "127.0.0.1:x" },
	} {
		c := quick("a")
		change(&c)
		if m, err := Start(c); err == nil {
			t.Errorf("%s: accepted", name)
			_ = m.Abandon()
		}
	}
}

// wire is a network that can be cut.
type wire struct {
	*memberlist.NetTransport
	mu  sync.Mutex
	cut bool
}

var errCut = errors.New("cut")

func (w *wire) isCut() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.cut }

func (w *wire) set(cut bool) { w.mu.Lock(); defer w.mu.Unlock(); w.cut = cut }

func (w *wire) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	if w.isCut() {
		return time.Now(), nil // lost
	}
	return w.NetTransport.WriteToAddress(b, a)
}

func (w *wire) DialAddressTimeout(a memberlist.Address, d time.Duration) (net.Conn, error) {
	if w.isCut() {
		return nil, errCut
	}
	return w.NetTransport.DialAddressTimeout(a, d)
}

// network returns one of memberlist's, on a port of its own. memberlist lets the system choose it for TCP, and
// fails if somebody has it for UDP.
func network(t testing.TB) *memberlist.NetTransport {
	t.Helper()
	for {
		nt, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{
			BindAddrs: []string{"127.0.0.1"}, Logger: log.New(io.Discard, "", 0),
		})
		if err == nil {
			return nt
		}
		if !strings.Contains(err.Error(), "address already in use") {
			t.Fatal(err)
		}
	}
}

// onWire starts a member whose network can be cut.
func onWire(t *testing.T, name string) (*Membership, *wire) {
	t.Helper()
	nt := network(t)
	w := &wire{NetTransport: nt}
	c := quick(name)
	c.Transport, c.Bind = w, fmt.Sprintf("127.0.0.1:%d", nt.GetAutoBindPort())
	return start(t, c), w
}

// TestPartitionHeals parts two members of which neither has the other among its seeds.
func TestPartitionHeals(t *testing.T) {
	a, wa := onWire(t, "a")
	b, wb := onWire(t, "b")
	if _, err := b.run().list.Join([]string{a.Address()}); err != nil {
		t.Fatal(err)
	}
	until("both", t, func() bool { return names(a) == "a b" && names(b) == "a b" })
	wa.set(true)
	wb.set(true)
	until("partition", t, func() bool { return names(a) == "a" && names(b) == "b" })
	wa.set(false)
	wb.set(false)
	until("healed", t, func() bool { return names(a) == "a b" && names(b) == "a b" })
}

// deaf is a network on which some address neither takes connections nor refuses them, until the test ends.
type deaf struct {
	*memberlist.NetTransport
	address string
	over    <-chan struct{}
}

func (d *deaf) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	if a.Addr == d.address {
		<-d.over
		return nil, errCut
	}
	return d.NetTransport.DialAddressTimeout(a, timeout)
}

// TestSilentAddressesHoldNobodyUp joins through a seed while another address does not answer.
func TestSilentAddressesHoldNobodyUp(t *testing.T) {
	a, nt := start(t, quick("a")), network(t)
	over := make(chan struct{})
	c := quick("b")
	c.Transport, c.Bind = &deaf{nt, "127.0.0.0:1", over}, fmt.Sprintf("127.0.0.1:%d", nt.GetAutoBindPort())
	c.Join = []string{"127.0.0.0:1", a.Address()} // in this order
	b := start(t, c)
	defer close(over)
	until("joined", t, func() bool { return names(b) == "a b" })
}

// TestNewsOfOneWhoIsAlone: what nobody can hear is not kept, and what many could is bounded.
func TestNewsOfOneWhoIsAlone(t *testing.T) {
	a := start(t, quick("a"))
	spread := func() {
		a.Spread(&clusterv1.News{Shards: []*clusterv1.Shard{{Id: 1, Owner: make([]byte, 16)}}},
			func(Member) bool { return false })
	}
	for range 10 {
		spread()
	}
	if n := a.rumours.queue.NumQueued(); n != 0 {
		t.Errorf("%d parts of news wait for nobody", n)
	}
	a.mu.Lock()
	// memberlist does not know it: nothing is taken out
	a.current.members["b"] = &peer{Member: Member{Name: "b", ID: "b", Meta: &clusterv1.Meta{}}}
	a.mu.Unlock()
	for range 2 * keptParts {
		spread()
	}
	if n := a.rumours.queue.NumQueued(); n != keptParts {
		t.Errorf("%d parts of news are kept", n)
	}
}

// TestSeedsAreResolvedForEver has a name that means nothing at first.
func TestSeedsAreResolvedForEver(t *testing.T) {
	a := start(t, quick("a"))
	host, port, _ := net.SplitHostPort(a.Address())
	c := quick("b")
	c.Join = []string{"seeds.test:" + port}
	var mu sync.Mutex
	var hosts []string
	asked := 0
	c.Resolve = func(_ context.Context, name string) ([]string, error) {
		mu.Lock()
		defer mu.Unlock()
		asked++
		if name != "seeds.test" || len(hosts) == 0 {
			return nil, errors.New("no such host")
		}
		return hosts, nil
	}
	b := start(t, c)
	count := func() int { mu.Lock(); defer mu.Unlock(); return asked }
	until("several attempts", t, func() bool { return count() > 3 })
	mu.Lock()
	hosts = []string{host}
	mu.Unlock()
	until("joined", t, func() bool { return names(b) == "a b" })
	before := count()
	until("asked again", t, func() bool { return count() > before+3 })
}

// TestOtherCluster: processes of another cluster are not members, though name and label are the same: neither the one
// that was told to join, nor the one that it was told of. Each is logged once, with both ids.
func TestOtherCluster(t *testing.T) {
	logs := map[string]*strings.Builder{}
	var heard atomic.Int64
	config := func(name string, id persistence.ClusterID) Config {
		c := quick(name)
		var mu sync.Mutex
		logs[name] = &strings.Builder{}
		c.ClusterID, c.Log = id, slog.New(
			slog.NewTextHandler(writer(func(b []byte) { mu.Lock(); defer mu.Unlock(); logs[name].Write(b) }), nil),
		)
		c.Strangers = NewStrangers(id, c.Log)
		c.Listener.News = func(*clusterv1.News) { heard.Add(1) }
		c.Listener.State = func() *clusterv1.News { return &clusterv1.News{Dead: [][]byte{make([]byte, 16)}} }
		return c
	}
	ours, theirs := persistence.NewClusterID(), persistence.NewClusterID()
	a := start(t, config("a", ours))
	c := config("stranger", theirs)
	c.Join = []string{a.Address()}
	tried := make(chan struct{}, 1)
	c.Resolve = func(context.Context, string) ([]string, error) { return nil, nil }
	b := start(t, c)
	go func() {
		for range 5 {
			b.tryAll(b.run(), b.missing())
		}
		close(tried)
	}()
	<-tried
	news, _ := proto.Marshal(&clusterv1.News{Dead: [][]byte{make([]byte, 16)}, ClusterId: theirs[:]})
	delegate{a.run()}.hear(news)
	if names(a) != "a" || names(b) != "stranger" || heard.Load() != 0 {
		t.Errorf("a has %q, the stranger has %q, %d pieces of news", names(a), names(b), heard.Load())
	}
	_, _ = a.Abandon(), b.Abandon()
	for name, log := range logs {
		if n := strings.Count(log.String(), "process of another cluster"); n != 1 ||
			!strings.Contains(log.String(), ours.String()) ||
			!strings.Contains(log.String(), theirs.String()) || !strings.Contains(log.String(), "address=127.0.0.1:") {
			t.Errorf("%s logged %q", name, log)
		}
	}
}

// TestStrangersAreBounded: a process that invents clusters fills neither the memory nor the log.
func TestStrangersAreBounded(t *testing.T) {
	lines := 0
	s := NewStrangers(persistence.NewClusterID(), slog.New(slog.NewTextHandler(writer(func([]byte) { lines++ }), nil)))
	for range 3 * maxStrangers {
		if !s.Refuse(persistence.NewClusterID(), "127.0.0.1:1", "test") {
			t.Fatal("a stranger was not refused")
		}
	}
	if len(s.met) != maxStrangers || lines != maxStrangers {
		t.Errorf("%d are remembered, %d were logged", len(s.met), lines)
	}
}

// writer is a function that is written to.
type writer func([]byte)

func (w writer) Write(b []byte) (int, error) { w(b); return len(b), nil }

func TestNames(t *testing.T) {
	for id, want := range map[string]string{
		newID("n1"): "n1", newID("a@b"): "a@b", "n1": "n1", "n1@": "n1@", "n1@1234567": "n1@1234567",
		"n1@1234567g": "n1@1234567g", "@12345678": "@12345678",
	} {
		if got := nameOf(id); got != want {
			t.Errorf("%s is %q, want %q", id, got, want)
		}
	}
}

// TestRestartUnderTheSameName comes back with another address and another incarnation, with the former run still
// listed. That is no conflict.
func TestRestartUnderTheSameName(t *testing.T) {
	r := &recorder{}
	ca := quick("a")
	ca.Listener = r.listener()
	var mu sync.Mutex
	var log strings.Builder
	ca.Log = slog.New(slog.NewTextHandler(writer(func(b []byte) { mu.Lock(); defer mu.Unlock(); log.Write(b) }), nil))
	var later atomic.Int64 // added to the clock
	ca.Now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	a := start(t, ca)
	for i := range 3 {
		c := quick("b")
		c.Join = []string{a.Address()}
		c.Meta = &clusterv1.Meta{Version: fmt.Sprint(i)}
		b := start(t, c)
		until("restart", t, func() bool { return r.version("b") == fmt.Sprint(i) })
		later.Add(int64(forgetSoon + 1))
		until("b is back, and not looked for any more", t, func() bool { return len(a.missing()) == 0 })
		_ = b.Abandon()
		if i == 0 {
			continue // At once.
		}
		until("gone", t, func() bool { return names(a) == "a" })
	}
	mu.Lock()
	defer mu.Unlock()
	if s := strings.ToLower(log.String()); strings.Contains(s, "conflict") || strings.Contains(s, "level=error") {
		t.Error(s)
	}
}

func TestClocksOfMembers(t *testing.T) {
	a := start(t, quick("a"))
	c := quick("b")
	c.Join = []string{a.Address()}
	c.Now = func() time.Time { return time.Now().Add(time.Minute) }
	b := start(t, c)
	until("offset", t, func() bool {
		ahead, peers := b.ClockOffset(map[string]bool{a.ID(): true})
		return peers == 1 && (ahead-time.Minute).Abs() < time.Second
	})
	until("offset", t, func() bool {
		ahead, peers := a.ClockOffset(map[string]bool{b.ID(): true, "another": true})
		return peers == 1 && (ahead+time.Minute).Abs() < time.Second
	})
	if ahead, peers := a.ClockOffset(nil); ahead != 0 || peers != 0 {
		t.Errorf("%v by %d members that do not count", ahead, peers)
	}
}

func TestMedian(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	for _, c := range []struct {
		ahead []time.Duration // of its own clock against each peer's
		want  time.Duration
	}{
		{nil, 0},
		{[]time.Duration{time.Hour}, time.Hour},
		{[]time.Duration{0, -time.Hour}, 0}, // one of three is wrong, and it is not this one
		{[]time.Duration{time.Hour, time.Hour}, time.Hour},
		{[]time.Duration{time.Second, 0, -time.Hour}, 0},
		{[]time.Duration{time.Minute, time.Minute + 1, time.Hour, -time.Hour, time.Minute}, time.Minute},
	} {
		var k clocks
		k.init()
		of := map[string]bool{"slow": true, "short": true}
		k.note("of no account", now, 0, clockPayload(now.Add(-24*time.Hour)))
		for i, d := range c.ahead {
			of[fmt.Sprint(i)] = true
			k.note(fmt.Sprint(i), now, 0, clockPayload(now.Add(-d)))
		}
		k.note("slow", now, time.Second, clockPayload(now.Add(-time.Hour)))
		k.note("short", now, 0, []byte{1, 2})
		if got, n := k.ahead(now, of); got != c.want || n != len(c.ahead) {
			t.Errorf("%v: ahead %v of %d peers", c.ahead, got, n)
		}
		if _, n := k.ahead(now.Add(time.Hour), of); n != 0 {
			t.Errorf("%d old measurements count", n)
		}
	}
}

func FuzzNews(f *testing.F) {
	b, _ := proto.Marshal(&clusterv1.News{Shards: []*clusterv1.Shard{{Id: 1, Epoch: 2, Owner: make([]byte, 16)}}})
	f.Add(b)
	f.Add([]byte{0xff})
	heard := 0
	m := &Membership{
		config: Config{Log: slog.New(slog.DiscardHandler), Listener: Listener{News: func(*clusterv1.News) { heard++ }}},
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		delegate{&run{m: m}}.hear(b)
		m.clocks.init()
		m.clocks.note("x", time.Unix(1, 0), 0, b)
	})
}

// FuzzMember: whatever a process says of itself, and answers to probes, it is refused, or is listed until it leaves.
// Nobody else is listed in its place, and this member's own clock is compared with nothing that is not a time.
func FuzzMember(f *testing.F) {
	meta := func(m *clusterv1.Meta) []byte {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	f.Add("b", meta(&clusterv1.Meta{}), clockPayload(time.Unix(1, 0)), int64(time.Millisecond))
	f.Add("b/1", meta(&clusterv1.Meta{
		Incarnation: make([]byte, 16), NodeAddress: "127.0.0.1:7947", Roles: []clusterv1.Role{1, 99}, Capacity: -1,
		ClusterId: make([]byte, 16), Draining: true, Unreachable: true,
	}), []byte{1}, int64(time.Second))
	f.Add("", []byte{0xff}, []byte{}, int64(-1))
	c := quick("a")
	c.JoinEvery, c.SyncEvery, c.ProbeEvery = time.Hour, time.Hour, time.Hour
	m, err := Start(c)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = m.Abandon() })
	own := m.ID()
	f.Fuzz(func(t *testing.T, name string, meta, payload []byte, rtt int64) {
		n := &memberlist.Node{
			Name: name, Addr: net.IPv4(192, 0, 2, 1), Port: 7946, Meta: meta,
			PMin: protocolVersion, PMax: protocolVersion, PCur: protocolVersion,
			DMin: delegateVersion, DMax: delegateVersion, DCur: delegateVersion,
		}
		d := delegate{m.run()}
		if name == own {
			return
		}
		_ = d.NotifyAlive(n) // Refused or not: memberlist would go on only without an error.
		d.NotifyJoin(n)
		d.NotifyPingComplete(n, time.Duration(rtt), payload)
		listed := 0
		for _, o := range m.Members() {
			if o.ID == name {
				listed++
			} else if o.ID != own {
				t.Errorf("%q is listed as %q", name, o.ID)
			}
		}
		if listed != 1 {
			t.Errorf("%q is listed %d times", name, listed)
		}
		d.NotifyLeave(n)
		if len(m.Members()) != 1 {
			t.Errorf("members after %q left: %v", name, m.Members())
		}
	})
}

func TestLogLevels(t *testing.T) {
	var b strings.Builder
	l := logger(slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelInfo})))
	l.Print("[DEBUG] memberlist: noise")
	l.Print("[ERR] memberlist: trouble")
	if got := b.String(); strings.Contains(got, "noise") ||
		!strings.Contains(got, "level=WARN msg=\"memberlist: trouble\"") {
		t.Errorf("logged %q", got)
	}
}
