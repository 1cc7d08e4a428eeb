package routing

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"licensed/actors"
	"licensed/cluster"
	"licensed/cluster/membership"
	"licensed/cluster/shardmap"
	"licensed/cluster/transport"
	"licensed/messages/clusterv1"
	"licensed/persistence"
)

// town is a few owners behind connections that break, between which one shard after the other moves. It
// executes a command once, as owners do by their window of ids, and knows which.
type town struct {
	mu       sync.Mutex
	rows     []persistence.Shard
	executed map[string]int // how often, by id
}

// owner is one of them.
type owner struct {
	*town
	name string
}

func (o owner) Execute(ctx context.Context, _, id string, c actors.Command) (actors.Reply, error) {
	if rand.IntN(10) == 0 {
		time.Sleep(time.Millisecond)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	row := o.rows[cluster.ShardOf(id+":Kind", shards)]
	switch {
	case row.Owner != incarnation(o.name):
		return actors.Reply{}, &cluster.NotOwnerError{Row: row}
	case ctx.Err() != nil:
		return actors.Reply{}, actors.ErrExpired
	case rand.IntN(50) == 0:
		return actors.Reply{}, actors.ErrOverloaded
	}
	duplicate := o.executed[c.ID] > 0
	if !duplicate {
		o.executed[c.ID]++
	}
	if rand.IntN(50) == 0 {
		return actors.Reply{}, actors.ErrUnknownOutcome
	}
	return actors.Reply{Duplicate: duplicate}, nil
}

func (owner) Query(context.Context, string, string, any) (actors.Answer, error) {
	return actors.Answer{}, nil
}
func (owner) Operate(context.Context, string, string, any) (actors.Answer, error) {
	return actors.Answer{}, nil
}
func (owner) Status(context.Context) (*clusterv1.StatusResponse, error) { return nil, nil }
func (owner) Drain(context.Context) error                               { return nil }
func (owner) Undrain(context.Context) error                             { return nil }

// noCodec is for commands without a payload.
type noCodec struct{}

func (noCodec) Marshal(any) (string, []byte, error)   { return "", nil, nil }
func (noCodec) Unmarshal(string, []byte) (any, error) { return nil, nil }

func (noCodec) UnmarshalRequest(string, []byte) (any, error) { return nil, nil }

func startTransport(t *testing.T, h transport.Handler) *transport.Transport {
	c := transport.DefaultConfig()
	c.Cluster, c.Bind, c.Handler, c.Codec, c.Log = "test", "127.0.0.1:0", h, noCodec{}, slog.New(slog.DiscardHandler)
	tr, err := transport.Start(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tr.Close(context.Background()) })
	return tr
}

// brittle passes connections on, and breaks each after a while: at any byte, in both directions.
func brittle(t *testing.T, to string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
				go func() {
					_, _ = io.CopyN(way[1], way[0], 200+rand.Int64N(4_000))
					in.Close()
					out.Close()
				}()
			}
		}
	}()
	return l.Addr().String()
}

// TestOutcomesAreTrue sends commands through real connections that break all the time, while shards move,
// and compares what the router told with what was executed: what is acknowledged was executed, and what is
// told to be not executed was not, nor is it later.
func TestOutcomesAreTrue(t *testing.T) {
	names := []string{"a", "b", "c"}
	d := &town{rows: make([]persistence.Shard, shards), executed: map[string]int{}}
	for id := range d.rows {
		d.rows[id] = persistence.Shard{ID: uint32(id), Epoch: 1, Owner: incarnation(names[id%3])}
	}
	var members []membership.Member
	var owners []*transport.Transport
	for k, n := range names {
		owners = append(owners, startTransport(t, owner{d, n}))
		i, address := incarnation(n), brittle(t, owners[k].Address())
		members = append(members,
			membership.Member{Name: n, Meta: &clusterv1.Meta{Incarnation: i[:], NodeAddress: address}})
	}
	c := DefaultConfig()
	c.Name = "gateway"
	c.Kind = "Kind"
	c.Map = shardmap.New(shards)
	c.Leases = &leases{}
	c.Transport = startTransport(t, nil)
	r, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	r.SetMembers(members)

	told := map[string]error{}
	var mu sync.Mutex
	var clients sync.WaitGroup
	for worker := range 32 {
		clients.Go(func() {
			for i := range 60 {
				id := fmt.Sprint(worker, "-", i)
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(2+rand.IntN(500))*time.Millisecond)
				_, err := r.Execute(ctx, fmt.Sprint("id", rand.IntN(100)), actors.Command{ID: id})
				cancel()
				mu.Lock()
				told[id] = err
				mu.Unlock()
			}
		})
	}
	stop := make(chan struct{})
	var mover sync.WaitGroup
	mover.Go(func() { d.move(names, r, stop) })
	clients.Wait()
	close(stop)
	mover.Wait()
	for k, m := range members {
		// Whatever is queued for the owner is written before this is answered, or never.
		for err := actors.ErrUnknownOutcome; errors.Is(err, actors.ErrUnknownOutcome) ||
			errors.Is(err, transport.ErrNotSent); {
			_, err = c.Transport.Execute(t.Context(), m.Meta.NodeAddress, "Kind", "id", actors.Command{ID: "last"})
		}
		if err := owners[k].Close(t.Context()); err != nil { // it waits for what it has begun
			t.Error(err)
		}
	}

	d.mu.Lock()
	defer d.mu.Unlock()
	sums := map[string]int{}
	for id, err := range told {
		n := d.executed[id]
		switch {
		case n > 1:
			t.Errorf("%s was executed %d times", id, n)
		case err == nil:
			sums["acknowledged"]++
			if n != 1 {
				t.Errorf("%s was acknowledged and not executed", id)
			}
		case errors.Is(err, actors.ErrUnknownOutcome):
			sums["unknown"]++
		default:
			sums["certain"]++
			if n != 0 {
				t.Errorf("%s was executed, and told to be not: %v", id, err)
			}
		}
	}
	t.Logf("%v", sums)
	if sums["acknowledged"] == 0 || sums["certain"] == 0 {
		t.Errorf("%v: nothing was shown", sums)
	}
}

// move gives shards to other owners, and tells of half of it.
func (d *town) move(names []string, r *Router, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(rand.IntN(3)) * time.Millisecond):
		}
		d.mu.Lock()
		row := &d.rows[rand.IntN(len(d.rows))]
		row.Epoch++
		row.Owner = incarnation(names[rand.IntN(len(names))])
		now := *row
		d.mu.Unlock()
		if rand.IntN(2) == 0 {
			r.config.Map.Hear(now)
		}
	}
}
