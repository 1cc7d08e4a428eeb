package transport

import (
	"testing"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/asynkron/protoactor-go/remote"
	"google.golang.org/protobuf/proto"

	"licensed/messages/clusterv1"
	"licensed/persistence"
)

// FuzzRequest feeds a batch of anything to what stands before protoactor's reader, and what it lets pass
// to that reader's decoder and the front.
func FuzzRequest(f *testing.F) {
	for _, m := range []proto.Message{
		statusRequest(), laterBody(), laterField(), &actor.PoisonPill{},
		&clusterv1.Request{Kind: "k", Aggregate: "a", TimeoutMicros: 5, Body: &clusterv1.Request_Command{
			Command: &clusterv1.Command{Id: "1", Payload: &clusterv1.Payload{Type: "string", Data: []byte("x")}},
		}},
		&clusterv1.Request{Body: &clusterv1.Request_Query{Query: &clusterv1.Query{Payload: &clusterv1.Payload{Type: headQueryName}}}},
	} {
		b, err := proto.Marshal(batch(m))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	a := start(f, nil)
	f.Fuzz(func(t *testing.T, data []byte) {
		b := &remote.MessageBatch{}
		if proto.Unmarshal(data, b) != nil {
			return
		}
		s := &session{transport: a.Transport, pid: &actor.PID{Id: "session"}, cancel: func(error) {}}
		s.out = outbox{ready: make(chan struct{}, 1), most: 100_000}
		admitted, err := s.admit(b)
		if err != nil {
			return
		}
		for _, e := range admitted.Envelopes {
			m, err := remote.Deserialize(e.MessageData, admitted.TypeNames[e.TypeId], e.SerializerId)
			if err != nil {
				t.Fatalf("admitted and not readable: %v", err)
			}
			if r := a.answer(t.Context(), m.(*clusterv1.Request)); r.GetCode() == clusterv1.Code_CODE_UNSPECIFIED {
				t.Errorf("answer %v", r)
			}
		}
	})
}

// FuzzResponse feeds anything to what reads answers.
func FuzzResponse(f *testing.F) {
	i := persistence.NewIncarnation()
	for _, m := range []*clusterv1.Response{
		{}, {Code: clusterv1.Code_CODE_OK}, {Code: 99, Message: "x"},
		{Code: clusterv1.Code_CODE_NOT_OWNER, Shard: &clusterv1.Shard{Id: 1, Epoch: 2, Owner: i[:]}},
		{Code: clusterv1.Code_CODE_NOT_OWNER, Shard: &clusterv1.Shard{Owner: []byte{1}}},
		{Code: clusterv1.Code_CODE_RATE_LIMITED, RetryAfterMicros: -1},
		{Code: clusterv1.Code_CODE_OK, Body: &clusterv1.Response_Reply{Reply: &clusterv1.Reply{Time: -1}}},
		{Code: clusterv1.Code_CODE_OK, Body: &clusterv1.Response_Answer{Answer: &clusterv1.Answer{
			Value: &clusterv1.Payload{Type: snapshotName, Data: []byte{1}},
			Head:  &clusterv1.Head{Aggregate: "a", Root: &clusterv1.Root{Incarnation: i[:]}, Parent: &clusterv1.Root{}},
		}}},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p := &peer{calls: map[uint32]*call{}, transport: &Transport{config: DefaultConfig()}}
		p.front = &actor.PID{}
		c, err := p.begin()
		if err != nil {
			t.Fatal(err)
		}
		conn := &connection{link: &link{peer: p}}
		p.write(c.id, conn)
		conn.answers(&remote.MessageBatch{
			TypeNames: []string{responseType}, Envelopes: []*remote.MessageEnvelope{{MessageData: data, TargetRequestId: c.id}},
		})
		<-c.done
		if c.err == nil {
			c.err = errorOf(c.response)
		}
		if c.err != nil {
			return
		}
		replyOf(c.response.GetReply())
		if a, err := answerOf(words{}, c.response.GetAnswer()); err == nil && a.Head != (persistence.Head{}) {
			again, err := headOf(headMessage(&a.Head))
			if err != nil || again != a.Head {
				t.Errorf("head %+v came back as %+v, %v", a.Head, again, err)
			}
		}
	})
}
