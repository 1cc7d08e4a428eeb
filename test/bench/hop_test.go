package bench

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"licensed/actors"
	"licensed/cluster/transport"
	"licensed/messages/clusterv1"
	"licensed/test/bench/meter"
)

// BenchmarkHop measures a command that one process sends to another over the loopback device, and its answer. Both
// sides are in this process: cpu-µs/op and allocs/op are the sum of both. The payload has 128 bytes.
func BenchmarkHop(b *testing.B) {
	for _, inFlight := range []int{1, 64, 256} {
		b.Run(fmt.Sprintf("%d in flight", inFlight), func(b *testing.B) {
			from, to := hopEnd(b), hopEnd(b)
			payload := make([]byte, 128)
			request := func() {
				c := actors.Command{ID: "0123456789abcdef", Fingerprint: 1, Payload: payload}
				if _, err := from.Execute(b.Context(), to.Address(), "Kind", "id", c); err != nil {
					b.Error(err)
				}
			}
			request() // It connects.
			var left atomic.Int64
			var workers sync.WaitGroup
			left.Store(int64(b.N))
			b.ReportAllocs()
			b.ResetTimer()
			before := meter.ProcessCPU()
			for range inFlight {
				workers.Go(func() {
					for left.Add(-1) >= 0 {
						request()
					}
				})
			}
			workers.Wait()
			used := meter.ProcessCPU() - before
			b.ReportMetric(float64(used.Nanoseconds())/1e3/float64(b.N), "cpu-µs/op")
		})
	}
}

// hopEnd starts a transport that answers commands with their payload.
func hopEnd(b *testing.B) *transport.Transport {
	c := transport.DefaultConfig()
	c.Cluster, c.Bind, c.Handler, c.Codec, c.Log = "bench", "127.0.0.1:0", hopEcho{}, byteCodec{}, quiet()
	t, err := transport.Start(c)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = t.Close(context.Background()) })
	return t
}

// hopEcho answers commands with their payload.
type hopEcho struct{}

func (hopEcho) Execute(_ context.Context, _, _ string, c actors.Command) (actors.Reply, error) {
	return actors.Reply{Outcome: c.Payload.([]byte), Sequence: 1}, nil
}

func (hopEcho) Query(context.Context, string, string, any) (actors.Answer, error) {
	return actors.Answer{}, nil
}

func (hopEcho) Operate(context.Context, string, string, any) (actors.Answer, error) {
	return actors.Answer{}, nil
}

func (hopEcho) Status(context.Context) (*clusterv1.StatusResponse, error) { return nil, nil }

func (hopEcho) Drain(context.Context) error { return nil }

func (hopEcho) Undrain(context.Context) error { return nil }

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

func (byteCodec) UnmarshalRequest(_ string, data []byte) (any, error) { return data, nil }
