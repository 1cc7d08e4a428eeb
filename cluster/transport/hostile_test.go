package transport

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/encoding/gzip" // As packages of the program register it.
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"licensed/actors"
	"licensed/internal/budget"
	"licensed/messages/clusterv1"
)

// stranger speaks the protocol to a process, as it likes, with gRPC's own codec.
type stranger struct {
	t    *testing.T
	conn *grpc.ClientConn
}

func newStranger(t *testing.T, address string, options ...grpc.DialOption) *stranger {
	conn, err := grpc.NewClient(address, append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &stranger{t, conn}
}

// stream opens a stream with headers, as pairs.
func (s *stranger) stream(headers ...string) grpc.ClientStream {
	s.t.Helper()
	return s.until(s.t.Context(), headers...)
}

// until opens a stream that lasts until a context ends.
func (s *stranger) until(ctx context.Context, headers ...string) grpc.ClientStream {
	s.t.Helper()
	stream, err := s.conn.NewStream(metadata.AppendToOutgoingContext(ctx, headers...), &exchange, exchangeMethod)
	if err != nil {
		s.t.Fatal(err)
	}
	return stream
}

// greet opens a stream as a process of the cluster does.
func (s *stranger) greet() grpc.ClientStream {
	s.t.Helper()
	return s.stream(wireHeader, wireVersion, clusterHeader, "test")
}

// frameOf returns a frame with requests, which are numbered if they have no id.
func frameOf(all ...*clusterv1.Request) *clusterv1.Frame {
	for i, m := range all {
		if m.Id == 0 {
			m.Id = uint64(i + 7)
		}
	}
	return &clusterv1.Frame{Requests: all}
}

func statusRequest() *clusterv1.Request {
	return &clusterv1.Request{Body: &clusterv1.Request_Status{Status: &clusterv1.StatusRequest{}}}
}

// ask sends a request on a new stream and returns the response to it.
func (s *stranger) ask(m *clusterv1.Request) (*clusterv1.Response, error) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context()) // A connection has one stream at a time.
	defer cancel()
	return ask(s.t, s.until(ctx, wireHeader, wireVersion, clusterHeader, "test"), m)
}

func ask(t *testing.T, stream grpc.ClientStream, m *clusterv1.Request) (*clusterv1.Response, error) {
	t.Helper()
	// EOF: the other side has ended it, RecvMsg says why
	if err := stream.SendMsg(frameOf(m)); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return answer(t, stream, m.Id)
}

// answer returns the next response. Empty frames are passed over.
func answer(t *testing.T, stream grpc.ClientStream, id uint64) (*clusterv1.Response, error) {
	t.Helper()
	for {
		f := &clusterv1.Frame{}
		if err := stream.RecvMsg(f); err != nil {
			return nil, err
		}
		if len(f.Responses) == 0 {
			continue
		}
		if len(f.Responses) != 1 || f.Responses[0].Id != id {
			t.Fatalf("answer %v", f)
		}
		return f.Responses[0], nil
	}
}

// TestUnknownMethods: a process of a release with another protocol is told so.
func TestUnknownMethods(t *testing.T) {
	a := start(t, nil)
	s := newStranger(t, a.Address())
	for _, method := range []string{
		"/remote.Remoting/Receive", "/remote.Remoting/ListProcesses", "/no.Service/Method",
	} {
		err := s.conn.Invoke(t.Context(), method, &clusterv1.Frame{}, &clusterv1.Frame{})
		if status.Code(err) != codes.Unimplemented || !strings.Contains(err.Error(), "wire version "+wireVersion) {
			t.Errorf("%s: %v", method, err)
		}
	}
}

// TestOtherCluster: a process of another cluster is not asked, and not answered.
func TestOtherCluster(t *testing.T) {
	a, b := start(t, nil), start(t, func(c *Config) { c.Cluster = "other \xff" })
	b.handler.execute = func(context.Context, string, actors.Command) (actors.Reply, error) {
		t.Error("executed for another cluster")
		return actors.Reply{}, nil
	}
	if _, err := a.execute(t.Context(), b.Address(), "x"); !errors.Is(err, ErrNotSent) ||
		!strings.Contains(err.Error(), `cluster "other`) {
		t.Errorf("asking a process of another cluster: %v", err)
	}
	if b.journal.count("another cluster") == 0 {
		t.Error("nobody was told")
	}
	if r, err := ask(t, newStranger(t, a.Address()).stream(wireHeader, wireVersion),
		statusRequest()); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("who names no cluster is answered %v, %v", r, err)
	}
	b.handler.execute = nil
	start(t, func(c *Config) { c.Cluster = "other \xff" }).works(t, b.Address())
}

// TestOtherWireVersion: processes of incompatible releases refuse each other before a request is sent, and say why.
func TestOtherWireVersion(t *testing.T) {
	a := start(t, nil)
	for name, headers := range map[string][]string{
		"none": {clusterHeader, "test"}, "a later one": {clusterHeader, "test", wireHeader, "99"},
	} {
		r, err := ask(t, newStranger(t, a.Address()).stream(headers...), statusRequest())
		if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), `here "`+wireVersion+`"`) {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
	if a.journal.count("another wire version") != 2 {
		t.Errorf("observed %v", a.journal.said)
	}
	for name, address := range map[string]string{
		"another service": startServer(t, grpc.NewServer()),
		"a later version": startLiar(t, "99", func(grpc.ServerStream, *clusterv1.Frame) error { return nil }),
	} {
		if _, err := a.execute(t.Context(), address, "x"); !errors.Is(err, ErrNotSent) ||
			!errors.Is(err, errOtherWire) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// raw is a frame as its bytes.
type raw []byte

// rawCodec writes frames as they are.
type rawCodec struct{}

func (rawCodec) Marshal(v any) ([]byte, error)   { return v.(raw), nil }
func (rawCodec) Unmarshal(b []byte, v any) error { return proto.Unmarshal(b, v.(proto.Message)) }
func (rawCodec) Name() string                    { return "proto" }

// newRawStranger is a stranger that sends frames as their bytes.
func newRawStranger(t *testing.T, address string) *stranger {
	return newStranger(t, address, grpc.WithDefaultCallOptions(grpc.ForceCodec(rawCodec{})))
}

// TestBadFrames: what cannot be read ends the stream, and nothing else.
func TestBadFrames(t *testing.T) {
	a := start(t, nil)
	s := newRawStranger(t, a.Address())
	request := func(b ...byte) raw {
		return protowire.AppendBytes(protowire.AppendTag(nil, requestsField, protowire.BytesType), b)
	}
	for name, f := range map[string]raw{
		"garbage":                   {0xff},
		"cut short":                 request(1<<3|2, 1, 'x')[:3],
		"request of garbage":        request(0xff),
		"no text":                   request(1<<3|2, 1, 0xff),
		"a group that does not end": {1<<3 | 3}, "field 0": {0, 0},
	} {
		stream := s.greet()
		if err := stream.SendMsg(f); err != nil {
			t.Fatal(err)
		}
		if r, err := answer(t, stream, 0); status.Code(err) != codes.Internal {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
	if n := a.journal.count("unreadable frame"); n != 6 {
		t.Errorf("%d of 6 were observed", n)
	}
	if r, err := newStranger(t, a.Address()).ask(statusRequest()); err != nil || r.GetStatus().GetName() != "echo" {
		t.Errorf("afterwards: %v, %v", r, err)
	}
}

// emptyMessages returns a frame of n empty messages of a field.
func emptyMessages(field protowire.Number, n int) raw {
	return bytes.Repeat(protowire.AppendBytes(protowire.AppendTag(nil, field, protowire.BytesType), nil), n)
}

// TestEmptyMessages: decoding a frame of nothing but empty messages does not take a hundred times its size.
func TestEmptyMessages(t *testing.T) {
	const bytesOfFrame = 9 << 20
	ids := make([]byte, bytesOfFrame)
	for name, f := range map[string][]byte{
		"requests":   emptyMessages(requestsField, bytesOfFrame/2),
		"responses":  emptyMessages(responsesField, bytesOfFrame/2),
		"packed ids": protowire.AppendBytes(protowire.AppendTag(nil, abandonedField, protowire.BytesType), ids),
		"ids":        bytes.Repeat([]byte{byte(abandonedField) << 3, 0}, bytesOfFrame/2),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := codec{}.Unmarshal(mem.BufferSlice{mem.SliceBuffer(f)}, &incoming{})
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; took > bytesOfFrame {
			t.Errorf("%s: decoding took %d MiB", name, took>>20)
		}
		if err == nil || !strings.Contains(err.Error(), "at most 16384") {
			t.Errorf("%s: %v", name, err)
		}
	}
	a, b := start(t, nil), start(t, nil)
	stream := newRawStranger(t, a.Address()).greet()
	if err := stream.SendMsg(emptyMessages(requestsField, bytesOfFrame/2)); err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(&clusterv1.Frame{}); err != nil { // It accepts the stream.
		t.Fatal(err)
	}
	if err := stream.RecvMsg(&clusterv1.Frame{}); status.Code(err) != codes.Internal ||
		!strings.Contains(err.Error(), "at most 16384") {
		t.Errorf("answer %v", err)
	}
	b.works(t, a.Address())
}

// TestCompressedFrames: a compressed frame is not read, since it would take a thousand times the bytes that the
// connection counts.
func TestCompressedFrames(t *testing.T) {
	var compressed bytes.Buffer
	w := gzip.NewWriter(&compressed)
	_, err := w.Write(protowire.AppendBytes(protowire.AppendTag(nil, 100, protowire.BytesType), make([]byte, 8<<20)))
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	frame := binary.BigEndian.AppendUint32([]byte{1}, uint32(compressed.Len()))
	frame = append(frame, compressed.Bytes()...)
	for name, test := range map[string]struct {
		encodings []string
		want      codes.Code
		reason    string
	}{
		"gzip":                {[]string{"gzip"}, codes.Unimplemented, "compressed stream"},
		"named at last":       {[]string{"identity", "gzip"}, codes.Unimplemented, "compressed stream"},
		"unknown compressor":  {[]string{"zstd"}, codes.Unimplemented, ""}, // gRPC itself refuses it.
		"without a name":      {nil, codes.Internal, "unreadable frame"},
		"named identity":      {[]string{"identity"}, codes.Internal, "unreadable frame"},
		"identity named last": {[]string{"gzip", "identity"}, codes.Internal, "unreadable frame"},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := start(t, nil), start(t, nil)
			b.works(t, a.Address())
			code := postFrame(t, a.Address(), test.encodings, frame)
			if code != test.want {
				t.Errorf("code %v, not %v", code, test.want)
			}
			if test.reason != "" && a.journal.count("rejected "+test.reason) != 1 {
				t.Errorf("observed %v", a.journal.said)
			}
			b.works(t, a.Address())
		})
	}
}

// postFrame sends bytes on a stream of its own, with values of the header grpc-encoding, and returns the code that ends
// the stream.
func postFrame(t *testing.T, address string, encodings []string, frame []byte) codes.Code {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+address+exchangeMethod,
		bytes.NewReader(frame))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = http.Header{
		"Content-Type": {"application/grpc"}, "Te": {"trailers"}, "Grpc-Encoding": encodings,
	}
	r.Header.Set(wireHeader, wireVersion)
	r.Header.Set(clusterHeader, base64.StdEncoding.EncodeToString([]byte("test")))
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	res, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		t.Log(err) // The trailers say why.
	}
	text := res.Trailer.Get("Grpc-Status")
	if text == "" {
		text = res.Header.Get("Grpc-Status") // There is nothing else in the reply.
	}
	code, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("status %q: %v, %v", text, res.Header, res.Trailer)
	}
	return codes.Code(code)
}

// TestLongestFrame: what a writer puts into one frame is read, whatever its sizes.
func TestLongestFrame(t *testing.T) {
	parts := make([]part, 3*maxFrameMessages)
	for i := range parts {
		parts[i] = part(emptyMessages(responsesField, 1))
	}
	for len(parts) > 0 {
		n := fits(parts)
		b, err := codec{}.Marshal(outgoing(parts[:n]))
		if err != nil {
			t.Fatal(err)
		}
		f := &incoming{}
		if err := (codec{}).Unmarshal(b, f); err != nil || len(f.responses) != n {
			t.Fatalf("%d of %d responses, %v", len(f.responses), n, err)
		}
		parts = parts[n:]
	}
}

// TestSessionEndsWithinAFrame: a process stops reading a frame when its session has ended.
func TestSessionEndsWithinAFrame(t *testing.T) {
	a := start(t, func(c *Config) { c.MaxInFlight = 1 })
	a.hangs()
	stream := newRawStranger(t, a.Address()).greet()
	const n = 16_000
	if err := stream.SendMsg(emptyMessages(requestsField, n)); err != nil {
		t.Fatal(err)
	}
	until(t, "end of the session, whose responses are not read", func() bool {
		return a.journal.count("responses are not read") > 0 && a.sessionCount() == 0
	})
	// The refusals that wait, and those that gRPC has for the client.
	if refused := a.journal.count("too many requests"); refused > n/2 {
		t.Errorf("%d requests were refused", refused)
	}
}

func (p *process) sessionCount() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.sessions)
}

// TestUnknownRequests: requests and fields of later releases are answered, or skipped.
func TestUnknownRequests(t *testing.T) {
	a := start(t, nil)
	s := newStranger(t, a.Address())
	for name, m := range map[string]*clusterv1.Request{"nothing": {}, "later body": laterBody()} {
		if r, err := s.ask(m); err != nil || r.GetCode() != clusterv1.Code_CODE_NOT_SUPPORTED {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
	if r, err := s.ask(laterField()); err != nil || r.GetStatus().GetName() != "echo" {
		t.Errorf("request with an unknown field: %v, %v", r, err)
	}
	stream := s.greet()
	later := &clusterv1.Frame{}
	later.ProtoReflect().SetUnknown([]byte{0xa2, 0x06, 0x00})
	for _, f := range []*clusterv1.Frame{{}, later, {Closing: true}, {Responses: []*clusterv1.Response{{Id: 7}, {}}}} {
		if err := stream.SendMsg(f); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := ask(t, stream, statusRequest()); err != nil || r.GetStatus().GetName() != "echo" {
		t.Errorf("after frames without a meaning: %v, %v", r, err)
	}
}

// laterBody is a request of a later release, which asks for something new.
func laterBody() *clusterv1.Request {
	m := &clusterv1.Request{Kind: "Kind"}
	m.ProtoReflect().SetUnknown([]byte{0xa2, 0x06, 0x00}) // field 100
	return m
}

// laterField is one with a field that is new.
func laterField() *clusterv1.Request {
	m := statusRequest()
	m.ProtoReflect().SetUnknown([]byte{0xa2, 0x06, 0x00})
	return m
}

// TestNoise: bytes that are no gRPC, connections that say nothing, and too many of them.
func TestNoise(t *testing.T) {
	a, b := start(t, func(c *Config) { c.MaxPeers = 30 }), start(t, nil)
	random := rand.NewChaCha8([32]byte{1})
	var silent []net.Conn
	for i := range 60 {
		conn, err := net.Dial("tcp", a.Address())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if i%2 == 0 {
			silent = append(silent, conn)
			continue
		}
		noise := make([]byte, random.Uint64()%4096)
		_, _ = random.Read(noise)
		if i%4 == 1 {
			noise = append([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), noise...)
		}
		_, _ = conn.Write(noise)
	}
	until(t, "refusal of one too many", func() bool {
		conn, err := net.Dial("tcp", a.Address())
		if err == nil {
			conn.Close()
		}
		return a.journal.count("rejected too many connections") > 0
	})
	for _, c := range silent {
		c.Close()
	}
	until(t, "place for another", func() bool { _, err := b.execute(t.Context(), a.Address(), "x"); return err == nil })
}

// TestManyStreams: a connection has one stream. The second one waits until the first one has ended.
func TestManyStreams(t *testing.T) {
	a := start(t, nil)
	s := newStranger(t, a.Address())
	ctx, cancel := context.WithCancel(t.Context())
	first := s.until(ctx, wireHeader, wireVersion, clusterHeader, "test")
	if r, err := ask(t, first, statusRequest()); err != nil {
		t.Fatalf("%v, %v", r, err)
	}
	second := make(chan error, 1)
	go func() {
		_, err := s.ask(statusRequest())
		second <- err
	}()
	for range 100 {
		if r, err := ask(t, first, statusRequest()); err != nil {
			t.Fatalf("%v, %v", r, err)
		}
	}
	if n := a.sessionCount(); n != 1 {
		t.Errorf("%d streams", n)
	}
	cancel()
	if err := <-second; err != nil {
		t.Errorf("then, of another one: %v", err)
	}
}

// stallingConn loses what is written after a number of bytes, and says that it was written.
type stallingConn struct {
	net.Conn
	left int
}

func (c *stallingConn) Write(p []byte) (int, error) {
	n := min(len(p), c.left)
	c.left -= n
	if _, err := c.Conn.Write(p[:n]); err != nil {
		return 0, err
	}
	return len(p), nil
}

// startFrame begins a frame on a connection of its own, of which a number of bytes arrive.
func startFrame(t *testing.T, address string, f raw, arrives int) {
	s := newStranger(t, address, grpc.WithDefaultCallOptions(grpc.ForceCodec(rawCodec{})),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
			return &stallingConn{conn, arrives}, err
		}))
	stream := s.greet()
	go func() { _ = stream.SendMsg(f) }() // It may wait until the connection is closed.
}

// TestUnfinishedFrames: what has arrived of frames that are never complete is bounded, of one address and of all. Peers
// that send ordinary frames are served meanwhile.
func TestUnfinishedFrames(t *testing.T) {
	a, b := start(t, nil), start(t, nil)
	b.works(t, a.Address())
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	const strangers, arrives = 24, 8 << 20
	frame := make(raw, arrives+1<<19)
	for range strangers {
		startFrame(t, a.Address(), frame, arrives)
	}
	most := a.listener.unfinished.PerAddress()
	until(t, "refusal of all but those that fit", func() bool {
		b.works(t, a.Address())
		refused := a.journal.count("rejected too many bytes of unfinished frames of one address")
		return refused >= strangers-int(most/(arrives-allowanceBytes))
	})
	runtime.GC()
	runtime.ReadMemStats(&after)
	took := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	if took > most+strangers*(allowanceBytes+windowBytes)+16<<20 {
		t.Errorf("%d MiB are held", took>>20)
	}
}

// useUp has foreign addresses take the whole budget of unfinished frames.
func (p *process) useUp(t *testing.T) {
	b := p.listener.unfinished
	for i := 1; b.Used() < b.Limit(); i++ {
		foreign := budget.FromRemote(fmt.Sprintf("10.0.0.%d:1", i))
		grant, err := b.Take(min(b.PerAddress(), b.Limit()-b.Used()), foreign)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(grant.Release)
	}
}

// TestSmallFramesNeedNoBudget: a peer whose frames are not larger than a window is served while others use up the
// budget, also if it sends while the process works on the frame before.
func TestSmallFramesNeedNoBudget(t *testing.T) {
	inFrame, proceed := make(chan struct{}, 1), make(chan struct{})
	a := start(t, func(c *Config) {
		c.MaxInFlight = 1
		rejected := c.Listener.Rejected
		c.Listener.Rejected = func(reason string) {
			rejected(reason)
			if reason == "too many requests" { // It is told while the frame is being worked on.
				select {
				case inFrame <- struct{}{}:
				default:
				}
				<-proceed
			}
		}
	})
	a.useUp(t)
	begun := a.hangs()
	stream := newStranger(t, a.Address()).greet()
	large := func(id uint64) *clusterv1.Frame {
		return frameOf(&clusterv1.Request{Id: id, Body: &clusterv1.Request_Command{Command: &clusterv1.Command{
			Payload: &clusterv1.Payload{Type: "string", Data: make([]byte, 60<<10)},
		}}})
	}
	if err := stream.SendMsg(large(1)); err != nil {
		t.Fatal(err)
	}
	<-begun
	const frames = 6
	sent := make(chan error, 1)
	go func() {
		var err error
		for id := uint64(2); err == nil && id < 2+frames; id++ {
			err = stream.SendMsg(large(id)) // It waits while the window is full.
		}
		sent <- err
	}()
	<-inFrame
	// gRPC opens the window again only when a quarter of it was read.
	until(t, "full window", func() bool {
		return a.unfinishedBytes() > windowBytes+16<<10 || a.journal.count("unfinished frames") > 0
	})
	close(proceed)
	if err := <-sent; err != nil {
		t.Errorf("frames are not sent: %v", err)
	}
	for refused := 0; refused < frames; {
		f := &clusterv1.Frame{}
		if err := stream.RecvMsg(f); err != nil {
			t.Fatalf("after %d responses: %v", refused, err)
		}
		for _, r := range f.GetResponses() {
			if refused++; r.GetCode() != clusterv1.Code_CODE_OVERLOADED {
				t.Errorf("request %d: %v", r.GetId(), r)
			}
		}
	}
}

// unfinishedBytes returns what arrived on all connections since the last frames were handled.
func (p *process) unfinishedBytes() (n int64) {
	p.listener.mu.Lock()
	defer p.listener.mu.Unlock()
	for _, c := range p.listener.conns {
		c.mu.Lock()
		n += c.unfinished
		c.mu.Unlock()
	}
	return n
}

// TestBytesBeforeTheHandshake: a connection that sends on and on, and opens no stream, is closed.
func TestBytesBeforeTheHandshake(t *testing.T) {
	a := start(t, nil)
	conn, err := net.Dial("tcp", a.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const unknown = "\x00\x40\x00\xbe\x00\x00\x00\x00\x00" // a frame of HTTP/2 of 16 KiB, of a type that has no meaning
	_, err = conn.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"))
	for err == nil {
		_, err = conn.Write(append([]byte(unknown), make([]byte, 16<<10)...))
	}
	if a.journal.count("rejected too many bytes before the handshake") != 1 {
		t.Errorf("the connection ended with %v", err)
	}
}

// TestConnectionsOfOneAddress: one address gets a part of the connections, and others the rest.
func TestConnectionsOfOneAddress(t *testing.T) {
	a := start(t, func(c *Config) { c.MaxPeers = 2 * minShare })
	b := start(t, nil)
	for range minShare + 1 {
		conn, err := net.Dial("tcp", a.Address())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	until(t, "refusal", func() bool { return a.journal.count("rejected too many connections of one address") > 0 })
	if _, err := b.execute(t.Context(), a.Address(), "x"); !errors.Is(err, ErrNotSent) {
		t.Errorf("from the same address: %v", err)
	}
	other := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}}
	conn, err := grpc.NewClient("passthrough:///"+a.Address(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return other.DialContext(ctx, "tcp", address)
		}))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if r, err := (&stranger{t, conn}).ask(statusRequest()); err != nil {
		t.Errorf("from another address: %v, %v", r, err)
	}
}

// TestUnreadResponses: a process that asks on and on and never reads is not kept, by the number of its requests or by
// the bytes of the responses.
func TestUnreadResponses(t *testing.T) {
	for name, limit := range map[string]func(*Config){
		"number": func(c *Config) { c.MaxInFlight = 16 },
		"bytes":  func(c *Config) { c.MaxMessageBytes, c.MaxPeerBytes = 1<<20, 1<<20 },
	} {
		t.Run(name, func(t *testing.T) {
			a := start(t, limit)
			stream := newStranger(t, a.Address()).greet()
			a.handler.query = func(context.Context, string, any) (actors.Answer, error) {
				return actors.Answer{Value: strings.Repeat("x", 256<<10)}, nil
			}
			question := &clusterv1.Request{
				Body: &clusterv1.Request_Query{Query: &clusterv1.Query{Payload: &clusterv1.Payload{Type: "string"}}},
			}
			f := frameOf(question)
			for range 100 {
				f.Requests = append(f.Requests, question)
			}
			until(t, "end of the stream", func() bool { return stream.SendMsg(f) != nil })
			if a.journal.count("responses are not read") == 0 {
				t.Error("nothing was observed")
			}
			until(t, "end of what was held", func() bool { return a.bytes.Load() == 0 && a.working.Load() == 0 })
		})
	}
}

// TestBytesInFlight: requests of one process, and of all, are bounded in bytes.
func TestBytesInFlight(t *testing.T) {
	a := start(t, func(c *Config) { c.MaxMessageBytes, c.MaxPeerBytes, c.MaxBytes = 64<<10, 64<<10, 96<<10 })
	begun := a.hangs()
	large := func(id uint64) *clusterv1.Request {
		return &clusterv1.Request{Id: id, Body: &clusterv1.Request_Command{Command: &clusterv1.Command{
			Payload: &clusterv1.Payload{Type: "string", Data: make([]byte, 40<<10)},
		}}}
	}
	first := newStranger(t, a.Address()).greet()
	second := newStranger(t, a.Address()).greet()
	third := newStranger(t, a.Address()).greet()
	for _, stream := range []grpc.ClientStream{first, second} { // 40 of 64 KiB each, 80 of 96 together
		if err := stream.SendMsg(frameOf(large(1))); err != nil {
			t.Fatal(err)
		}
		<-begun
	}
	for name, stream := range map[string]grpc.ClientStream{"of one": first, "of all": third} {
		if r, err := ask(t, stream, large(2)); err != nil || r.GetCode() != clusterv1.Code_CODE_OVERLOADED {
			t.Errorf("bytes %s: %v, %v", name, r.GetCode(), err)
		}
	}
	if r, err := ask(t, third, statusRequest()); err != nil || r.GetStatus().GetName() != "echo" {
		t.Errorf("a small request: %v, %v", r, err)
	}
}

// liar is a server of the protocol that answers as a test says.
type liar func(stream grpc.ServerStream, f *clusterv1.Frame) error

// startLiar calls say once when a stream is opened, with nil, and for each frame.
func startLiar(t *testing.T, wire string, say liar) string {
	server := grpc.NewServer()
	server.RegisterService(&grpc.ServiceDesc{ServiceName: service, HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{
			StreamName: "Exchange", ClientStreams: true, ServerStreams: true,
			Handler: func(_ any, stream grpc.ServerStream) error {
				var f *clusterv1.Frame
				if err := stream.SetHeader(metadata.Pairs(clusterHeader, "test", wireHeader, wire)); err != nil {
					return err
				}
				for {
					if err := say(stream, f); err != nil {
						return err
					}
					if f == nil {
						if err := stream.SendMsg(&clusterv1.Frame{}); err != nil {
							return err
						}
					}
					f = &clusterv1.Frame{}
					if err := stream.RecvMsg(f); err != nil {
						return err
					}
				}
			},
		}}}, nil)
	return startServer(t, server)
}

func startServer(t *testing.T, server *grpc.Server) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return listener.Addr().String()
}

// TestLyingPeer: whatever a peer answers, the request ends with what is known of it.
func TestLyingPeer(t *testing.T) {
	// respond answers the first request of each frame that has any with a response that may be spoilt, or with none.
	respond := func(spoil func(r *clusterv1.Response) *clusterv1.Response) liar {
		return func(s grpc.ServerStream, f *clusterv1.Frame) error {
			if len(f.GetRequests()) == 0 {
				return nil
			}
			answer := &clusterv1.Frame{}
			if r := spoil(&clusterv1.Response{Id: f.Requests[0].Id, Code: clusterv1.Code_CODE_OK}); r != nil {
				answer.Responses = append(answer.Responses, r)
			}
			return s.SendMsg(answer)
		}
	}
	liars := map[string]struct {
		say  liar
		want error
	}{
		"no acceptance": {
			func(s grpc.ServerStream, _ *clusterv1.Frame) error { <-s.Context().Done(); return nil }, ErrNotSent,
		},
		"refused": {func(grpc.ServerStream, *clusterv1.Frame) error {
			return status.Error(codes.PermissionDenied, "no")
		}, ErrNotSent},
		"empty answer": {respond(func(r *clusterv1.Response) *clusterv1.Response { return r }), ErrInternal},
		"later code": {
			respond(func(r *clusterv1.Response) *clusterv1.Response { r.Code = 77; return r }), ErrInternal,
		},
		"no code":   {respond(func(r *clusterv1.Response) *clusterv1.Response { r.Code = 0; return r }), ErrInternal},
		"no answer": {respond(func(*clusterv1.Response) *clusterv1.Response { return nil }), actors.ErrUnknownOutcome},
		"another's": {
			respond(func(r *clusterv1.Response) *clusterv1.Response { r.Id += 9; return r }), actors.ErrUnknownOutcome,
		},
		"not understood": {respond(func(r *clusterv1.Response) *clusterv1.Response {
			r.Code = clusterv1.Code_CODE_NOT_SUPPORTED
			return r
		}), actors.ErrNotSupported},
		"breaks off": {func(_ grpc.ServerStream, f *clusterv1.Frame) error {
			if f == nil {
				return nil
			}
			return io.ErrUnexpectedEOF
		}, actors.ErrUnknownOutcome},
		"garbage": {func(s grpc.ServerStream, f *clusterv1.Frame) error {
			if f == nil {
				return nil
			}
			garbage := &clusterv1.Frame{}
			garbage.ProtoReflect().SetUnknown([]byte{byte(responsesField)<<3 | 2, 1, 0xff})
			return s.SendMsg(garbage)
		}, actors.ErrUnknownOutcome},
	}
	hasty := start(t, func(c *Config) { c.DialTimeout = 100 * time.Millisecond })
	patient := start(t, func(c *Config) { c.DialTimeout, c.Silence = time.Minute, time.Minute })
	for name, c := range liars {
		a, timeout := patient, time.Minute
		switch name { // what is waited for in vain
		case "no acceptance":
			a = hasty
		case "no answer", "another's":
			timeout = 200 * time.Millisecond
		}
		address := startLiar(t, wireVersion, c.say)
		_, err := a.execute(within(t, timeout), address, "x")
		for errors.Is(err, actors.ErrExpired) { // before it was written, as on a busy machine
			timeout *= 2
			_, err = a.execute(within(t, timeout), address, "x")
		}
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestIdleConnections: connections without a stream do not keep peers out. One of them ignores that it is told to
// leave.
func TestIdleConnections(t *testing.T) {
	t.Parallel()
	a, b := start(t, func(c *Config) { c.MaxPeers, c.MaxIdle = 2, 100*time.Millisecond }), start(t, nil)
	s := newStranger(t, a.Address())
	s.conn.Connect()
	for state := s.conn.GetState(); state != connectivity.Ready; state = s.conn.GetState() {
		if !s.conn.WaitForStateChange(t.Context(), state) {
			t.Fatal(state)
		}
	}
	deaf, err := net.Dial("tcp", a.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	settings := "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	if _, err := deaf.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings)); err != nil {
		t.Fatal(err)
	}
	until(t, "place for a peer", func() bool { _, err := b.execute(t.Context(), a.Address(), "x"); return err == nil })
	if _, err := io.Copy(io.Discard, deaf); err != nil {
		t.Log(err) // A reset closes it, too.
	}
	for range 5 { // A peer's stream is no idle connection.
		time.Sleep(50 * time.Millisecond)
		if _, err := b.execute(t.Context(), a.Address(), "x"); err != nil {
			t.Errorf("later: %v", err)
		}
	}
}
