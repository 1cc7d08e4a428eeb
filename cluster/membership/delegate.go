package membership

import (
	"bytes"
	"context"
	"errors"
	"log"
	"log/slog"
	"maps"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"
	"google.golang.org/protobuf/proto"

	"licensed/messages/clusterv1"
	"licensed/persistence"
)

// delegate is what memberlist calls, with locks of its own held: nothing here may wait or call back.
type delegate struct{ m *Membership }

var (
	_ memberlist.Delegate         = delegate{}
	_ memberlist.EventDelegate    = delegate{}
	_ memberlist.PingDelegate     = delegate{}
	_ memberlist.ConflictDelegate = delegate{}
	_ memberlist.AliveDelegate    = delegate{}
	_ memberlist.MergeDelegate    = delegate{}
)

// errStranger is that a process is of another cluster.
var errStranger = errors.New("process of another cluster")

// NotifyAlive implements memberlist.AliveDelegate.
func (d delegate) NotifyAlive(n *memberlist.Node) error {
	meta := &clusterv1.Meta{}
	if err := proto.Unmarshal(n.Meta, meta); err != nil {
		return nil //nolint:nilerr // NotifyUpdate tells
	}
	id, err := persistence.ParseClusterID(meta.GetClusterId())
	if err != nil || d.m.config.Strangers.Refuse(id, n.Address(), "gossip") {
		return errStranger
	}
	return nil
}

// NotifyMerge implements memberlist.MergeDelegate.
func (d delegate) NotifyMerge(nodes []*memberlist.Node) error {
	for _, n := range nodes {
		if err := d.NotifyAlive(n); err != nil {
			return err
		}
	}
	return nil
}

// NodeMeta implements memberlist.Delegate.
func (d delegate) NodeMeta(int) []byte {
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	return d.m.meta
}

// NotifyMsg implements memberlist.Delegate.
func (d delegate) NotifyMsg(b []byte) {
	if d.hear(b) {
		d.m.rumours.forward(b)
	}
}

// GetBroadcasts implements memberlist.Delegate.
func (d delegate) GetBroadcasts(overhead, limit int) [][]byte {
	return d.m.rumours.queue.GetBroadcasts(overhead, limit)
}

// LocalState implements memberlist.Delegate.
func (d delegate) LocalState(bool) []byte {
	f := d.m.config.Listener.State
	if f == nil {
		return nil
	}
	state := f()
	state.ClusterId = d.m.clusterID()
	b, err := proto.Marshal(state)
	if err != nil {
		return nil
	}
	return b
}

// MergeRemoteState implements memberlist.Delegate.
// The state is not forwarded: the members exchange theirs with each other, too.
func (d delegate) MergeRemoteState(b []byte, _ bool) { d.hear(b) }

// hear passes news to the listener. It reports whether others may hear them from this member.
func (d delegate) hear(b []byte) bool {
	if len(b) == 0 {
		return false
	}
	news := &clusterv1.News{}
	if err := proto.Unmarshal(b, news); err != nil {
		d.m.config.Log.Warn("membership: news that cannot be read", "bytes", len(b), "error", err)
		return false
	}
	if len(news.GetClusterId()) > 0 && len(d.m.clusterID()) > 0 && !bytes.Equal(news.GetClusterId(), d.m.clusterID()) {
		return false // Who sent them is told of where its address is known: NotifyAlive.
	}
	if f := d.m.config.Listener.News; f != nil {
		f(news)
	}
	return true
}

// NotifyJoin implements memberlist.EventDelegate.
func (d delegate) NotifyJoin(n *memberlist.Node) { d.NotifyUpdate(n) }

// NotifyUpdate implements memberlist.EventDelegate.
func (d delegate) NotifyUpdate(n *memberlist.Node) {
	meta := &clusterv1.Meta{}
	if err := proto.Unmarshal(n.Meta, meta); err != nil {
		d.m.config.Log.Warn("membership: a member that cannot be read", "member", n.Name, "error", err)
		meta = &clusterv1.Meta{}
	}
	p := &peer{Member: Member{Name: nameOf(n.Name), ID: n.Name, Gossip: n.Address(), Meta: meta}, node: *n}
	p.node.Meta = nil
	d.m.mu.Lock()
	if before := d.m.members[n.Name]; before != nil {
		p.joined = before.joined
	} else {
		d.m.joined++
		p.joined = d.m.joined
	}
	d.m.members[n.Name] = p
	// It is back, wherever, or another has its place.
	maps.DeleteFunc(d.m.lost, func(id string, l lost) bool { return nameOf(id) == p.Name || l.address == p.Gossip })
	d.m.mu.Unlock()
	signal(d.m.changed)
}

// NotifyLeave implements memberlist.EventDelegate.
func (d delegate) NotifyLeave(n *memberlist.Node) {
	d.m.mu.Lock()
	p := d.m.members[n.Name]
	delete(d.m.members, n.Name)
	if p != nil && !p.Meta.Draining && n.Name != d.m.id && !d.m.present(p.Name) { // without good-bye, and not back elsewhere
		d.m.lost[n.Name] = lost{n.Address(), d.m.config.Now()}
	}
	d.m.mu.Unlock()
	d.m.clocks.forget(n.Name)
	signal(d.m.changed)
}

// present reports whether there is a member of that name. Requires m.mu.
func (m *Membership) present(name string) bool {
	for _, p := range m.members {
		if p.Name == name {
			return true
		}
	}
	return false
}

// NotifyConflict implements memberlist.ConflictDelegate. Each run of a process has an id of its own, so that only a forged
// message gives one another address. memberlist passes it over.
func (d delegate) NotifyConflict(existing, other *memberlist.Node) {
	d.m.config.Log.Debug("membership: message with another address for a member ignored",
		"member", existing.Name, "address", existing.Address(), "other", other.Address())
}

// AckPayload implements memberlist.PingDelegate.
func (d delegate) AckPayload() []byte { return clockPayload(d.m.config.Now()) }

// NotifyPingComplete implements memberlist.PingDelegate.
func (d delegate) NotifyPingComplete(other *memberlist.Node, rtt time.Duration, payload []byte) {
	d.m.clocks.note(other.Name, d.m.config.Now(), rtt, payload)
}

// logger passes on what memberlist logs: "[LEVEL] memberlist: text".
func logger(l *slog.Logger) *log.Logger { return log.New(logWriter{l}, "", 0) }

type logWriter struct{ log *slog.Logger }

// Write implements io.Writer for one line.
func (w logWriter) Write(b []byte) (int, error) {
	line := strings.TrimSpace(string(b))
	level := slog.LevelInfo
	for prefix, l := range map[string]slog.Level{
		"[DEBUG] ": slog.LevelDebug, "[INFO] ": slog.LevelDebug, "[WARN] ": slog.LevelInfo, "[ERR] ": slog.LevelWarn,
	} {
		if rest, ok := strings.CutPrefix(line, prefix); ok {
			level, line = l, rest
		}
	}
	if strings.Contains(line, errStranger.Error()) || strings.Contains(line, "Conflicting address") { // see Strangers and NotifyConflict
		level = slog.LevelDebug
	}
	w.log.Log(context.Background(), level, line)
	return len(b), nil
}
