package membership

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
	"google.golang.org/protobuf/proto"

	"licensed/messages/clusterv1"
)

// rowsOf returns news of n rows from the first id on, as after a node claimed shards.
func rowsOf(first, n uint32) *clusterv1.News {
	news := &clusterv1.News{}
	for id := range n {
		news.Shards = append(news.Shards,
			&clusterv1.Shard{Id: first + id, Epoch: 7, Owner: make([]byte, 16), Successor: make([]byte, 16)})
	}
	return news
}

func TestPartsAreSmallAndWhole(t *testing.T) {
	if parts := split(&clusterv1.News{}); len(parts) != 0 {
		t.Errorf("%d parts of nothing", len(parts))
	}
	news := rowsOf(60_000, 500)
	for i := range 100 {
		news.Dead = append(news.Dead, fmt.Appendf(nil, "%016d", i))
	}
	got := &clusterv1.News{}
	for _, part := range split(news) {
		if len(part) > maxPart {
			t.Errorf("a part of %d bytes", len(part))
		}
		if err := (proto.UnmarshalOptions{Merge: true}).Unmarshal(part, got); err != nil {
			t.Fatal(err)
		}
	}
	if !proto.Equal(got, news) {
		t.Error("the parts are not the whole")
	}
	large := &clusterv1.News{Dead: [][]byte{make([]byte, 2*maxPart)}}
	if parts := split(large); len(parts) != 1 {
		t.Errorf("%d parts of a large death", len(parts))
	}
	// What a later release added is not lost.
	later := rowsOf(1, 20)
	later.ProtoReflect().SetUnknown([]byte{0xfa, 0x3f, 2, 'h', 'i'}) // field 1023
	for _, part := range split(later) {
		n := &clusterv1.News{}
		if err := proto.Unmarshal(part, n); err != nil || len(n.ProtoReflect().GetUnknown()) != 5 ||
			len(part) > maxPart {
			t.Errorf("a part of %d bytes lacks the unknown field: %v", len(part), err)
		}
	}
}

// TestPartsAreForwardedOnce: and so they die out. Own parts are not forwarded when others send them back.
func TestPartsAreForwardedOnce(t *testing.T) {
	r := newRumours(func() int { return 50 })
	own, other := []byte("own"), []byte("other")
	r.start(own)
	for range 3 {
		r.forward(own)
		r.forward(other)
	}
	r.forward(make([]byte, maxPart+1))
	if n := r.queue.NumQueued(); n != 2 {
		t.Fatalf("%d parts are queued", n)
	}
	for sent := 0; r.queue.NumQueued() > 0; sent++ {
		if sent > 12 {
			t.Fatalf("%d packets carried a part", sent)
		}
		r.queue.GetBroadcasts(3, 1400)
		r.forward(other)
	}
	for i := range 2 * rememberedParts {
		r.forward(fmt.Appendf(nil, "%d", i))
	}
	if n, m := r.queue.NumQueued(), r.heard.Len(); n != keptParts || m != rememberedParts {
		t.Errorf("%d parts are queued, %d remembered", n, m)
	}
	if r.drop(); r.queue.NumQueued() != 0 {
		t.Error("parts are left")
	}
	r.drop()
}

// simulated is a member with memberlist's own queues: as it sends them, its messages first, then parts of news.
type simulated struct {
	own     memberlist.TransmitLimitedQueue // memberlist's messages about members
	rumours *rumours
	known   map[string]bool // memberlist's messages that were taken over
	heard   map[string]int  // the round in which a part was heard first
}

// named is a message of memberlist about a member.
type named struct {
	broadcast
	name string
}

func (n named) Name() string { return n.name }

// simulation is gossip in rounds: what is sent in one is heard after it.
type simulation struct {
	random  *rand.Rand
	members []*simulated
	round   int
	bytes   int
	lossy   float64 // share of packets that are lost
}

func newSimulation(members int, seed uint64) *simulation {
	s := &simulation{random: rand.New(rand.NewPCG(seed, 0))}
	count := func() int { return members }
	for range members {
		m := &simulated{rumours: newRumours(count), known: map[string]bool{}, heard: map[string]int{}}
		m.own.NumNodes, m.own.RetransmitMult = count, memberlist.DefaultLANConfig().RetransmitMult
		s.members = append(s.members, m)
	}
	return s
}

// spread has a member spread news. It returns the parts.
func (s *simulation) spread(from int, news *clusterv1.News) []string {
	var parts []string
	for _, part := range split(news) {
		m := s.members[from]
		m.rumours.start(part)
		m.heard[string(part)] = s.round
		parts = append(parts, string(part))
	}
	return parts
}

// meta has memberlist announce a member anew.
func (s *simulation) meta(of int) {
	s.members[of].announce(fmt.Appendf(make([]byte, 0, 200), "%d %-180d", of, s.round))
}

func (m *simulated) announce(message []byte) {
	if !m.known[string(message)] {
		m.known[string(message)] = true
		name, _, _ := bytes.Cut(message, []byte(" "))
		m.own.QueueBroadcast(named{broadcast(message), string(name)})
	}
}

// step is one round: every member sends a packet of 1,400 bytes at most to three others.
func (s *simulation) step() {
	const packet, overhead, peers = 1400 - 2 - 10, 2, 3 // without the header and a label
	type sent struct {
		to         int
		own, parts [][]byte
	}
	var all []sent
	for from, m := range s.members {
		to := map[int]bool{from: true}
		for range peers {
			k := s.random.IntN(len(s.members))
			for to[k] {
				k = s.random.IntN(len(s.members))
			}
			to[k] = true
			free := packet
			own := m.own.GetBroadcasts(overhead, free)
			for _, b := range own {
				free -= len(b) + overhead
			}
			parts := m.rumours.queue.GetBroadcasts(overhead+1, free)
			for _, b := range parts {
				free -= len(b) + overhead + 1
			}
			if s.bytes += packet - free; free == packet {
				break
			}
			if s.random.Float64() >= s.lossy {
				all = append(all, sent{k, own, parts})
			}
		}
	}
	s.round++
	for _, p := range all {
		m := s.members[p.to]
		for _, b := range p.own {
			m.announce(b)
		}
		for _, b := range p.parts {
			if _, known := m.heard[string(b)]; !known {
				m.heard[string(b)] = s.round
			}
			m.rumours.forward(b)
		}
	}
}

// reached returns the number of members that heard all of these parts, and the round when the last of them did.
func (s *simulation) reached(parts []string) (members, last int) {
	for _, m := range s.members {
		if !slices.ContainsFunc(parts, func(p string) bool {
			at, ok := m.heard[p]
			last = max(last, at)
			return !ok
		}) {
			members++
		}
	}
	return members, last
}

// TestNewsReachAllOfAThousand simulates gossip with the queues that run: 16 rows from one member reach all others
// within few rounds of 100 ms, and die out.
func TestNewsReachAllOfAThousand(t *testing.T) {
	for _, c := range []struct {
		name    string
		members int
		metas   int // members that change theirs in each round
		rows    int // other rows that are spread in each round
		lossy   float64
		rounds  int // at most
	}{
		{"at rest", 1000, 0, 0, 0, 12},
		{"a tenth of all packets is lost", 1000, 0, 0, 0.1, 14},
		{"while shards move", 1000, 0, 2, 0, 20},
		{"while members come and go", 1000, 1, 2, 0, 40},
		{"at rest", 50, 0, 0, 0, 12},
		{"while shards move", 50, 0, 4, 0, 20},
		{"while members come and go", 50, 1, 4, 0, 30},
	} {
		t.Run(fmt.Sprint(c.members, " ", c.name), func(t *testing.T) {
			s := newSimulation(c.members, 1)
			s.lossy = c.lossy
			load := func() {
				for range c.metas {
					s.meta(s.random.IntN(c.members))
				}
				for i := range c.rows {
					s.spread(s.random.IntN(c.members), rowsOf(uint32(1_000_000+s.round*100+i), 1))
				}
			}
			for range 12 { // until the load is as it stays
				load()
				s.step()
			}
			began, before := s.round, s.bytes
			parts := s.spread(0, rowsOf(1, 16))
			members, last := 0, 0
			for members < c.members {
				if s.round-began >= c.rounds {
					t.Fatalf("%d of %d others heard all of it in %d rounds", members-1, c.members-1, c.rounds)
				}
				load()
				s.step()
				members, last = s.reached(parts)
			}
			t.Logf("%d of %d others heard all of it after %d rounds; %d bytes per member and round",
				members-1, c.members-1, last-began, (s.bytes-before)/(s.round-began)/c.members)
		})
	}
}

// TestNewsDieOut: what all have heard is not sent forever.
func TestNewsDieOut(t *testing.T) {
	s := newSimulation(100, 1)
	s.spread(0, rowsOf(1, 16))
	for range 1000 {
		before := s.bytes
		if s.step(); s.bytes == before {
			t.Logf("gossip ended after %d rounds", s.round)
			return
		}
	}
	t.Error("gossip does not end")
}

// TestNewsReachAllOfFifty has 50 members on the loopback network, of which ten spread other news all the time.
// They hear of rows within the rounds of two seconds on an idle machine, doubled. Rounds are counted and not time: a
// machine may stall, and all members with it. On average one publication in 200 misses somebody, so there is a second
// one. Members that forward nothing leave most others without the news, whatever the time.
func TestNewsReachAllOfFifty(t *testing.T) {
	const members, rows, publications, patience = 50, 16, 2, 40
	var mu sync.Mutex
	missing := map[string]map[uint32]bool{}
	all := make([]*Membership, members)
	for k := range all {
		c := DefaultConfig()
		c.Name, c.Bind, c.Label, c.Log = fmt.Sprintf("n%02d", k), "127.0.0.1:0", "test", quiet
		c.JoinEvery, c.SyncEvery = 100*time.Millisecond, 2*time.Second // News come only by gossip: nobody has a state.
		// On a machine that stalls, all would suspect each other.
		c.ProbeEvery = time.Hour
		c.Meta = &clusterv1.Meta{Incarnation: make([]byte, 16), NodeAddress: "127.0.0.1:7947", Version: "1"}
		c.Listener.News = func(news *clusterv1.News) {
			mu.Lock()
			defer mu.Unlock()
			for _, s := range news.Shards {
				if delete(missing[c.Name], s.Id); len(missing[c.Name]) == 0 {
					delete(missing, c.Name)
				}
			}
		}
		if k > 0 {
			c.Join = []string{all[0].Address()}
			want := map[uint32]bool{}
			for id := range uint32(rows) {
				want[1+id] = true
			}
			mu.Lock()
			missing[c.Name] = want
			mu.Unlock()
		}
		all[k] = start(t, c)
	}
	for _, m := range all {
		until("full list", t, func() bool { return len(m.Members()) == members })
	}
	nobody := func(Member) bool { return false }
	over := make(chan struct{})
	var load sync.WaitGroup
	defer load.Wait()
	defer close(over)
	load.Go(func() {
		for id := uint32(1000); ; id += 10 {
			select {
			case <-over:
				return
			case <-time.After(100 * time.Millisecond):
				for k := range uint32(10) {
					all[k*4].Spread(rowsOf(id+k, 1), nobody)
				}
			}
		}
	})
	began := time.Now()
	for publication := 1; ; publication++ {
		all[0].Spread(rowsOf(1, rows), nobody)
		for round := range patience {
			mu.Lock()
			left := len(missing)
			mu.Unlock()
			if left == 0 {
				t.Logf("publication %d: all others heard all of it after %d rounds, %v in all",
					publication, round, time.Since(began))
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
		if publication == publications {
			t.Fatalf("%d of %d others miss news that were published %d times", len(missing), members-1, publications)
		}
	}
}
