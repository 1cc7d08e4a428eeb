package transport

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	protocluster "github.com/asynkron/protoactor-go/cluster"
	"github.com/asynkron/protoactor-go/remote"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"licensed/actors"
	"licensed/messages/clusterv1"
)

// stranger speaks protoactor's protocol to a process, as it likes.
type stranger struct {
	t      *testing.T
	conn   *grpc.ClientConn
	client remote.RemotingClient
}

func newStranger(t *testing.T, address string) *stranger {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &stranger{t, conn, remote.NewRemotingClient(conn)}
}

func (s *stranger) stream() remote.Remoting_ReceiveClient {
	stream, err := s.client.Receive(metadata.AppendToOutgoingContext(s.t.Context(), clusterHeader, "test"))
	if err != nil {
		s.t.Fatal(err)
	}
	return stream
}

func batchMessage(b *remote.MessageBatch) *remote.RemoteMessage {
	return &remote.RemoteMessage{MessageType: &remote.RemoteMessage_MessageBatch{MessageBatch: b}}
}

// batch returns a message that would be answered.
func batch(m proto.Message) *remote.MessageBatch {
	data, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return &remote.MessageBatch{
		TypeNames: []string{string(proto.MessageName(m))}, Targets: []*actor.PID{{Id: frontName}},
		Senders:   []*actor.PID{{Address: "1.2.3.4:5", Id: "me"}},
		Envelopes: []*remote.MessageEnvelope{{MessageData: data, Sender: 1, SenderRequestId: 7}},
	}
}

func statusRequest() *clusterv1.Request {
	return &clusterv1.Request{Body: &clusterv1.Request_Status{Status: &clusterv1.StatusRequest{}}}
}

// ask sends a batch and returns the response to it.
func (s *stranger) ask(b *remote.MessageBatch) (*clusterv1.Response, error) {
	return ask(s.t, s.stream(), b)
}

func ask(t *testing.T, stream remote.Remoting_ReceiveClient, b *remote.MessageBatch) (*clusterv1.Response, error) {
	if err := stream.Send(batchMessage(b)); err != nil && !errors.Is(err, io.EOF) { // EOF: the other side has ended it, Recv says why
		return nil, err
	}
	m, err := stream.Recv()
	for err == nil && m.GetConnectResponse() != nil { // a sign of life: it took a while
		m, err = stream.Recv()
	}
	if err != nil {
		return nil, err
	}
	e := m.GetMessageBatch().GetEnvelopes()
	if len(e) != 1 || e[0].TargetRequestId != b.Envelopes[0].SenderRequestId {
		t.Fatalf("answer %v", m)
	}
	r := &clusterv1.Response{}
	return r, proto.Unmarshal(e[0].MessageData, r)
}

// TestUnaryMethods: protoactor implements them with panics.
func TestUnaryMethods(t *testing.T) {
	a := start(t, nil)
	s := newStranger(t, a.Address())
	if _, err := s.client.ListProcesses(t.Context(), &remote.ListProcessesRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("ListProcesses: %v", err)
	}
	if _, err := s.client.GetProcessDiagnostics(t.Context(), &remote.GetProcessDiagnosticsRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("GetProcessDiagnostics: %v", err)
	}
	if err := s.conn.Invoke(t.Context(), "/no.Service/Method", &remote.ListProcessesRequest{}, &remote.ListProcessesResponse{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("unknown method: %v", err)
	}
}

// TestOtherCluster: a process of another cluster is not asked, and not answered.
func TestOtherCluster(t *testing.T) {
	a, b := start(t, nil), start(t, func(c *Config) { c.Cluster = "other \xff" })
	b.handler.execute = func(context.Context, string, actors.Command) (actors.Reply, error) {
		t.Error("executed for another cluster")
		return actors.Reply{}, nil
	}
	if _, err := a.execute(t.Context(), b.Address(), "x"); !errors.Is(err, ErrNotSent) || !strings.Contains(err.Error(), `cluster "other`) {
		t.Errorf("asking a process of another cluster: %v", err)
	}
	if b.journal.count("another cluster") == 0 {
		t.Error("nobody was told")
	}
	unnamed, err := newStranger(t, a.Address()).client.Receive(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r, err := ask(t, unnamed, batch(statusRequest())); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("who names no cluster is answered %v, %v", r, err)
	}
	b.handler.execute = nil
	start(t, func(c *Config) { c.Cluster = "other \xff" }).works(t, b.Address())
}

// TestBadBatches: what protoactor's reader would index out of range, or hand to actors that are nobody
// else's business, ends the stream before it gets there.
func TestBadBatches(t *testing.T) {
	a := start(t, nil)
	s := newStranger(t, a.Address())
	for name, spoil := range map[string]func(*remote.MessageBatch){
		"type below":     func(b *remote.MessageBatch) { b.Envelopes[0].TypeId = -1 },
		"type above":     func(b *remote.MessageBatch) { b.Envelopes[0].TypeId = 1 },
		"no types":       func(b *remote.MessageBatch) { b.TypeNames = nil },
		"target below":   func(b *remote.MessageBatch) { b.Envelopes[0].Target = -1 },
		"target above":   func(b *remote.MessageBatch) { b.Envelopes[0].Target = 1 },
		"no targets":     func(b *remote.MessageBatch) { b.Targets = nil },
		"sender below":   func(b *remote.MessageBatch) { b.Envelopes[0].Sender = -1 },
		"sender above":   func(b *remote.MessageBatch) { b.Envelopes[0].Sender = 2 },
		"no sender":      func(b *remote.MessageBatch) { b.Envelopes[0].Sender = 0 },
		"no number":      func(b *remote.MessageBatch) { b.Envelopes[0].SenderRequestId = 0 },
		"empty envelope": func(b *remote.MessageBatch) { b.Envelopes[0] = &remote.MessageEnvelope{} },
		"garbage":        func(b *remote.MessageBatch) { b.Envelopes[0].MessageData = []byte{0xff} },
		"no text":        func(b *remote.MessageBatch) { b.Envelopes[0].MessageData = []byte{1<<3 | 2, 1, 0xff} },
		"activator":      func(b *remote.MessageBatch) { b.Targets[0].Id = "activator" },
		"gossip":         func(b *remote.MessageBatch) { b.Targets[0].Id = "gossip" },
		"event stream":   func(b *remote.MessageBatch) { b.Targets[0].Id = "eventstream" },
		"supervisor":     func(b *remote.MessageBatch) { b.Targets[0].Id = "EndpointSupervisor" },
		"elsewhere":      func(b *remote.MessageBatch) { b.Targets[0] = &actor.PID{Address: "1.2.3.4:5", Id: "x"} },
	} {
		b := batch(statusRequest())
		spoil(b)
		if r, err := s.ask(b); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
	if r, err := s.ask(batch(statusRequest())); err != nil || r.GetStatus().GetName() != "echo" {
		t.Errorf("afterwards: %v, %v", r, err)
	}
}

// TestUnknownTypes: messages that a reader of protoactor would act on, or panic about, are answered.
func TestUnknownTypes(t *testing.T) {
	a := start(t, nil)
	s := newStranger(t, a.Address())
	unknown := batch(statusRequest())
	unknown.TypeNames[0] = "licensed.cluster.v9.Novelty"
	other := batch(statusRequest())
	other.Envelopes[0].SerializerId = 99
	for name, b := range map[string]*remote.MessageBatch{
		"unknown type": unknown, "unknown serializer": other,
		"stop": batch(&actor.Stop{}), "poison": batch(&actor.PoisonPill{}), "watch": batch(&actor.Watch{Watcher: &actor.PID{Address: "1.2.3.4:5", Id: "x"}}),
		"terminated": batch(&actor.Terminated{}), "spawn": batch(&remote.ActorPidRequest{Name: "x", Kind: "y"}),
		"gossip": batch(&protocluster.GossipRequest{}), "answer": batch(&clusterv1.Response{}),
		"nothing": batch(&clusterv1.Request{}), "later body": batch(laterBody()),
	} {
		if r, err := s.ask(b); err != nil || r.GetCode() != clusterv1.Code_CODE_NOT_SUPPORTED {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
	if r, err := s.ask(batch(laterField())); err != nil || r.GetStatus().GetName() != "echo" {
		t.Errorf("request with an unknown field: %v, %v", r, err)
	}
	stream := s.stream()
	for _, m := range []*remote.RemoteMessage{
		{}, {MessageType: &remote.RemoteMessage_DisconnectRequest{DisconnectRequest: &remote.DisconnectRequest{}}},
		{MessageType: &remote.RemoteMessage_ConnectRequest{}}, {MessageType: &remote.RemoteMessage_MessageBatch{}},
		{MessageType: &remote.RemoteMessage_ConnectResponse{ConnectResponse: &remote.ConnectResponse{}}},
	} {
		if err := stream.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	if m, err := stream.Recv(); err != nil || m.GetConnectResponse() == nil { // to the third
		t.Errorf("after messages without a sense: %v, %v", m, err)
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

// TestManyStreams: one connection does not get as many streams as it likes.
func TestManyStreams(t *testing.T) {
	a := start(t, func(c *Config) { c.MaxPeers = 2 })
	s := newStranger(t, a.Address())
	open := []remote.Remoting_ReceiveClient{s.stream(), s.stream()} // gRPC ends those that nobody has
	for _, stream := range open {
		if r, err := ask(t, stream, batch(statusRequest())); err != nil {
			t.Fatalf("%v, %v", r, err)
		}
	}
	if _, err := s.stream().Recv(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("one too many: %v", err)
	}
	if r, err := ask(t, open[0], batch(statusRequest())); err != nil {
		t.Errorf("then, of those before: %v, %v", r, err)
	}
}

// TestSilentStream: who opens a stream and says nothing is not kept.
func TestSilentStream(t *testing.T) {
	t.Parallel()
	a := start(t, nil)
	if _, err := newStranger(t, a.Address()).stream().Recv(); status.Code(err) != codes.InvalidArgument {
		t.Errorf("%v", err)
	}
}

// TestUnreadAnswers: who asks on and on and never reads is not kept.
func TestUnreadAnswers(t *testing.T) {
	a := start(t, func(c *Config) { c.MaxInFlight = 16 })
	stream := newStranger(t, a.Address()).stream()
	a.handler.query = func(context.Context, string, any) (actors.Answer, error) {
		return actors.Answer{Value: strings.Repeat("x", 256<<10)}, nil
	}
	b := batch(&clusterv1.Request{Body: &clusterv1.Request_Query{Query: &clusterv1.Query{Payload: &clusterv1.Payload{Type: "string"}}}})
	for range 400 {
		b.Envelopes = append(b.Envelopes, b.Envelopes[0])
	}
	until(t, "end of the stream", func() bool { return stream.Send(batchMessage(b)) != nil })
	if a.journal.count("answers are not read") == 0 {
		t.Error("nothing was observed")
	}
}

// liar is a server of protoactor's protocol that answers as a test says.
type liar struct {
	remote.UnimplementedRemotingServer
	say func(stream remote.Remoting_ReceiveServer, m *remote.RemoteMessage) error
}

func (l *liar) Receive(stream remote.Remoting_ReceiveServer) error {
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		if err := l.say(stream, m); err != nil {
			return err
		}
	}
}

func startLiar(t *testing.T, say func(remote.Remoting_ReceiveServer, *remote.RemoteMessage) error) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	remote.RegisterRemotingServer(server, &liar{say: say})
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return listener.Addr().String()
}

// TestLyingPeer: whatever a peer answers, the request ends with what is known of it.
func TestLyingPeer(t *testing.T) {
	greeting := &remote.RemoteMessage{MessageType: &remote.RemoteMessage_ConnectResponse{ConnectResponse: &remote.ConnectResponse{}}}
	type stream = remote.Remoting_ReceiveServer
	answer := func(spoil func(b *remote.MessageBatch)) func(s stream, m *remote.RemoteMessage) error {
		return func(s stream, m *remote.RemoteMessage) error {
			if m.GetConnectRequest() != nil {
				return s.Send(greeting)
			}
			b := batch(&clusterv1.Response{Code: clusterv1.Code_CODE_OK})
			b.Envelopes[0].TargetRequestId = m.GetMessageBatch().Envelopes[0].SenderRequestId
			spoil(b)
			return s.Send(batchMessage(b))
		}
	}
	later, err := proto.Marshal(&clusterv1.Response{Code: 77})
	if err != nil {
		t.Fatal(err)
	}
	liars := map[string]struct {
		say  func(stream, *remote.RemoteMessage) error
		want error
	}{
		"no greeting":     {func(stream, *remote.RemoteMessage) error { return nil }, ErrNotSent},
		"other greeting":  {func(s stream, _ *remote.RemoteMessage) error { return s.Send(&remote.RemoteMessage{}) }, ErrNotSent},
		"refused":         {func(stream, *remote.RemoteMessage) error { return status.Error(codes.PermissionDenied, "no") }, ErrNotSent},
		"empty answer":    {answer(func(*remote.MessageBatch) {}), ErrInternal},
		"later code":      {answer(func(b *remote.MessageBatch) { b.Envelopes[0].MessageData = later }), ErrInternal},
		"no code":         {answer(func(b *remote.MessageBatch) { b.Envelopes[0].MessageData = nil }), ErrInternal},
		"garbage":         {answer(func(b *remote.MessageBatch) { b.Envelopes[0].MessageData = []byte{0xff} }), ErrInternal},
		"type":            {answer(func(b *remote.MessageBatch) { b.TypeNames[0] = "x" }), ErrInternal},
		"type index":      {answer(func(b *remote.MessageBatch) { b.Envelopes[0].TypeId = -5 }), ErrInternal},
		"no answer":       {answer(func(b *remote.MessageBatch) { b.Envelopes = nil }), actors.ErrUnknownOutcome},
		"another's":       {answer(func(b *remote.MessageBatch) { b.Envelopes[0].TargetRequestId += 9 }), actors.ErrUnknownOutcome},
		"not understood ": {answer(func(b *remote.MessageBatch) { b.Envelopes[0].MessageData = []byte{8, 14} }), actors.ErrNotSupported},
		"breaks off": {func(s stream, m *remote.RemoteMessage) error {
			if m.GetConnectRequest() != nil {
				return s.Send(greeting)
			}
			return io.ErrUnexpectedEOF
		}, actors.ErrUnknownOutcome},
	}
	hasty := start(t, func(c *Config) { c.DialTimeout = 100 * time.Millisecond })
	patient := start(t, func(c *Config) { c.DialTimeout, c.Silence = time.Minute, time.Minute })
	for name, c := range liars {
		a, timeout := patient, time.Minute
		switch { // what is waited for in vain
		case name == "no greeting":
			a = hasty
		case errors.Is(c.want, actors.ErrUnknownOutcome):
			timeout = 200 * time.Millisecond
		}
		address := startLiar(t, c.say)
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

// early is the stream of one who connects before the transport is set up.
type early struct {
	grpc.ServerStream
	ctx context.Context
}

func (e early) Context() context.Context { return e.ctx }

func (early) SetHeader(metadata.MD) error { return nil }

// TestEarlyPeer: protoactor takes connections before Start is done. What is read of the transport by then is
// not set: a stream waits for it, and neither comes to protoactor's reader nor counts as a session.
func TestEarlyPeer(t *testing.T) {
	a := start(t, nil)
	a.started = make(chan struct{})
	read := make(chan struct{}, 1)
	accept := func(ctx context.Context) error {
		ctx = metadata.NewIncomingContext(ctx, metadata.Pairs(clusterHeader, "test"))
		return a.accept(nil, early{ctx: ctx}, &grpc.StreamServerInfo{FullMethod: receiveMethod}, func(any, grpc.ServerStream) error {
			read <- struct{}{}
			return nil
		})
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := accept(over); status.Code(err) != codes.Canceled {
		t.Errorf("who hangs up before the start is over gets %v", err)
	}
	select {
	case <-read:
		t.Error("a stream comes to the reader before the start is over")
	default:
	}
	a.cancel() // as when Start fails
	if err := accept(t.Context()); status.Code(err) != codes.Unavailable {
		t.Errorf("where nothing started: %v", err)
	}
}

// TestProtoactorHasNoTurn: its gossip and its heartbeats would block members for ever.
func TestProtoactorHasNoTurn(t *testing.T) {
	a := start(t, nil)
	if c := a.cluster.Config; c.GossipInterval != never || c.HeartbeatExpiration != never {
		t.Errorf("gossip every %v, heartbeats expire after %v", c.GossipInterval, c.HeartbeatExpiration)
	}
}

// TestIdleConnections: connections without a stream do not keep peers out. One of them ignores that it is told to leave.
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
