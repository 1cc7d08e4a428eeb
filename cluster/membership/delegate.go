package membership

import (
	"context"
	"log"
	"log/slog"
	"maps"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"
	"google.golang.org/protobuf/proto"

	"licensed/messages/clusterv1"
)

// delegate is what memberlist calls, with locks of its own held: nothing here may wait or call back.
type delegate struct{ m *Membership }

var (
	_ memberlist.Delegate         = delegate{}
	_ memberlist.EventDelegate    = delegate{}
	_ memberlist.PingDelegate     = delegate{}
	_ memberlist.ConflictDelegate = delegate{}
)

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
	b, err := proto.Marshal(f())
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
	p := &peer{Member{Name: n.Name, Gossip: n.Address(), Meta: meta}, *n}
	p.node.Meta = nil
	d.m.mu.Lock()
	d.m.members[n.Name] = p
	// It is back, wherever, or another has its place.
	maps.DeleteFunc(d.m.lost, func(name string, l lost) bool { return name == n.Name || l.address == p.Gossip })
	d.m.mu.Unlock()
	signal(d.m.changed)
}

// NotifyLeave implements memberlist.EventDelegate.
func (d delegate) NotifyLeave(n *memberlist.Node) {
	d.m.mu.Lock()
	p := d.m.members[n.Name]
	delete(d.m.members, n.Name)
	if p != nil && !p.Meta.Draining && n.Name != d.m.config.Name { // without good-bye
		d.m.lost[n.Name] = lost{n.Address(), d.m.config.Now()}
	}
	d.m.mu.Unlock()
	d.m.clocks.forget(n.Name)
	signal(d.m.changed)
}

// NotifyConflict implements memberlist.ConflictDelegate.
func (d delegate) NotifyConflict(existing, other *memberlist.Node) {
	d.m.config.Log.Error("membership: two members have one name: give each its own",
		"name", existing.Name, "address", existing.Address(), "other", other.Address())
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
	w.log.Log(context.Background(), level, line)
	return len(b), nil
}
