package transport

import (
	"errors"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"licensed/messages/clusterv1"
	"licensed/persistence"
)

// FuzzFrame feeds anything to what reads frames, and answers the requests in it.
func FuzzFrame(f *testing.F) {
	for _, m := range []*clusterv1.Frame{
		frameOf(statusRequest(), laterBody(), laterField()), {Closing: true}, {Abandoned: []uint64{1, 1 << 63}},
		{Responses: []*clusterv1.Response{{Id: 1, Code: 99}}},
		frameOf(&clusterv1.Request{Kind: "k", Aggregate: "a", TimeoutMicros: 5, Body: &clusterv1.Request_Command{
			Command: &clusterv1.Command{Id: "1", Payload: &clusterv1.Payload{Type: "string", Data: []byte("x")}},
		}}),
		frameOf(&clusterv1.Request{
			Body: &clusterv1.Request_Query{Query: &clusterv1.Query{Payload: &clusterv1.Payload{Type: headQueryName}}},
		}),
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	for _, unpacked := range []string{"\x20\x05\x20\x06", "\x22\x01\x80"} { // the second one is cut off
		f.Add([]byte(unpacked))
	}
	a := start(f, nil)
	f.Fuzz(func(t *testing.T, data []byte) {
		read, reference := &incoming{}, &clusterv1.Frame{}
		err := read.decode(data)
		if errors.Is(err, errTooMany) {
			return
		}
		requests := make([]*clusterv1.Request, len(read.requests))
		for i, b := range read.requests {
			requests[i] = &clusterv1.Request{}
			id, idErr := requestID(b)
			decodeErr := proto.Unmarshal(b, requests[i])
			if decodeErr == nil && (idErr != nil || id != requests[i].Id) {
				t.Errorf("id %d, %v of request %v", id, idErr, requests[i])
			}
			err = errors.Join(err, decodeErr)
		}
		if other := proto.Unmarshal(data, reference); (err == nil) != (other == nil) {
			t.Fatalf("read with %v, by gRPC's codec with %v", err, other)
		}
		if err != nil {
			return
		}
		if len(read.requests) != len(reference.Requests) || len(read.responses) != len(reference.Responses) ||
			read.closing != reference.Closing || !slices.Equal(read.abandoned, reference.Abandoned) {
			t.Fatalf("read %+v, want %v", read, reference)
		}
		for i, m := range requests {
			if !proto.Equal(m, reference.Requests[i]) {
				t.Errorf("request %v, want %v", m, reference.Requests[i])
			}
			if r := a.answer(t.Context(), m); r.GetCode() == clusterv1.Code_CODE_UNSPECIFIED {
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
		r := &clusterv1.Response{}
		if proto.Unmarshal(data, r) != nil {
			return
		}
		p := &peer{transport: &Transport{config: DefaultConfig()}, ready: make(chan struct{}, 1), running: true}
		s := &stream{peer: p, calls: map[uint64]*call{}}
		c := &call{id: r.Id, done: make(chan struct{})}
		if err := p.begin(c); err != nil {
			t.Fatal(err)
		}
		s.take()
		s.answered(&incoming{responses: []*clusterv1.Response{r}})
		<-c.done
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
