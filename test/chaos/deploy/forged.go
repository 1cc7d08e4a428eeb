package deploy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"licensed/internal/forge"
	"licensed/messages/clusterv1"
	"licensed/persistence"
	"licensed/test/chaos/fault"
)

// What the members of a cluster gossip by.
const (
	gossipPort = "7946"
	nodePort   = "7947"
	label      = "licensed" // the default name of a cluster
	shardCount = 64
)

// heard is what an intruder overheard, and whom it sends to.
type heard struct {
	from      *intruder
	forgers   []*forge.Forger
	ids       []string // of the members, in order
	metas     map[string]*clusterv1.Meta
	addresses map[string]string
	epochs    map[uint32]uint64 // of shards, as a gateway says
}

// forgery is something that an intruder gossips.
type forgery struct {
	name string
	// send sends it once to all members. Nil: begin does all.
	send func(r *rand.Rand, h *heard) error
	// begin prepares for send, or starts what continues until end is called. Nil: there is nothing to prepare. End
	// may be nil.
	begin func(ctx context.Context, h *heard) (end func() error, err error)
	// after checks the deployment when the last message was sent. Nothing else is done to any member meanwhile. Nil:
	// no check.
	after func(ctx context.Context) error
	// also are further targets, see fault.Fault.
	also []string
}

// forgeries are the kinds of forged gossip. All of them are sent again and again while the fault holds.
func (c *Cluster) forgeries() []forgery {
	v := &visitor{cluster: c}
	return []forgery{
		{name: "forged deaths", send: func(_ *rand.Rand, h *heard) error {
			var all []persistence.Incarnation
			for _, id := range h.ids {
				var i persistence.Incarnation
				if copy(i[:], h.metas[id].GetIncarnation()) == len(i) {
					all = append(all, i)
				}
			}
			return h.each(func(f *forge.Forger) error { return f.Dead(append(all, persistence.NewIncarnation())...) })
		}},
		// No cluster reaches these epochs.
		{name: "forged rows", send: func(r *rand.Rand, h *heard) error {
			return h.rows(func(uint32) uint64 { return math.MaxUint64 - uint64(r.IntN(2)) })
		}},
		// A shard can have these epochs: they are 1 to 1000 above those in the store.
		{name: "forged plausible rows", also: c.everything(), after: v.awaitAll,
			begin: func(ctx context.Context, h *heard) (func() error, error) {
				s, err := v.status(ctx)
				h.epochs = map[uint32]uint64{}
				for _, shard := range s.GetShardMap() {
					h.epochs[shard.Id] = shard.Epoch
				}
				return nil, err
			}, send: func(r *rand.Rand, h *heard) error {
				return h.rows(func(id uint32) uint64 { return h.epochs[id] + 1 + uint64(r.IntN(1000)) })
			}},
		{name: "forged address", send: func(_ *rand.Rand, h *heard) error {
			return h.members(func(meta *clusterv1.Meta) string {
				meta.NodeAddress = net.JoinHostPort(h.from.address, nodePort)
				return net.JoinHostPort(h.from.address, gossipPort)
			})
		}},
		{name: "forged meta", send: func(_ *rand.Rand, h *heard) error {
			return h.members(func(meta *clusterv1.Meta) string {
				meta.NodeAddress = net.JoinHostPort(h.from.address, nodePort)
				return ""
			})
		}},
		{name: "forged departures", send: func(_ *rand.Rand, h *heard) error {
			return h.each(func(f *forge.Forger) (err error) {
				for _, id := range h.ids {
					err = errors.Join(err, f.Gone(id))
				}
				return err
			})
		}},
		{name: "forged clocks", begin: func(ctx context.Context, h *heard) (end func() error, err error) {
			metas := map[string]*clusterv1.Meta{}
			for n := range 5 {
				meta := proto.CloneOf(h.metas[h.ids[0]])
				i := persistence.NewIncarnation()
				meta.Incarnation, meta.NodeAddress = i[:], net.JoinHostPort(h.from.address, nodePort)
				metas[fmt.Sprintf("stranger-%d", n+1)] = meta
			}
			err = h.from.within(func() error {
				end, err = h.forgers[0].Clocks(ctx, h.from.address, time.Hour, metas)
				return err
			})
			return end, err
		}},
	}
}

// rows tells every member that each shard belongs to an unknown process, at the epoch that is returned for it.
func (h *heard) rows(epoch func(id uint32) uint64) error {
	rows := make([]persistence.Shard, shardCount)
	for id := range rows {
		rows[id] = persistence.Shard{ID: uint32(id), Epoch: epoch(uint32(id)), Owner: persistence.NewIncarnation()}
	}
	return h.each(func(f *forge.Forger) error { return f.Rows(rows...) })
}

// each sends to every member.
func (h *heard) each(send func(*forge.Forger) error) (err error) {
	for _, f := range h.forgers {
		err = errors.Join(err, send(f))
	}
	return err
}

// members tells every member that each of the others is what forged makes of what it says of itself, at the address for
// gossip that forged returns; empty: its own.
func (h *heard) members(forged func(*clusterv1.Meta) string) error {
	return h.each(func(f *forge.Forger) (err error) {
		for _, id := range h.ids {
			meta := proto.CloneOf(h.metas[id])
			address := forged(meta)
			if address == "" {
				address = h.addresses[id]
			}
			err = errors.Join(err, f.Alive(forge.Alive{Name: id, Gossip: address, Meta: meta}))
		}
		return err
	})
}

// overhear joins the gossip of a member, and prepares to send to all.
func (i *intruder) overhear(members []*server) (*heard, error) {
	h := &heard{from: i}
	for _, m := range members {
		f, err := forge.From(i.dial, net.JoinHostPort(m.host, gossipPort), label)
		if err != nil {
			return nil, errors.Join(err, h.close())
		}
		h.forgers = append(h.forgers, f)
	}
	var err error
	for _, f := range h.forgers { // The first that answers knows all.
		if err = i.within(func() (err error) {
			h.metas, h.addresses, err = f.Overhear(i.address)
			return err
		}); err == nil && len(h.metas) > 0 {
			h.ids = slices.Sorted(maps.Keys(h.metas))
			return h, nil
		}
	}
	if err == nil {
		err = errors.New("members that answer list nobody")
	}
	return nil, errors.Join(err, h.close())
}

func (h *heard) close() error { return h.each((*forge.Forger).Close) }

// forgeEvery is the time between two sendings of a forgery.
const forgeEvery = 200 * time.Millisecond

// forgedKind sends forged gossip to all members while it holds. The cluster has no gossip key: with one, nothing of
// this would be heard.
func forgedKind(from *intruder, members []*server, what forgery, ttl time.Duration) fault.Kind {
	weight := 1
	if what.after != nil {
		weight = 3 // Something else is often being done to a member when its turn comes.
	}
	return fault.Kind{Name: what.name, Weight: weight, Make: func(r *rand.Rand) *fault.Fault {
		random := rand.New(rand.NewPCG(r.Uint64(), 0))
		var (
			h      *heard
			end    func() error
			cancel context.CancelFunc
			served time.Duration // after the last message
			sent   atomic.Int64
			failed atomic.Pointer[error]
			sender sync.WaitGroup
		)
		return &fault.Fault{
			Kind:    what.name,
			Targets: []string{"gossip"},
			Also:    what.also,
			Hold:    2*ttl + time.Duration(r.Int64N(int64(3*ttl))),
			Inject: func(ctx context.Context) (err error) {
				if h, err = from.overhear(members); err != nil {
					return fmt.Errorf("no member can be overheard: %w: %w", err, fault.ErrIdle)
				}
				if what.begin != nil {
					if end, err = what.begin(ctx, h); err != nil {
						return err
					}
				}
				ctx, cancel = context.WithCancel(context.WithoutCancel(ctx))
				sender.Go(func() {
					for ctx.Err() == nil {
						if what.send != nil {
							if err := what.send(random, h); err != nil {
								failed.Store(&err) // A member that is down refuses packets: the others hear.
							}
						}
						sent.Add(1)
						select {
						case <-ctx.Done():
						case <-time.After(forgeEvery):
						}
					}
				})
				return nil
			},
			Heal: func(ctx context.Context) (err error) {
				if cancel != nil {
					cancel()
				}
				sender.Wait()
				if end != nil {
					err = end()
				}
				if h != nil {
					err = errors.Join(err, h.close())
				}
				if h != nil && what.after != nil {
					began := time.Now()
					err = errors.Join(err, what.after(ctx))
					served = time.Since(began)
				}
				return err
			},
			Came: func() fault.Effect {
				if h == nil {
					return fault.Effect{Idle: true}
				}
				text := fmt.Sprintf("sent %d times to %d members, of which %d were known",
					sent.Load(), len(h.forgers), len(h.ids))
				if what.after != nil {
					text += fmt.Sprintf("; all shards were served %v after the last one",
						served.Round(10*time.Millisecond))
				}
				if err := failed.Load(); err != nil {
					text += fmt.Sprintf("; last error: %v", *err)
				}
				return fault.Effect{Text: text, Idle: sent.Load() == 0}
			},
		}
	}}
}
