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
func (d delegate) NotifyMsg(b []byte) { d.hear(b) }

// GetBroadcasts implements memberlist.Delegate.
func (d delegate) GetBroadcasts(overhead, limit int) [][]byte {
	return d.m.queue.GetBroadcasts(overhead, limit)
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
func (d delegate) MergeRemoteState(b []byte, _ bool) { d.hear(b) }

func (d delegate) hear(b []byte) {
	f := d.m.config.Listener.News
	if f == nil || len(b) == 0 {
		return
	}
	news := &clusterv1.News{}
	if err := proto.Unmarshal(b, news); err != nil {
		d.m.config.Log.Warn("membership: news that cannot be read", "bytes", len(b), "error", err)
		return
	}
	f(news)
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

// maxPart is how large a part of news may be to travel in one packet with others.
const maxPart = 1000

// split returns news in encoded parts that each fit into a packet.
func split(news *clusterv1.News) [][]byte {
	var parts [][]byte
	part := &clusterv1.News{Dead: news.Dead}
	size := proto.Size(part)
	flush := func() {
		if size > 0 {
			if b, err := proto.Marshal(part); err == nil {
				parts = append(parts, b)
			}
		}
		part, size = &clusterv1.News{}, 0
	}
	for _, s := range news.Shards {
		n := proto.Size(s) + 3
		if size+n > maxPart {
			flush()
		}
		part.Shards = append(part.Shards, s)
		size += n
	}
	flush()
	return parts
}

// broadcast is a part of news on its way. Nothing makes another invalid: rows carry epochs.
type broadcast []byte

// Invalidates implements memberlist.Broadcast.
func (broadcast) Invalidates(memberlist.Broadcast) bool { return false }

// UniqueBroadcast implements memberlist.UniqueBroadcast: the queue need not look for what it invalidates.
func (broadcast) UniqueBroadcast() {}

// Message implements memberlist.Broadcast.
func (b broadcast) Message() []byte { return b }

// Finished implements memberlist.Broadcast.
func (broadcast) Finished() {}

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
