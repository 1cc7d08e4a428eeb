// Package forge sends forged gossip: what anybody can send who reaches the gossip port of a process that has no key,
// and what a process of another cluster sends by mistake. Tests and the chaos tool use it as a fault.
//
// Packets are as memberlist encodes them. [Forger.Dead] and [Forger.Rows] are news that a member spreads;
// [Forger.Alive] and [Forger.Gone] are memberlist's own messages about members; [Forger.Clocks] runs members that
// answer probes.
package forge

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"strconv"
	"time"

	"github.com/hashicorp/go-msgpack/v2/codec"
	"github.com/hashicorp/memberlist"
	"google.golang.org/protobuf/proto"

	"licensed/cluster"
	"licensed/messages/clusterv1"
	"licensed/persistence"
)

// Types of memberlist's messages.
const (
	aliveMessage = 4
	deadMessage  = 5
	userMessage  = 8
)

// Forger sends forged gossip to one process. It is safe for concurrent use.
type Forger struct {
	// target is the address that is attacked, label the cluster's.
	target, label string
	conn          net.Conn
}

// New returns a forger for the process whose gossip port is at the address target, host:port. Label is that of the
// cluster: its name by default. Close the forger after use.
func New(target, label string) (*Forger, error) {
	return From((&net.Dialer{}).DialContext, target, label)
}

// From is New with packets that are sent through dial.
func From(
	dial func(ctx context.Context, network, address string) (net.Conn, error), target, label string,
) (*Forger, error) {
	conn, err := dial(context.Background(), "udp", target)
	if err != nil {
		return nil, fmt.Errorf("forge gossip to %s: %w", target, err)
	}
	return &Forger{target, label, conn}, nil
}

// Close ends the forger.
func (f *Forger) Close() error { return f.conn.Close() }

// Dead says that incarnations are dead.
func (f *Forger) Dead(dead ...persistence.Incarnation) error {
	news := &clusterv1.News{}
	for _, i := range dead {
		news.Dead = append(news.Dead, i[:])
	}
	return f.News(news)
}

// Rows says that rows of shards are these. Any number may be given; each packet has a few.
func (f *Forger) Rows(rows ...persistence.Shard) error {
	const together = 16
	for len(rows) > 0 {
		news := &clusterv1.News{}
		for _, row := range rows[:min(together, len(rows))] {
			news.Shards = append(news.Shards, cluster.ShardMessage(row))
		}
		rows = rows[len(news.Shards):]
		if err := f.News(news); err != nil {
			return err
		}
	}
	return nil
}

// News sends news as they are.
func (f *Forger) News(news *clusterv1.News) error {
	b, err := proto.Marshal(news)
	if err != nil {
		return err
	}
	return f.send(userMessage, b)
}

// Alive says that a member is alive.
type Alive struct {
	// Name of the member, as memberlist knows it.
	Name string
	// Gossip is its address for gossip, host:port.
	Gossip string
	// Incarnation is memberlist's count of what the member said of itself (0 stands for the highest that others
	// believe, which the member cannot surpass).
	Incarnation uint32
	Meta        *clusterv1.Meta
}

// Alive sends a message that memberlist believes if its incarnation is the highest that it saw of that member.
func (f *Forger) Alive(a Alive) error {
	host, service, err := net.SplitHostPort(a.Gossip)
	if err != nil {
		return fmt.Errorf("forge a member: %w", err)
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return fmt.Errorf("forge a member: %w", err)
	}
	address := net.ParseIP(host)
	if four := address.To4(); four != nil {
		address = four
	}
	meta, err := proto.Marshal(a.Meta)
	if err != nil {
		return err
	}
	return f.encode(aliveMessage, struct {
		Incarnation uint32
		Node        string
		Addr        []byte
		Port        uint16
		Meta        []byte
		Vsn         []uint8
	}{highest(a.Incarnation), a.Name, address, uint16(port), meta,
		[]uint8{1, memberlist.ProtocolVersionMax, 2, 1, 1, 1}})
}

// Gone says that a member, as memberlist knows it, is dead, with the highest count that others believe.
func (f *Forger) Gone(name string) error { return f.GoneAt(name, 0) }

// GoneAt says it with a count of what the member said of itself (0 stands for the highest that others believe).
func (f *Forger) GoneAt(name string, incarnation uint32) error {
	return f.encode(deadMessage, struct {
		Incarnation uint32
		Node, From  string
	}{highest(incarnation), name, "forged"})
}

// highest returns the count to send: members refuse values above 2^31, so that this is
// the strongest lie.
func highest(incarnation uint32) uint32 {
	if incarnation == 0 {
		return 1 << 31
	}
	return incarnation
}

// encode sends a message of memberlist's.
func (f *Forger) encode(kind byte, message any) error {
	var b []byte
	if err := codec.NewEncoderBytes(&b, &codec.MsgpackHandle{}).Encode(message); err != nil {
		return fmt.Errorf("forge gossip: %w", err)
	}
	return f.send(kind, b)
}

// send sends one packet: the type, the message, and the label in front of both.
func (f *Forger) send(kind byte, b []byte) error {
	packet, err := memberlist.AddLabelHeaderToPacket(append([]byte{kind}, b...), f.label)
	if err == nil {
		_, err = f.conn.Write(packet)
	}
	if err != nil {
		return fmt.Errorf("forge gossip to %s: %w", f.target, err)
	}
	return nil
}

// Overhear joins the target from an address for a moment, as anybody can who knows the label and no key is set, and
// returns what the members say of themselves, by their ids, and their addresses for gossip.
func (f *Forger) Overhear(from string) (metas map[string]*clusterv1.Meta, addresses map[string]string, err error) {
	m, err := memberlist.Create(f.listener(fmt.Sprintf("overhearing-%08x", rand.Uint32()), from, liar{}))
	if err != nil {
		return nil, nil, fmt.Errorf("overhear gossip: %w", err)
	}
	defer func() { err = errors.Join(err, m.Shutdown()) }()
	if _, err := m.Join([]string{f.target}); err != nil {
		return nil, nil, fmt.Errorf("overhear gossip of %s: %w", f.target, err)
	}
	metas, addresses = map[string]*clusterv1.Meta{}, map[string]string{}
	for _, n := range m.Members() {
		meta := &clusterv1.Meta{}
		if n.Name == m.LocalNode().Name || proto.Unmarshal(n.Meta, meta) != nil {
			continue
		}
		metas[n.Name], addresses[n.Name] = meta, n.Address()
	}
	return metas, addresses, nil
}

// listener configures a member that forges what it says. It listens on a free port of the
// address from.
func (f *Forger) listener(name, from string, says liar) *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.Name, c.BindAddr, c.BindPort, c.AdvertisePort, c.Label = name, from, 0, 0, f.label
	c.Delegate, c.Ping = says, says
	c.DelegateProtocolVersion, c.DelegateProtocolMin, c.DelegateProtocolMax = 1, 1, 1
	c.EnableCompression = false // A member refuses it.
	c.Logger = log.New(io.Discard, "", 0)
	return c
}

// Clocks runs a member for each meta at an address of this machine and has it join the target. Their names are those of
// the map, and their wall clocks are that far ahead of this machine's. Stop ends them.
func (f *Forger) Clocks(
	ctx context.Context, from string, ahead time.Duration, metas map[string]*clusterv1.Meta,
) (stop func() error, err error) {
	var all []*memberlist.Memberlist
	stop = func() (err error) {
		for _, m := range all {
			err = errors.Join(err, m.Shutdown())
		}
		return err
	}
	for name, meta := range metas {
		b, err := proto.Marshal(meta)
		if err != nil {
			return nil, errors.Join(err, stop())
		}
		m, err := memberlist.Create(f.listener(name, from, liar{b, ahead}))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("forge a member: %w", err), stop())
		}
		all = append(all, m)
		for {
			if _, err = m.Join([]string{f.target}); err == nil || ctx.Err() != nil {
				break
			}
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("forge a member: %w", err), stop())
		}
	}
	return stop, nil
}

// liar is a member with a wrong clock.
type liar struct {
	meta  []byte
	ahead time.Duration
}

var (
	_ memberlist.Delegate     = liar{}
	_ memberlist.PingDelegate = liar{}
)

// NodeMeta implements memberlist.Delegate.
func (l liar) NodeMeta(int) []byte { return l.meta }

// NotifyMsg implements memberlist.Delegate.
func (liar) NotifyMsg([]byte) {}

// GetBroadcasts implements memberlist.Delegate.
func (liar) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState implements memberlist.Delegate.
func (liar) LocalState(bool) []byte { return nil }

// MergeRemoteState implements memberlist.Delegate.
func (liar) MergeRemoteState([]byte, bool) {}

// AckPayload implements memberlist.PingDelegate.
func (l liar) AckPayload() []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(time.Now().Add(l.ahead).UnixMicro()))
}

// NotifyPingComplete implements memberlist.PingDelegate.
func (liar) NotifyPingComplete(*memberlist.Node, time.Duration, []byte) {}
