package bench

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/asynkron/protoactor-go/remote"

	"licensed/actors"
	"licensed/cluster/transport"
	"licensed/messages/clusterv1"
	"licensed/test/bench/meter"
)

// BenchmarkRemote holds requests between two processes of a cluster, over the loopback device, against the
// same messages over protoactor's remote as it comes. Both sides are in this process, so the CPU time is
// that of both.
func BenchmarkRemote(b *testing.B) {
	plain, ours := plainRemote(b), remoteCommands(b)
	for b.Loop() {
		sweep(b, []int{1, 64, 512},
			func(n int) meter.Contender { return counted("plain remote", n, plain) },
			func(n int) meter.Contender { return counted("transport", n, ours) })
	}
}

const remotePayload = 128

// plainRemote returns a request between two systems with protoactor's remote.
func plainRemote(b *testing.B) func(worker, i int) error {
	system := func() *actor.ActorSystem {
		s := actors.NewActorSystem(quiet())
		r := remote.NewRemote(s, remote.Configure("127.0.0.1", 0))
		r.Start()
		b.Cleanup(func() { r.Shutdown(false); s.Shutdown() })
		return s
	}
	from, to := system(), system()
	_, err := to.Root.SpawnNamed(actor.PropsFromFunc(func(ctx actor.Context) {
		if m, ok := ctx.Message().(*clusterv1.Request); ok {
			ctx.Respond(&clusterv1.Response{Code: clusterv1.Code_CODE_OK, Body: &clusterv1.Response_Reply{
				Reply: &clusterv1.Reply{Outcome: m.GetCommand().GetPayload().GetData(), Sequence: 1},
			}})
		}
	}), "echo")
	if err != nil {
		b.Fatal(err)
	}
	pid, data := actor.NewPID(to.Address(), "echo"), make([]byte, remotePayload)
	return func(int, int) error {
		return from.Root.RequestFuture(pid, &clusterv1.Request{
			Kind: "Kind", Aggregate: "id", Body: &clusterv1.Request_Command{Command: &clusterv1.Command{
				Id: "0123456789abcdef", Fingerprint: 1, Payload: &clusterv1.Payload{Type: "bytes", Data: data},
			}},
		}, time.Minute).Wait()
	}
}

// remoteCommands returns a command between two transports.
func remoteCommands(b *testing.B) func(worker, i int) error {
	open := func() *transport.Transport {
		c := transport.DefaultConfig()
		c.Cluster, c.Bind, c.Handler, c.Codec, c.Log = "bench", "127.0.0.1:0", remoteEcho{}, byteCodec{}, quiet()
		t, err := transport.Start(c)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = t.Close(context.Background()) })
		return t
	}
	from, to := open(), open()
	data := make([]byte, remotePayload)
	return func(int, int) error {
		_, err := from.Execute(b.Context(), to.Address(), "Kind", "id", actors.Command{ID: "0123456789abcdef", Fingerprint: 1, Payload: data})
		return err
	}
}

// remoteEcho answers commands with their payload.
type remoteEcho struct{}

func (remoteEcho) Execute(_ context.Context, _, _ string, c actors.Command) (actors.Reply, error) {
	return actors.Reply{Outcome: c.Payload.([]byte), Sequence: 1}, nil
}

func (remoteEcho) Query(context.Context, string, string, any) (actors.Answer, error) {
	return actors.Answer{}, nil
}

func (remoteEcho) Status(context.Context) (*clusterv1.StatusResponse, error) { return nil, nil }

func (remoteEcho) Drain(context.Context) error { return nil }

func (remoteEcho) Undrain(context.Context) error { return nil }

// byteCodec is a codec of bytes.
type byteCodec struct{}

func (byteCodec) Marshal(v any) (string, []byte, error) {
	b, ok := v.([]byte)
	if !ok {
		return "", nil, fmt.Errorf("%T", v)
	}
	return "bytes", b, nil
}

func (byteCodec) Unmarshal(_ string, data []byte) (any, error) { return data, nil }
