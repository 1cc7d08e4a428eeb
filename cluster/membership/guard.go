package membership

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-msgpack/v2/codec"
	"github.com/hashicorp/memberlist"

	"licensed/internal/networks"
)

// guard is the network as memberlist sees it. Without it an unknown process chooses what memberlist allocates: it
// believes the lengths in a message (20 MiB of state, a million members, 4 GiB for a field that it then ignores)
// before it has read a byte of them, expands compressed messages to 40 MiB, and keeps 64 KiB for each packet in its
// queue. A key does not help: memberlist buffers 20 MiB of a stream before it decrypts. So the guard
//
//   - reads the message of a stream itself, up to a limit, and checks that every length in it is true;
//   - refuses packets and streams from outside the networks of the members, if they are given;
//   - refuses compressed messages and all others that members of this program do not send;
//   - limits streams by number, per host and in all, and the bytes that they hold together;
//   - checks packets in the same way, and copies them so that they keep only their own size;
//   - refuses messages about a member whose counter is one that no member has, and reports it if one is about
//     this member and has a counter that this member should not have.
//
// With a key only the sizes are checked: memberlist decrypts a message before it decodes it. No unknown process can
// forge one then.
//
// Several guards can share a network, one after the other: [guard.start] and [guard.detach].
type guard struct {
	memberlist.NodeAwareTransport
	log       *slog.Logger
	keyed     bool
	maxStream int // bytes
	networks  networks.List
	own       string
	doubted   atomic.Bool // the member own should give up that id
	doubt     func()      // called after doubted was set. It must not block.
	pumping   atomic.Bool

	packets chan *memberlist.Packet
	streams chan net.Conn
	closing chan struct{} // closed: what arrives is dropped
	done    chan struct{} // closed: nothing arrives any more
	pumps   sync.WaitGroup
	once    sync.Once
	held    atomic.Int64 // bytes that streams hold

	mu     sync.Mutex
	open   int            // incoming streams
	byHost map[string]int // the same by host
}

const (
	// maxPacket is the size of a packet, in bytes. memberlist sends 1,400, encryption and a label come on top.
	maxPacket = 2048
	// maxMembers is the number of members a full exchange may list.
	maxMembers = 8192
	// baseStream is the size of a message on a stream, in bytes, without the state of Config.MaxState: at 250 bytes
	// per member it has room for 4,000 members.
	baseStream = 1 << 20
	// maxStreams and maxStreamsPerHost limit the incoming streams at a time. Each ends within seconds: memberlist
	// sets deadlines. A peer that is refused tries again with its next attempt to join or exchange. With 16 per host,
	// 50 members on one machine that all start at once need 24 s to find each other, with 64 they need one second.
	maxStreams, maxStreamsPerHost = 256, 64
	// maxHeld is the number of bytes all streams hold together. memberlist needs about three times as much to decode
	// them.
	maxHeld = 32 << 20
	// memberSize is the number of bytes memberlist allocates for a member that a stream claims to list.
	memberSize = 136
	// maxDepth of nested values; memberlist's messages have 3.
	maxDepth = 8
	// maxIncarnation is the highest counter of a member that others believe. memberlist raises it by one with each
	// change of a member's metadata and with each message that it overrules. So no member has more than a few
	// thousand of its own, and with half of this it has been told so by a forger.
	maxIncarnation = 1 << 31
)

// Types of memberlist's messages, and of what comes before them.
const (
	typePing, typeIndirectPing, typeAck, typeSuspect, typeAlive, typeDead = 0, 1, 2, 3, 4, 5
	typePushPull, typeCompound, typeUser                                  = 6, 7, 8
	typeEncrypted, typeNack, typeChecksum, typeError                      = 10, 11, 12, 13
	typeLabel                                                             = 244
)

// Why a message is refused. The details are wrapped around these.
var (
	errTooLarge = errors.New("message too large")
	errFull     = errors.New("incoming streams hold too much memory together")
	errRefused  = errors.New("message refused")
)

// newGuard returns a guard over t that is not started. maxState is the size of the
// largest state that a full exchange may have, in bytes; with keyed messages must be
// encrypted.
func newGuard(t memberlist.NodeAwareTransport, keyed bool, maxState int, log *slog.Logger) *guard {
	return &guard{
		NodeAwareTransport: t, log: log, keyed: keyed, maxStream: baseStream + maxState,
		packets: make(chan *memberlist.Packet), streams: make(chan net.Conn),
		closing: make(chan struct{}), done: make(chan struct{}), byHost: map[string]int{},
	}
}

// start has memberlist hear what arrives.
func (g *guard) start() {
	g.pumping.Store(true)
	g.pumps.Go(g.pumpPackets)
	g.pumps.Go(g.pumpStreams)
}

// detach ends what start began, and leaves the network to another guard.
func (g *guard) detach() error {
	g.pumping.Store(false)
	return g.Shutdown()
}

// PacketCh implements memberlist.Transport.
func (g *guard) PacketCh() <-chan *memberlist.Packet { return g.packets }

// StreamCh implements memberlist.Transport.
func (g *guard) StreamCh() <-chan net.Conn { return g.streams }

// DialAddressTimeout implements memberlist.NodeAwareTransport. The answer of the process that listens there is
// checked, too.
func (g *guard) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	c, err := g.NodeAwareTransport.DialAddressTimeout(a, timeout)
	if err != nil {
		return nil, err
	}
	return &stream{Conn: c, guard: g, release: func() {}}, nil
}

// Shutdown implements memberlist.Transport. The network ends only while its channels are read. It does not end if the
// guard was not started, or is detached.
func (g *guard) Shutdown() (err error) {
	g.once.Do(func() {
		close(g.closing)
		if g.pumping.Load() {
			err = g.NodeAwareTransport.Shutdown()
		}
		close(g.done)
		g.pumps.Wait()
	})
	return err
}

// pumpPackets passes on the packets that memberlist may see. It is the only reader of the
// network's packets while the guard is started.
func (g *guard) pumpPackets() {
	for {
		select {
		case <-g.done:
			return
		case p := <-g.NodeAwareTransport.PacketCh():
			err := g.networks.Check(p.From)
			if err == nil {
				err = g.checkPacket(p.Buf)
			}
			if err != nil {
				g.log.Warn("gossip packet refused", "from", p.From.String(), "bytes", len(p.Buf), "error", err)
				continue
			}
			// The transport's buffer has 64 KiB, which the packet would keep for as long
			// as it is queued.
			p.Buf = bytes.Clone(p.Buf)
			select {
			case g.packets <- p:
			case <-g.closing:
			}
		}
	}
}

// pumpStreams passes on connections, within the limits of admit. Their bytes are checked
// when memberlist reads them: a slow peer must not hold up the next.
func (g *guard) pumpStreams() {
	for {
		select {
		case <-g.done:
			return
		case c := <-g.NodeAwareTransport.StreamCh():
			if err := g.networks.Check(c.RemoteAddr()); err != nil {
				g.log.Warn("gossip stream refused", "from", c.RemoteAddr().String(), "error", err)
				_ = c.Close()
				continue
			}
			release, ok := g.admit(c.RemoteAddr())
			if !ok {
				g.log.Warn("gossip stream refused: too many are open", "from", c.RemoteAddr().String(),
					"limit", maxStreams, "limit_per_host", maxStreamsPerHost)
				_ = c.Close()
				continue
			}
			s := &stream{Conn: c, guard: g, release: release}
			select {
			case g.streams <- s:
			case <-g.closing:
				_ = s.Close()
			}
		}
	}
}

// admit counts an incoming stream until release is called. It returns false if there are too many.
func (g *guard) admit(from net.Addr) (release func(), ok bool) {
	host, _, err := net.SplitHostPort(from.String())
	if err != nil {
		host = from.String()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open >= maxStreams || g.byHost[host] >= maxStreamsPerHost {
		return nil, false
	}
	g.open++
	g.byHost[host]++
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.open--
		if g.byHost[host]--; g.byHost[host] == 0 {
			delete(g.byHost, host)
		}
	}, true
}

// stream is a connection of which memberlist reads one message, which was checked. The reader is memberlist's
// only goroutine for it.
type stream struct {
	net.Conn
	guard   *guard
	message *bytes.Reader // nil until it was read
	err     error         // why it cannot be read
	held    int64
	closed  sync.Once
	release func()
}

// Read implements net.Conn.
func (s *stream) Read(b []byte) (int, error) {
	if s.message == nil && s.err == nil {
		// The message is read as a whole before memberlist sees its first byte:
		// memberlist believes the lengths in it.
		in := intake{from: bufio.NewReader(s.Conn), limit: s.guard.maxStream, charge: s.charge}
		if s.err = s.guard.readMessage(&in); s.err == nil {
			s.message = bytes.NewReader(in.read)
		}
	}
	if s.err != nil {
		return 0, s.err
	}
	return s.message.Read(b)
}

// charge counts bytes that the stream holds, until it is closed.
func (s *stream) charge(n int) error {
	s.held += int64(n)
	if s.guard.held.Add(int64(n)) > maxHeld {
		return errFull
	}
	return nil
}

// Close implements net.Conn.
func (s *stream) Close() error {
	s.closed.Do(func() {
		s.guard.held.Add(-s.held)
		s.release()
	})
	return s.Conn.Close()
}

// readMessage reads one message of a stream, as memberlist's handleConn and sendAndReceiveState expect it.
func (g *guard) readMessage(in *intake) error {
	kind, err := in.byte()
	// A label precedes the message: a byte of length, and the label.
	if err == nil && kind == typeLabel {
		var n byte
		if n, err = in.byte(); err == nil {
			if _, err = in.take(int(n)); err == nil {
				kind, err = in.byte()
			}
		}
	}
	switch {
	case err != nil:
		return err
	case kind == typeEncrypted && g.keyed:
		// An encrypted message of a stream: its length in 4 bytes, and the ciphertext.
		n, err := in.number(4)
		if err == nil {
			_, err = in.take(n)
		}
		return err
	case g.keyed:
		return fmt.Errorf("%w: it is not encrypted", errRefused)
	case kind == typePing, kind == typeAck, kind == typeError:
		return in.value(maxDepth)
	case kind == typePushPull:
		return g.pushPull(in)
	}
	return fmt.Errorf("%w: type %d is not expected on a stream", errRefused, kind)
}

// checkPacket returns an error if memberlist must not see a packet.
func (g *guard) checkPacket(b []byte) error {
	if len(b) > maxPacket {
		return errTooLarge
	}
	if g.keyed {
		return nil
	}
	b, _, err := memberlist.RemoveLabelHeaderFromPacket(b)
	if err != nil {
		return err
	}
	// The type and four bytes of a checksum, which memberlist compares.
	if len(b) >= 5 && b[0] == typeChecksum {
		b = b[5:]
	}
	if len(b) < 2 || b[0] != typeCompound {
		return g.checkMessage(b)
	}
	// A compound packet: the number of messages, two bytes of length for each, and the
	// messages.
	in := &intake{from: bytes.NewReader(b[2:]), limit: maxPacket}
	sizes := make([]int, b[1])
	for i := range sizes {
		if sizes[i], err = in.number(2); err != nil {
			return err
		}
	}
	for _, n := range sizes {
		part, err := in.take(n)
		if err == nil {
			err = g.checkMessage(part)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkMessage checks one message in a packet.
func (g *guard) checkMessage(b []byte) error {
	if len(b) == 0 {
		return fmt.Errorf("%w: it is empty", errRefused)
	}
	switch b[0] {
	case typeUser:
		return nil
	case typePing, typeIndirectPing, typeAck, typeNack, typeSuspect, typeAlive, typeDead:
		in := &intake{from: bytes.NewReader(b[1:]), limit: maxPacket}
		if err := in.value(maxDepth); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%w: type %d is not expected in a packet", errRefused, b[0])
	}
	switch b[0] {
	case typeAlive:
		var a aliveMessage
		return g.checkMember(b[1:], &a, &a.Node, &a.Incarnation)
	case typeSuspect, typeDead:
		var a accusation
		return g.checkMember(b[1:], &a, &a.Node, &a.Incarnation)
	}
	return nil
}

// memberlist's messages about a member, with all their fields in their order: a message may be an array.
type (
	aliveMessage struct {
		Incarnation uint32
		Node        string
		Addr        []byte
		Port        uint16
		Meta        []byte
		Vsn         []uint8
	}
	accusation struct { // suspect and dead
		Incarnation uint32
		Node, From  string
	}
	memberState struct { // in a full exchange
		Name        string
		Addr        []byte
		Port        uint16
		Meta        []byte
		Incarnation uint32
		State       int
		Vsn         []uint8
	}
)

// checkMember decodes a message about a member, which has a name and a counter. It is refused if no member can have
// that.
func (g *guard) checkMember(b []byte, message any, name *string, incarnation *uint32) error {
	if err := codec.NewDecoderBytes(b, &codec.MsgpackHandle{}).Decode(message); err != nil {
		return err
	}
	if *incarnation > maxIncarnation {
		return fmt.Errorf("%w: incarnation %d of %.64q is more than any member has", errRefused, *incarnation, *name)
	}
	// Nobody but a forger gives this member such a counter: it takes another id before
	// others stop believing it (see maxIncarnation).
	if g.doubt != nil && *name == g.own && *incarnation > maxIncarnation/2 {
		g.doubted.Store(true)
		g.doubt()
	}
	return nil
}

// intake reads a message in msgpack, and keeps what it read. It allocates for what arrived, not for what the
// message claims.
type intake struct {
	from   io.Reader
	limit  int // bytes
	read   []byte
	charge func(n int) error // nil: nothing is charged
}

// chunk is the number of bytes that are read at a time: an announced length costs no
// memory before its bytes arrive.
const chunk = 4096

// take reads n bytes. They are valid until the next call.
func (in *intake) take(n int) ([]byte, error) {
	start := len(in.read)
	if n > in.limit-start {
		return nil, fmt.Errorf("%w: %d bytes and more, at most %d are accepted", errTooLarge, start+n, in.limit)
	}
	for len(in.read) < start+n {
		now := min(chunk, start+n-len(in.read))
		if in.charge != nil {
			if err := in.charge(now); err != nil {
				return nil, err
			}
		}
		at := len(in.read)
		in.read = slices.Grow(in.read, now)[:at+now]
		if _, err := io.ReadFull(in.from, in.read[at:]); err != nil {
			return nil, err
		}
	}
	return in.read[start:], nil
}

// byte reads one byte.
func (in *intake) byte() (byte, error) {
	b, err := in.take(1)
	if err != nil {
		return 0, err
	}
	return b[0], nil
}

// number reads an unsigned number of 1, 2 or 4 bytes.
func (in *intake) number(size int) (n int, err error) {
	b, err := in.take(size)
	for _, digits := range b {
		n = n<<8 | int(digits)
	}
	return n, err
}

// pushPull reads a full exchange: a header, the members, and the state that it announces.
func (g *guard) pushPull(in *intake) error {
	start := len(in.read)
	if err := in.value(maxDepth); err != nil {
		return err
	}
	var header struct{ Nodes, UserStateLen int } // as memberlist's
	if err := codec.NewDecoderBytes(in.read[start:], &codec.MsgpackHandle{}).Decode(&header); err != nil {
		return err
	}
	if header.Nodes < 0 || header.Nodes > maxMembers || header.UserStateLen < 0 {
		return fmt.Errorf("%w: %d members and %d bytes of state, at most %d members are accepted",
			errTooLarge, header.Nodes, header.UserStateLen, maxMembers)
	}
	// memberlist allocates its list of members before it decodes the first.
	if in.charge != nil {
		if err := in.charge(header.Nodes * memberSize); err != nil {
			return err
		}
	}
	for range header.Nodes {
		start := len(in.read)
		if err := in.value(maxDepth); err != nil {
			return err
		}
		var s memberState
		if err := g.checkMember(in.read[start:], &s, &s.Name, &s.Incarnation); err != nil {
			return err
		}
	}
	_, err := in.take(header.UserStateLen)
	return err
}

// value reads one value of msgpack: https://github.com/msgpack/msgpack/blob/master/spec.md.
func (in *intake) value(depth int) error {
	t, err := in.byte()
	if err != nil {
		return err
	}
	switch {
	case t <= 0x7f, t >= 0xe0: // small numbers
		return nil
	case t <= 0x8f:
		return in.values(2*int(t&0x0f), depth)
	case t <= 0x9f:
		return in.values(int(t&0x0f), depth)
	case t <= 0xbf:
		_, err = in.take(int(t & 0x1f))
		return err
	}
	f := formats[t-0xc0]
	if !f.known {
		return fmt.Errorf("%w: no msgpack", errRefused)
	}
	n := f.fixed
	if f.length > 0 {
		counted, err := in.number(f.length)
		if err != nil {
			return err
		}
		n += counted * f.each
	}
	if f.nested {
		return in.values(n, depth)
	}
	_, err = in.take(n)
	return err
}

// values reads n values.
func (in *intake) values(n, depth int) error {
	if depth == 0 {
		return fmt.Errorf("%w: values are nested too deep", errRefused)
	}
	for range n {
		if err := in.value(depth - 1); err != nil {
			return err
		}
	}
	return nil
}

// format is what follows the first byte of a value: a length of this many bytes, which counts bytes or values, and a
// fixed number of bytes.
type format struct {
	known               bool
	length, each, fixed int
	nested              bool
}

// formats of 0xc0 to 0xdf.
var formats = [32]format{
	0x00: {known: true}, 0x02: {known: true}, 0x03: {known: true}, // nil, false, true
	// binary
	0x04: {known: true, length: 1, each: 1},
	0x05: {known: true, length: 2, each: 1},
	0x06: {known: true, length: 4, each: 1},
	// extensions: the length does not count the byte of their type
	0x07: {known: true, length: 1, each: 1, fixed: 1},
	0x08: {known: true, length: 2, each: 1, fixed: 1},
	0x09: {known: true, length: 4, each: 1, fixed: 1},
	// floats
	0x0a: {known: true, fixed: 4}, 0x0b: {known: true, fixed: 8},
	// unsigned numbers
	0x0c: {known: true, fixed: 1},
	0x0d: {known: true, fixed: 2},
	0x0e: {known: true, fixed: 4},
	0x0f: {known: true, fixed: 8},
	// signed numbers
	0x10: {known: true, fixed: 1},
	0x11: {known: true, fixed: 2},
	0x12: {known: true, fixed: 4},
	0x13: {known: true, fixed: 8},
	// extensions of fixed length
	0x14: {known: true, fixed: 2}, 0x15: {known: true, fixed: 3}, 0x16: {known: true, fixed: 5},
	0x17: {known: true, fixed: 9}, 0x18: {known: true, fixed: 17},
	// strings
	0x19: {known: true, length: 1, each: 1},
	0x1a: {known: true, length: 2, each: 1},
	0x1b: {known: true, length: 4, each: 1},
	// arrays
	0x1c: {known: true, length: 2, each: 1, nested: true},
	0x1d: {known: true, length: 4, each: 1, nested: true},
	// maps: a key and a value each
	0x1e: {known: true, length: 2, each: 2, nested: true},
	0x1f: {known: true, length: 4, each: 2, nested: true},
}

// openNetwork listens with UDP and TCP. If the port to bind is 0 it takes one that is free for both.
func openNetwork(bind endpoint, log *log.Logger) (*memberlist.NetTransport, error) {
	for attempt := 1; ; attempt++ {
		t, err := memberlist.NewNetTransport(
			&memberlist.NetTransportConfig{BindAddrs: []string{bind.host}, BindPort: bind.port, Logger: log},
		)
		// The system chose the port for TCP; another process may have it for UDP.
		if err == nil || bind.port != 0 || attempt == 10 || !strings.Contains(err.Error(), "address already in use") {
			return t, err
		}
	}
}
