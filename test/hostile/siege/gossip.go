package siege

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"licensed/internal/forge"
	"licensed/messages/clusterv1"
	"licensed/messages/licensedv1"
	"licensed/persistence"
	"licensed/test/hostile"
)

// status returns what a gateway says of the cluster.
func (s *siege) status(ctx context.Context, g *member) (*licensedv1.ClusterStatus, error) {
	token, err := s.secrets.token("operator")
	if err != nil {
		return nil, err
	}
	client := s.client(s.visitor())
	defer client.CloseIdleConnections()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url(g, apiPort)+getCluster, strings.NewReader("{}"))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+token)
	res, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	body, err := read(res)
	if err != nil || res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status at %s: %s %s %w", g.name, res.Status, short(body), err)
	}
	out := &licensedv1.GetClusterResponse{}
	err = protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal([]byte(body), out)
	return out.Cluster, err
}

// disorder returns what is wrong with the cluster; empty if all members are ready, no other exists, and each shard is
// served by its owner.
func (s *siege) disorder(ctx context.Context) (string, error) {
	for _, g := range s.gateways() {
		status, err := s.status(ctx, g)
		if err != nil {
			return "", err
		}
		missing := make(map[string]bool)
		for _, m := range s.members {
			missing[m.name] = true
		}
		for _, n := range status.Nodes {
			if !missing[n.Name] {
				return fmt.Sprintf("%s knows the stranger %s", g.name, n.Name), nil
			}
			if delete(missing, n.Name); n.State != licensedv1.NodeState_NODE_STATE_READY {
				return fmt.Sprintf("%s says that %s is %v: %s", g.name, n.Name, n.State, n.Reason), nil
			}
		}
		if len(missing) > 0 {
			return fmt.Sprintf("%s does not know %v", g.name, slices.Sorted(maps.Keys(missing))), nil
		}
		served := uint32(0) // Counted, since earlier releases do not tell the sum.
		for _, shard := range status.ShardMap {
			if shard.State == licensedv1.ShardState_SHARD_STATE_OPEN {
				served++
			}
		}
		if served != status.Shards {
			return fmt.Sprintf("%s reports %d of %d shards as served", g.name, served, status.Shards), nil
		}
	}
	return "", nil
}

// settle returns when the cluster is in order.
func (s *siege) settle(ctx context.Context) error {
	for {
		what, err := s.disorder(ctx)
		if err == nil && what == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the cluster is not in order: %s: %w", what, errors.Join(err, ctx.Err()))
		case accident := <-s.accidents:
			return accident
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// lies sends what a forger can make up about members, to all of them, until ctx ends. Ids are those by which gossip
// knows members: names where they could not be overheard.
func (s *siege) lies(ctx context.Context, ids []string) error {
	var forgers []*forge.Forger
	defer func() {
		for _, f := range forgers {
			_ = f.Close() // It sends packets only.
		}
	}()
	for _, m := range s.members {
		f, err := forge.From((&net.Dialer{}).DialContext, m.at(gossipPort), clusterName)
		if err != nil {
			return err
		}
		forgers = append(forgers, f)
	}
	var unknown persistence.Incarnation
	_, _ = rand.Read(unknown[:]) // It never fails.
	for ctx.Err() == nil {
		for _, f := range forgers {
			err := f.Dead(unknown)
			for _, id := range ids {
				err = errors.Join(err, f.Gone(id), f.Alive(forge.Alive{
					Name: id, Gossip: net.JoinHostPort(s.attacker().String(), gossipPort),
					Meta: &clusterv1.Meta{
						Incarnation: unknown[:], NodeAddress: net.JoinHostPort(s.attacker().String(), nodePort),
						Roles: []clusterv1.Role{clusterv1.Role_ROLE_NODE}, Capacity: 1000,
					},
				}))
			}
			for shard := range uint32(16) {
				err = errors.Join(err, f.Rows(persistence.Shard{ID: shard, Epoch: 1 << 40, Owner: unknown}))
			}
			if err != nil {
				return err
			}
		}
		hostile.Wait(ctx, 100*time.Millisecond)
	}
	return nil
}

// forgedPackets sends lies without the key.
func forgedPackets(ctx context.Context, s *siege) (o Outcome, err error) {
	ids := make([]string, 0, len(s.members))
	for _, m := range s.members {
		ids = append(ids, m.name)
	}
	f, err := forge.New(s.nodes()[0].at(gossipPort), clusterName)
	if err != nil {
		return o, err
	}
	metas, _, overheard := f.Overhear(s.attacker().String())
	_ = f.Close() // It sent what it had to.
	if overheard == nil && len(metas) > 0 {
		ids = slices.Collect(maps.Keys(metas))
		o = breached("a stranger without the key joined the gossip, and knows %d members", len(metas))
	}
	lying, cancel := context.WithTimeout(ctx, s.options.Hold)
	defer cancel()
	if err := s.lies(lying, ids); err != nil {
		return o, err
	}
	what, err := s.disorder(ctx)
	if err != nil || o.Breached {
		return o, err
	}
	if what != "" {
		return breached("%s", what), nil
	}
	return held("nothing of it was believed; join: %s", short(overheard.Error())), nil
}

// stranger joins the gossip with a key, and says that it is a node. Its packets are lies, too.
func stranger(key func(s *siege) ([]byte, error)) func(ctx context.Context, s *siege) (Outcome, error) {
	return func(ctx context.Context, s *siege) (o Outcome, err error) {
		secret, err := key(s)
		if err != nil {
			return o, err
		}
		var incarnation persistence.Incarnation
		_, _ = rand.Read(incarnation[:]) // It never fails.
		meta, err := proto.Marshal(&clusterv1.Meta{
			Incarnation: incarnation[:], NodeAddress: net.JoinHostPort(s.attacker().String(), nodePort),
			Roles: []clusterv1.Role{clusterv1.Role_ROLE_NODE}, Capacity: 1000,
		})
		if err != nil {
			return o, err
		}
		c := memberlist.DefaultLANConfig()
		c.Name, c.BindAddr, c.BindPort, c.AdvertisePort, c.Label = "stranger", s.attacker().String(), 0, 0, clusterName
		c.SecretKey, c.Delegate, c.Logger = secret, says(meta), log.New(io.Discard, "", 0)
		c.DelegateProtocolVersion, c.DelegateProtocolMin, c.DelegateProtocolMax = 1, 1, 1
		c.EnableCompression = false // Members refuse it.
		m, err := memberlist.Create(c)
		if err != nil {
			return o, err
		}
		defer func() { err = errors.Join(err, m.Shutdown()) }()
		news, err := proto.Marshal(&clusterv1.News{Shards: []*clusterv1.Shard{
			{Id: 0, Epoch: 1 << 40, Owner: incarnation[:]}, {Id: 1, Epoch: 1 << 40, Owner: incarnation[:]},
		}, Dead: [][]byte{incarnation[:]}})
		if err != nil {
			return o, err
		}
		deadline := time.Now().Add(s.options.Hold)
		_, joined := m.Join([]string{s.nodes()[0].at(gossipPort)})
		for time.Now().Before(deadline) && ctx.Err() == nil {
			for _, to := range s.members {
				address := memberlist.Address{Addr: to.at(gossipPort), Name: ""}
				if err := m.SendToAddress(address, news); err != nil {
					return o, err
				}
			}
			hostile.Wait(ctx, 100*time.Millisecond)
		}
		what, err := s.disorder(ctx)
		switch {
		case err != nil:
			return o, err
		case what != "":
			return breached("%s", what), nil
		case joined != nil:
			return held("not admitted: %s", short(joined.Error())), nil
		}
		return held("heard, and not believed: it has no lease; all shards are served by their owners"), nil
	}
}

// says is a member that says what it is, and nothing else.
type says []byte

var _ memberlist.Delegate = says(nil)

// NodeMeta implements memberlist.Delegate.
func (s says) NodeMeta(int) []byte { return s }

// NotifyMsg implements memberlist.Delegate.
func (says) NotifyMsg([]byte) {}

// GetBroadcasts implements memberlist.Delegate.
func (says) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState implements memberlist.Delegate.
func (says) LocalState(bool) []byte { return nil }

// MergeRemoteState implements memberlist.Delegate.
func (says) MergeRemoteState([]byte, bool) {}

// gossipAttacks are those on the gossip port.
func gossipAttacks() []Attack {
	const group = "gossip"
	all := []Attack{
		{group, "forged members, deaths and owners without the key", "not heard", forgedPackets},
		{group, "stranger with another key", "not admitted, not heard", stranger(func(*siege) ([]byte, error) {
			key := make([]byte, 32)
			_, err := rand.Read(key)
			return key, err
		})},
		{group, "stranger with the stolen key, as an owner", "heard, and not believed", stranger(
			func(s *siege) ([]byte, error) {
				if !s.has("gossip-key-file") {
					return nil, nil
				}
				return base64.StdEncoding.DecodeString(s.secrets.canaries["the gossip key"])
			})},
	}
	for i := range all {
		run := all[i].run
		all[i].run = func(ctx context.Context, s *siege) (Outcome, error) {
			// What an earlier attack left behind is not the work of this one.
			if what, err := s.disorder(ctx); err != nil || what != "" {
				return Outcome{Skipped: true, Seen: "not judged, after an earlier attack " + what}, err
			}
			return run(ctx, s)
		}
	}
	return all
}
