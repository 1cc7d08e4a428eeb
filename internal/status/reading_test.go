package status

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"licensed/cluster/membership"
	"licensed/cluster/routing"
	"licensed/internal/clusterstatus"
	"licensed/internal/payload"
	"licensed/messages/clusterv1"
	"licensed/messages/licensedv1"
	"licensed/persistence"
)

// TestAnswers: the result for a member that does not answer, one whose answer cannot be read, and one that answers.
func TestAnswers(t *testing.T) {
	i := persistence.NewIncarnation()
	m := membership.Member{Name: "n1", Meta: &clusterv1.Meta{
		Incarnation: i[:], NodeAddress: "10.0.0.1:7947", Version: "v9",
		Roles: []clusterv1.Role{clusterv1.Role_ROLE_NODE},
	}}
	silent := answerOf(&routing.Status{Member: m, Err: fmt.Errorf("no answer")})
	if silent.Self != nil || silent.Incarnation != i || silent.Listed.Incarnation != i.String() ||
		silent.Listed.Roles[0] != licensedv1.NodeRole_NODE_ROLE_NODE {
		t.Errorf("%v", silent)
	}
	for _, self := range []*clusterv1.Payload{
		nil, {Type: "licensed.v2.NodeStatus"}, {Type: "licensed.v1.NodeStatus", Data: []byte{0xff}},
	} {
		a := answerOf(&routing.Status{Member: m, Response: &clusterv1.StatusResponse{Self: self}})
		if a.Self != nil || !strings.HasPrefix(a.Cause, "unreadable") || a.Incarnation != i {
			t.Errorf("%v: %+v", self, a)
		}
	}
	other := persistence.NewIncarnation()
	now := answerOf(&routing.Status{Member: m, Response: &clusterv1.StatusResponse{
		Self: &clusterv1.Payload{Type: "licensed.v1.NodeStatus"},
		Held: &clusterv1.HeldShards{Incarnation: other[:], Ids: []uint32{1, 2}, Epochs: []uint64{5}},
	}})
	want := []clusterstatus.Held{{Shard: 1, Epoch: 5}}
	if now.Self == nil || now.Incarnation != other || !slices.Equal(now.Holds, want) {
		t.Errorf("%v", now)
	}
}

// TestDeparturesAreShared: a gateway that started after a node disappeared learns of it, and a process that heard the
// node's last message is believed.
func TestDeparturesAreShared(t *testing.T) {
	i, now := persistence.NewIncarnation(), time.Unix(1000, 0)
	meta := func(draining bool) *clusterv1.Meta { return &clusterv1.Meta{Incarnation: i[:], Draining: draining} }
	all := map[string]Departure{"n1": {Member: membership.Member{Name: "n1", Meta: meta(false)}, At: now}}
	addDepartures(all, []*clusterv1.Departed{
		{Name: "n1", Meta: meta(true)}, {Name: "n2", Meta: meta(false), AgoMicros: 5e6}, {Name: "n3"},
	}, now)
	if !all["n1"].Meta.GetDraining() || all["n2"].Meta.GetDraining() || len(all) != 3 ||
		!all["n2"].At.Equal(now.Add(-5*time.Second)) {
		t.Errorf("%v", all)
	}
	addDepartures(all, []*clusterv1.Departed{{Name: "n1", Meta: meta(false)}}, now)
	other := persistence.NewIncarnation()
	successor := &clusterv1.Meta{Incarnation: other[:], Draining: true}
	addDepartures(all, []*clusterv1.Departed{{Name: "n2", Meta: successor}}, now)
	if !all["n1"].Meta.GetDraining() || all["n2"].Meta.GetDraining() {
		t.Errorf("%v", all)
	}
}

// TestStatusOfUnlistedMembers: whatever gossip lists and whatever members heard of departures, a process that answers
// is running and serves what it holds, and one that does not answer is not called running.
func TestStatusOfUnlistedMembers(t *testing.T) {
	for seed := range uint64(5_000) {
		random := rand.New(rand.NewPCG(seed, 7))
		w := newUnlisted(random)
		s := clusterstatus.Assess(w.read())
		byName := map[string]*licensedv1.NodeStatus{}
		for _, n := range s.Nodes {
			byName[n.Name] = n
		}
		var served uint32
		for _, p := range w.processes {
			n := byName[p.name]
			switch {
			case p.running && (n == nil || n.State != licensedv1.NodeState_NODE_STATE_READY):
				t.Errorf("%s runs, and is %v", p.name, n)
			case !p.running && n != nil && n.State == licensedv1.NodeState_NODE_STATE_READY:
				t.Errorf("%s does not answer, and is ready", p.name)
			}
			if p.running {
				served += uint32(len(p.holds))
			}
			for _, finding := range s.Warnings {
				text := finding.Text
				if p.running && (finding.Node == p.name || strings.Contains(text, p.name+" not responding") ||
					strings.Contains(text, p.name+" since")) {
					t.Errorf("%s runs: %v", p.name, finding)
				}
			}
		}
		if s.ShardsServed != served {
			t.Errorf("%d shards are served, %d are held", s.ShardsServed, served)
		}
		if t.Failed() {
			t.Fatalf("seed %d: %v", seed, s)
		}
	}
}

// unlisted are processes of which gossip lists any.
type unlisted struct {
	random    *rand.Rand
	processes []*process
	shards    uint32
}

type process struct {
	name            string
	incarnation     persistence.Incarnation
	running, listed bool
	holds           []uint32
}

func newUnlisted(random *rand.Rand) *unlisted {
	w := &unlisted{random: random, shards: 12}
	for k := range 1 + random.IntN(5) {
		w.processes = append(w.processes, &process{
			name: fmt.Sprint("n", k), incarnation: persistence.NewIncarnation(),
			running: random.IntN(3) > 0, listed: random.IntN(2) > 0,
		})
	}
	for id := range w.shards {
		p := w.processes[random.IntN(len(w.processes))]
		p.holds = append(p.holds, id)
	}
	return w
}

func (w *unlisted) member(p *process) membership.Member {
	return membership.Member{Name: p.name, Meta: &clusterv1.Meta{
		Incarnation: p.incarnation[:], Roles: []clusterv1.Role{clusterv1.Role_ROLE_NODE},
		Draining: !p.listed && w.random.IntN(3) == 0,
	}}
}

// ask returns the answer of a process. An unknown process may answer at its address.
func (w *unlisted) ask(p *process) routing.Status {
	s := routing.Status{Member: w.member(p)}
	switch {
	case !p.running && !p.listed && w.random.IntN(4) == 0:
		s.Response = &clusterv1.StatusResponse{Name: "stranger"}
	case !p.running:
		s.Err = errors.New("connection refused")
	default:
		held := &clusterv1.HeldShards{Incarnation: p.incarnation[:], Ids: p.holds}
		for range p.holds {
			held.Epochs = append(held.Epochs, 5)
		}
		name, data, err := payload.Codec{}.Marshal(&licensedv1.NodeStatus{
			Name: p.name, Incarnation: p.incarnation.String(), State: licensedv1.NodeState_NODE_STATE_READY,
			Roles: []licensedv1.NodeRole{licensedv1.NodeRole_NODE_ROLE_NODE},
			Lease: &licensedv1.LeaseStatus{Remaining: durationpb.New(time.Second)},
		})
		if err != nil {
			panic(err)
		}
		s.Response = &clusterv1.StatusResponse{
			Name: p.name, Held: held, Self: &clusterv1.Payload{Type: name, Data: data},
		}
		for _, o := range w.processes { // What it heard of others, some of it forged.
			if w.random.IntN(3) == 0 {
				s.Response.Departed = append(s.Response.Departed, &clusterv1.Departed{
					Name: o.name, Meta: w.member(o).Meta, AgoMicros: w.random.Int64N(1e9),
				})
			}
		}
	}
	return s
}

// read makes a reading: of the listed, and then of all others, which departed or own shards.
func (w *unlisted) read() *clusterstatus.Input {
	r := NewReading(clusterstatus.Input{Name: "any", Reporter: "g", Now: time.Unix(1e9, 0), Shards: w.shards}, nil)
	var listed, others []routing.Status
	for _, p := range w.processes {
		for _, id := range p.holds {
			r.Rows = append(r.Rows, persistence.Shard{ID: id, Epoch: 5, Owner: p.incarnation})
		}
		if p.listed {
			listed = append(listed, w.ask(p))
			continue
		}
		others = append(others, w.ask(p))
		if w.random.IntN(2) == 0 {
			r.Departures[p.name] = Departure{Member: w.member(p), At: r.Now.Add(-time.Minute)}
		}
	}
	r.Hear(listed, true)
	r.Hear(others, false)
	return r.Complete()
}
