package membership

import (
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"licensed/messages/clusterv1"
)

// counted is a network that counts what is sent.
type counted struct {
	*memberlist.NetTransport
	packets, bytes, streams *atomic.Int64
}

func (c *counted) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	c.packets.Add(1)
	c.bytes.Add(int64(len(b)))
	return c.NetTransport.WriteToAddress(b, a)
}

func (c *counted) DialAddressTimeout(a memberlist.Address, d time.Duration) (net.Conn, error) {
	c.streams.Add(1)
	return c.NetTransport.DialAddressTimeout(a, d)
}

// BenchmarkFifty has fifty members with the default settings find each other through one of them, rest,
// and miss one that crashes, all in one process. One iteration is enough.
func BenchmarkFifty(b *testing.B) {
	const members = 50
	for b.Loop() {
		var packets, bytes, streams atomic.Int64
		all := make([]*Membership, members)
		began := time.Now()
		for k := range all {
			nt := network(b)
			c := DefaultConfig()
			c.Name, c.Bind, c.Label = fmt.Sprintf("n%02d", k), fmt.Sprintf("127.0.0.1:%d", nt.GetAutoBindPort()), "test"
			c.Transport = &counted{nt, &packets, &bytes, &streams}
			c.Meta = &clusterv1.Meta{Incarnation: make([]byte, 16), NodeAddress: "127.0.0.1:7947", Version: "1"}
			c.Log = slog.New(slog.DiscardHandler)
			if k > 0 {
				c.Join = []string{all[0].Address()}
			}
			var err error
			if all[k], err = Start(c); err != nil {
				b.Fatal(err)
			}
		}
		see := func(n int, but *Membership) time.Duration {
			for _, m := range all {
				for m != but && len(m.Members()) != n {
					time.Sleep(5 * time.Millisecond)
				}
			}
			return time.Since(began)
		}
		b.ReportMetric(see(members, nil).Seconds(), "s-to-form")

		packets.Store(0)
		bytes.Store(0)
		streams.Store(0)
		used, rest := processorTime(), 10*time.Second
		time.Sleep(rest)
		perMember := rest.Seconds() * members
		b.ReportMetric(float64(packets.Load())/perMember, "packets/s/member")
		b.ReportMetric(float64(bytes.Load())/perMember, "bytes/s/member")
		b.ReportMetric(float64(streams.Load())/perMember, "streams/s/member")
		b.ReportMetric(100*(processorTime()-used).Seconds()/perMember, "%cpu/member")

		began = time.Now()
		if err := all[7].Abandon(); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(see(members-1, all[7]).Seconds(), "s-to-miss-one")
		for _, m := range all {
			if err := m.Abandon(); err != nil {
				b.Error(err)
			}
		}
	}
	b.ReportMetric(0, "ns/op")
}

// processorTime is what this process has used.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
