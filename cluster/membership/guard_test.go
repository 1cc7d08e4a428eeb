package membership

import (
	"bytes"
	"compress/lzw"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-msgpack/v2/codec"
	"github.com/hashicorp/memberlist"

	"licensed/messages/clusterv1"
)

// message is one of memberlist's: a type and a value.
func message(kind byte, value any) []byte {
	var b bytes.Buffer
	b.WriteByte(kind)
	if err := codec.NewEncoder(&b, &codec.MsgpackHandle{}).Encode(value); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// pushPull is a full exchange that claims to list members and to have this many bytes of state.
func pushPull(nodes, state int, rest ...byte) []byte {
	return append(message(typePushPull, map[string]any{"Nodes": nodes, "UserStateLen": state, "Join": true}), rest...)
}

// bomb is a compressed message of a few kilobytes that expands to size bytes.
func bomb(size int) []byte {
	var b bytes.Buffer
	w := lzw.NewWriter(&b, lzw.LSB, 8)
	_, _ = w.Write(make([]byte, size))
	_ = w.Close()
	return message(9, map[string]any{"Algo": 0, "Buf": b.Bytes()})
}

// ignored is a value with a field that nobody knows, of 4 GiB by its own account.
var ignored = []byte{0x81, 0xa1, 'x', 0xc9, 0xff, 0xff, 0xff, 0xff, 1}

// compound is a packet of several messages.
func compound(parts ...[]byte) []byte {
	b := []byte{typeCompound, byte(len(parts))}
	for _, p := range parts {
		b = binary.BigEndian.AppendUint16(b, uint16(len(p)))
	}
	return append(b, bytes.Join(parts, nil)...)
}

func labelled(b []byte) []byte { return append([]byte{typeLabel, 4, 't', 'e', 's', 't'}, b...) }

func encrypted(claim uint32, b []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{typeEncrypted}, claim), b...)
}

// hostile are streams that claim more than they have, or that expand.
var hostile = map[string][]byte{
	"20 MiB of state":           pushPull(0, 20<<20),
	"a million members":         pushPull(1<<20, 0),
	"as many members as exist":  pushPull(maxMembers+1, 0),
	"negative":                  pushPull(-1, -1),
	"compressed":                bomb(40 << 20),
	"a field of 4 GiB":          pushPull(1, 0, ignored...),
	"a header of 4 GiB":         append([]byte{typePushPull}, ignored...),
	"a name of 4 GiB":           pushPull(1, 0, 0x81, 0xa4, 'N', 'a', 'm', 'e', 0xdb, 0xff, 0xff, 0xff, 0xff),
	"a map of 4 billion":        pushPull(1, 0, 0xdf, 0xff, 0xff, 0xff, 0xff),
	"nested":                    pushPull(1, 0, bytes.Repeat([]byte{0x91}, 100_000)...),
	"no msgpack":                pushPull(1, 0, 0xc1),
	"a user message of 20 MiB":  message(typeUser, map[string]any{"UserMsgLen": 20 << 20}),
	"a ping with 4 GiB":         append([]byte{typePing}, ignored...),
	"encrypted, 20 MiB":         encrypted(20<<20, nil),
	"an unknown type":           {200},
	"a label that is cut off":   {typeLabel, 200, 'x'},
	"20 MiB that really arrive": pushPull(0, 20<<20, make([]byte, 20<<20)...),
}

// allocated returns the number of bytes that were allocated since the process began.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// counting counts what is read.
type counting struct {
	io.Reader
	n int
}

func (c *counting) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.n += n
	return n, err
}

func TestStreamsAllocateWhatArrived(t *testing.T) {
	for name, b := range hostile {
		for _, keyed := range []bool{false, true} {
			g := &guard{keyed: keyed, maxStream: baseStream}
			from := &counting{Reader: bytes.NewReader(labelled(b))}
			in := intake{from: from, limit: g.maxStream, charge: func(int) error { return nil }}
			before := allocated()
			err := g.readMessage(&in)
			used := allocated() - before
			if err == nil || used > 3*baseStream || from.n > baseStream {
				t.Errorf("%s, keyed: %t: %v, %d bytes allocated, %d read", name, keyed, err, used, from.n)
			}
		}
	}
	node := message(0, map[string]any{
		"Name": "a", "Addr": []byte{127, 0, 0, 1}, "Meta": make([]byte, 300), "Vsn": []byte{1, 5, 5, 1, 1, 1},
	})[1:]
	good := map[string][]byte{
		"exchange":  pushPull(2, 3, append(append(node, node...), "abc"...)...),
		"ping":      message(typePing, map[string]any{"SeqNo": 7, "Node": "a"}),
		"answer":    message(typeAck, map[string]any{"SeqNo": uint32(1 << 31), "Payload": []byte("x")}),
		"error":     message(typeError, map[string]any{"Error": "no"}),
		"encrypted": encrypted(3, []byte("abc")),
	}
	for name, b := range good {
		g := &guard{keyed: name == "encrypted", maxStream: baseStream}
		in := intake{from: bytes.NewReader(append(bytes.Clone(b), "not read"...)), limit: g.maxStream}
		if err := g.readMessage(&in); err != nil || !bytes.Equal(in.read, b) {
			t.Errorf("%s: read %d of %d bytes, %v", name, len(in.read), len(b), err)
		}
	}
}

func TestPacketsAreChecked(t *testing.T) {
	ping, user := message(typePing, map[string]any{"SeqNo": 1, "Node": "a"}), []byte{typeUser, 1, 2, 3}
	alive := message(typeAlive, map[string]any{"Incarnation": 1, "Node": "a", "Addr": []byte{127, 0, 0, 1},
		"Port": 7946, "Meta": make([]byte, 500), "Vsn": []byte{1, 5, 5, 1, 1, 1}})
	sum := []byte{typeChecksum, 0, 0, 0, 0}
	open, keyed := &guard{}, &guard{keyed: true}
	for name, b := range map[string][]byte{
		"ping":            ping,
		"several":         compound(ping, alive, user),
		"with a checksum": append(bytes.Clone(sum), compound(ping, user)...),
		"with a label":    labelled(compound(ping, user)),
	} {
		if err := open.checkPacket(b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	lzw := bomb(1 << 20)[:200]
	for name, b := range map[string][]byte{
		"compressed":              lzw,
		"compressed among others": compound(ping, lzw), "compressed with a checksum": append(bytes.Clone(sum), lzw...),
		"several in several": compound(compound(lzw)), "a field of 4 GiB": append([]byte{typeAlive}, ignored...),
		"the same among others": labelled(compound(ping, append([]byte{typeSuspect}, ignored...))),
		"a stream's message":    pushPull(1, 1),
		"too large":             append([]byte{typeUser}, make([]byte, maxPacket)...),
		"nothing":               {},
		"an empty part":         compound(nil),
		"cut off":               compound(ping, user)[:9],
		"a label without end":   {typeLabel, 9}, "garbage": []byte("garbage"),
	} {
		if err := open.checkPacket(b); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if keyed.checkPacket([]byte("what memberlist cannot decrypt")) != nil ||
		keyed.checkPacket(make([]byte, maxPacket+1)) == nil {
		t.Error("with a key, sizes alone count")
	}
}

// TestCountersOfMembers: messages about a member with a counter that no member has are refused, however they are
// encoded, and one about its own id with a counter that it should not have is reported.
func TestCountersOfMembers(t *testing.T) {
	const own = "a@00000001"
	reported := 0
	g := &guard{maxStream: baseStream, own: own, doubt: func() { reported++ }}
	state := func(incarnation uint32, array bool) []byte {
		h := &codec.MsgpackHandle{}
		h.StructToArray = array
		var b []byte
		if err := codec.NewEncoderBytes(&b, h).Encode(memberState{Name: own, Incarnation: incarnation}); err != nil {
			t.Fatal(err)
		}
		return b
	}
	array := func(kind byte, fields ...any) []byte { return message(kind, fields) }
	for _, c := range []struct {
		incarnation      uint32
		refused, doubted bool
	}{
		{1, false, false}, {maxIncarnation / 2, false, false}, {maxIncarnation/2 + 1, false, true},
		{maxIncarnation, false, true},
		{maxIncarnation + 1, true, false}, {math.MaxUint32, true, false},
	} {
		for name, b := range map[string][]byte{
			"alive":             message(typeAlive, aliveMessage{Incarnation: c.incarnation, Node: own}),
			"alive as an array": array(typeAlive, c.incarnation, own, nil, 1, nil, nil),
			"suspect":           message(typeSuspect, accusation{c.incarnation, own, "b"}),
			"dead":              message(typeDead, accusation{c.incarnation, own, own}),
			"dead as an array":  array(typeDead, c.incarnation, own, "b"),
			"among others": labelled(compound([]byte{typeUser, 1},
				message(typeDead, accusation{c.incarnation, own, "b"}))),
		} {
			before := reported
			if err := g.checkPacket(b); errors.Is(err, errRefused) != c.refused || (reported > before) != c.doubted {
				t.Errorf("%s with %d: %v, reported: %t", name, c.incarnation, err, reported > before)
			}
		}
		for _, array := range []bool{false, true} {
			before := reported
			in := intake{
				from:  bytes.NewReader(pushPull(2, 0, append(state(1, false), state(c.incarnation, array)...)...)),
				limit: baseStream,
			}
			if err := g.readMessage(&in); errors.Is(err, errRefused) != c.refused || (reported > before) != c.doubted {
				t.Errorf("exchange with %d: %v, reported: %t", c.incarnation, err, reported > before)
			}
		}
	}
}

func TestStreamsHoldLittleTogether(t *testing.T) {
	g := &guard{maxStream: baseStream, byHost: map[string]int{}}
	var open []*stream
	exchange := pushPull(0, baseStream-100, make([]byte, baseStream)...)
	refused := 0
	for range maxStreams {
		ours, theirs := net.Pipe()
		go func() { _, _ = theirs.Write(exchange) }()
		s := &stream{Conn: ours, guard: g, release: func() {}}
		switch _, err := s.Read(make([]byte, 1)); {
		case errors.Is(err, errFull):
			refused++
		case err != nil:
			t.Fatal(err)
		}
		open = append(open, s)
		defer theirs.Close()
	}
	if n := maxStreams - refused; n < maxHeld/baseStream/2 || n > maxHeld/baseStream+1 {
		t.Errorf("%d streams of 1 MiB were read", n)
	}
	for _, s := range open {
		_ = s.Close()
		_ = s.Close()
	}
	if n := g.held.Load(); n != 0 {
		t.Errorf("%d bytes are held by no stream", n)
	}
}

func TestStreamsPerHost(t *testing.T) {
	g := &guard{byHost: map[string]int{}}
	host := func(i int) net.Addr { return &net.TCPAddr{IP: net.IPv4(10, 0, 0, byte(i)), Port: 1000 + i} }
	var releases []func()
	for i := range maxStreams / maxStreamsPerHost {
		for range maxStreamsPerHost {
			release, ok := g.admit(host(i))
			if !ok {
				t.Fatal("too few are admitted")
			}
			releases = append(releases, release)
		}
		if _, ok := g.admit(host(i)); ok {
			t.Error("one host has more than its share")
		}
	}
	if _, ok := g.admit(host(200)); ok {
		t.Error("more than all are admitted")
	}
	releases[0]()
	if _, ok := g.admit(host(0)); !ok {
		t.Error("a place that is free again is not given")
	}
}

// TestHostileStreams has unknown processes claim and send what they like, as many at a time as they can, and some that
// say nothing; meanwhile others join, and the member's memory is bounded.
func TestHostileStreams(t *testing.T) {
	a := start(t, quick("a"))
	dial := func(host byte) net.Conn {
		stranger := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, host)}}
		c, err := stranger.DialContext(t.Context(), "tcp", a.Address())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	for range 2 * maxStreamsPerHost { // They keep their places until memberlist's deadline.
		_, _ = dial(2).Write(labelled(pushPull(100, 1000)))
	}
	before := allocated()
	const rounds = 5
	for range rounds {
		for name, b := range hostile {
			if name == "20 MiB that really arrive" {
				b = b[:2<<20]
			}
			c := dial(3)
			_, _ = c.Write(labelled(b))
			_ = c.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, c) // until it is refused
			_ = c.Close()
		}
	}
	c := quick("b")
	c.Join = []string{a.Address()}
	b := start(t, c)
	until("joined", t, func() bool { return names(a) == "a b" && names(b) == "a b" })
	if used := allocated() - before; used > 64<<20 {
		t.Errorf("%d MiB allocated", used>>20)
	}
}

// TestHostileAnswers has a member dial an unknown process that was listed as one.
func TestHostileAnswers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	answered := make(chan struct{}, 1000)
	answers := [][]byte{pushPull(1<<20, 0), pushPull(0, 20<<20), bomb(40 << 20), pushPull(1, 0, ignored...)}
	go func() {
		for i := 0; ; i++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write(answers[i%len(answers)])
			_ = c.Close()
			answered <- struct{}{}
		}
	}()
	c := quick("a")
	c.Join = []string{l.Addr().String()}
	before := allocated()
	start(t, c)
	for range 2 * len(answers) {
		<-answered
	}
	if used := allocated() - before; used > 64<<20 {
		t.Errorf("%d MiB allocated", used>>20)
	}
}

// TestHostilePackets: the member still answers while packets of every kind arrive.
func TestHostilePackets(t *testing.T) {
	a := start(t, quick("a"))
	c, err := net.Dial("udp", a.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	packets := [][]byte{
		bomb(20 << 20), bomb(1 << 20), append([]byte{typeAlive}, ignored...),
		compound(append([]byte{typePing}, ignored...)), []byte(strings.Repeat("x", 2000)),
	}
	before := allocated()
	for range 20 {
		for _, b := range packets {
			_, _ = c.Write(labelled(b))
			time.Sleep(time.Millisecond)
		}
	}
	k := quick("b")
	k.Join = []string{a.Address()}
	b := start(t, k)
	until("joined", t, func() bool { return names(a) == "a b" && names(b) == "a b" })
	if used := allocated() - before; used > 64<<20 {
		t.Errorf("%d MiB allocated", used>>20)
	}
}

// TestLargeState: the largest cluster that is possible can exchange its state.
func TestLargeState(t *testing.T) {
	r := &recorder{}
	ca, cb := quick("a"), quick("b")
	ca.Listener, cb.Listener.State = r.listener(), func() *clusterv1.News {
		return rowsOf(0, 65_536)
	}
	a := start(t, ca)
	cb.Join = []string{a.Address()}
	start(t, cb)
	until("state", t, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.news) > 0 && len(r.news[0].Shards) == 65_536
	})
}

func FuzzGuard(f *testing.F) {
	for _, b := range hostile {
		f.Add(b[:min(len(b), 1000)])
	}
	f.Add(compound(message(typePing, map[string]any{"SeqNo": 1})))
	g := &guard{maxStream: 1 << 16}
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = g.checkPacket(b)
		in := intake{from: bytes.NewReader(b), limit: g.maxStream}
		if g.readMessage(&in) == nil && !bytes.HasPrefix(b, in.read) {
			t.Error("what was read is not what arrived")
		}
		// The value that the guard sees is the one that memberlist's decoder reads.
		in = intake{from: bytes.NewReader(b), limit: 1 << 16}
		if in.value(maxDepth) != nil {
			return
		}
		var v struct{ Nodes, UserStateLen int }
		d := codec.NewDecoderBytes(b, &codec.MsgpackHandle{})
		if d.Decode(&v) == nil && d.NumBytesRead() != len(in.read) {
			t.Error(fmt.Sprintf("%x", b), "is read as", d.NumBytesRead(), "bytes, and as", len(in.read))
		}
	})
}

var _ memberlist.NodeAwareTransport = (*guard)(nil)
