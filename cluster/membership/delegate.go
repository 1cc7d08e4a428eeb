package membership

import (
	"bytes"
	"context"
	"errors"
	"log"
	"log/slog"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"
	"google.golang.org/protobuf/proto"

	"licensed/internal/networks"
	"licensed/messages/clusterv1"
	"licensed/persistence"
)

// delegate is what memberlist calls, with locks of its own held: nothing here may wait or call back. A run that ended
// may still call.
type delegate struct{ *run }

var (
	_ memberlist.Delegate         = delegate{}
	_ memberlist.EventDelegate    = delegate{}
	_ memberlist.PingDelegate     = delegate{}
	_ memberlist.ConflictDelegate = delegate{}
	_ memberlist.AliveDelegate    = delegate{}
	_ memberlist.MergeDelegate    = delegate{}
)

// Why a process is not listed.
var (
	errStranger = errors.New("process of another cluster")
	errFormer   = errors.New("former id of this process")
	errVersion  = errors.New("versions that this process does not speak")
	errUnproven = errors.New("too many members that answered no probe")
)

// NotifyAlive implements memberlist.AliveDelegate.
func (d delegate) NotifyAlive(n *memberlist.Node) error {
	// This member is always listed, whatever its metadata says.
	if err := d.stranger(n); err != nil || n.Name == d.id {
		return err
	}
	// memberlist refuses all full exchanges while it lists somebody whose versions do not go with others'.
	if n.PCur != protocolVersion || n.PMin > protocolVersion || n.PMax < protocolVersion ||
		n.DCur != delegateVersion || n.DMin > delegateVersion || n.DMax < delegateVersion {
		return errVersion
	}
	if err := d.m.config.Networks.CheckIP(n.Addr); err != nil {
		return err
	}
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	switch {
	// A restarted process has the address of its former run: gossip still spreads that
	// one.
	case n.Address() == d.m.address:
		return errFormer
	case d.members[n.Name] != nil:
		return nil
	// More would not fit into a full exchange, and members that are not listed cannot
	// exchange.
	case len(d.members) >= maxListed:
		return errUnproven
	case !d.admit(n.Name):
		d.m.newcomers.ask(n)
		return errUnproven
	}
	return nil
}

// stranger returns an error if a process is of another cluster.
func (d delegate) stranger(n *memberlist.Node) error {
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
		if err := d.stranger(n); err != nil {
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

// MergeRemoteState implements memberlist.Delegate. memberlist calls it after it has merged the members that the other
// one lists. The state is not forwarded: the members exchange theirs with each other, too.
func (d delegate) MergeRemoteState(b []byte, _ bool) {
	if d.hear(b) {
		d.m.meeting.Do(func() { close(d.m.met) })
	}
}

// hear passes news to the listener. It reports whether others may hear them from this member.
func (d delegate) hear(b []byte) bool {
	if len(b) == 0 {
		return false
	}
	news := &clusterv1.News{}
	if err := proto.Unmarshal(b, news); err != nil {
		d.m.config.Log.Warn("membership: unreadable news ignored", "bytes", len(b), "error", err)
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
		d.m.config.Log.Warn("membership: unreadable member ignored", "member", n.Name, "error", err)
		meta = &clusterv1.Meta{}
	}
	p := &peer{
		Member: Member{Name: nameOf(n.Name), ID: n.Name, Gossip: n.Address(), Meta: meta}, node: *n, meta: n.Meta,
	}
	p.node.Meta = nil
	d.m.mu.Lock()
	if before := d.members[n.Name]; before != nil {
		p.joined = before.joined
	} else {
		d.m.joined++
		p.joined = d.m.joined
	}
	d.members[n.Name] = p
	d.m.mu.Unlock()
	signal(d.m.changed)
}

// NotifyLeave implements memberlist.EventDelegate.
func (d delegate) NotifyLeave(n *memberlist.Node) {
	d.m.mu.Lock()
	p := d.members[n.Name]
	delete(d.members, n.Name)
	current := d.m.current == d.run
	if p != nil && n.Name != d.id && current {
		d.m.lose(p)
	}
	d.m.mu.Unlock()
	// The members that an ended run loses are still members of the current one.
	if current {
		d.m.clocks.forget(n.Name)
	}
	signal(d.m.changed)
}

// NotifyConflict implements memberlist.ConflictDelegate. Each run of a process has an id of its own, so that only a
// forged message gives one another address. memberlist passes it over.
func (d delegate) NotifyConflict(existing, other *memberlist.Node) {
	d.m.config.Log.Debug("membership: message with another address for a member ignored",
		"member", existing.Name, "address", existing.Address(), "other", other.Address())
}

// AckPayload implements memberlist.PingDelegate.
func (d delegate) AckPayload() []byte {
	// Being probed shows that others list this member. rejoin asks others if it is not.
	d.m.probed.Store(time.Now().UnixNano())
	return clockPayload(d.m.config.Now())
}

// NotifyPingComplete implements memberlist.PingDelegate.
func (d delegate) NotifyPingComplete(other *memberlist.Node, rtt time.Duration, payload []byte) {
	d.m.answered(other.Name)
	d.m.clocks.note(other.Name, d.m.config.Now(), rtt, payload)
}

// logger passes on what memberlist logs: "[LEVEL] memberlist: text".
func logger(l *slog.Logger) *log.Logger { return log.New(logWriter{l}, "", 0) }

// quietly is what memberlist logs and what is told elsewhere, or what every unknown process can cause.
var quietly = []string{
	errStranger.Error(), errFormer.Error(), errVersion.Error(), errUnproven.Error(), networks.ErrOutside.Error(),
	"Conflicting address", // NotifyConflict
	"Got ping for unexpected node",
}

// logWriter turns a line of memberlist's log into a record of slog.
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
	for _, told := range quietly {
		if strings.Contains(line, told) {
			level = slog.LevelDebug
		}
	}
	w.log.Log(context.Background(), level, line)
	return len(b), nil
}
