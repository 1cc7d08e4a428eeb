package failover

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"licensed/messages/licensedv1/licensedv1connect"
)

const (
	// readEvery is the share of requests that are reads.
	readEvery = 8
	// comparing is the number of histories that are compared at a time.
	comparing = 16
)

// TestSaturated keeps all processors busy for long: no node may lose its lease, and none be declared dead.
func TestSaturated(t *testing.T) {
	f := launch(t, 3)
	f.settle(3)
	s := newSaturation(f)
	before, used := f.incarnations(3), f.usage()
	began := time.Now()
	s.run(*saturate, func() {
		if after := f.incarnations(3); !maps.Equal(before, after) {
			t.Errorf("leases were lost: %v, then %v", before, after)
			before = after
		}
	})
	took, now := time.Since(began), f.usage()
	after := f.incarnations(3)
	if !maps.Equal(before, after) {
		t.Errorf("leases were lost: %v, then %v", before, after)
	}
	failed, why := s.failures()
	n := s.latencies.TotalCount()
	result := fmt.Sprintf("%v with %d requests under way, of %d customers: %d commands, %.0f/s; %.0f requests/s\n"+
		"processor time: %s\nlatency: p50 %v, p90 %v, p99 %v, p99.9 %v, max %v (%d)\n"+
		"incarnations after: %v, the same: %t\nattempts that failed: %d\n%s",
		took.Round(time.Second), *workers, *busyOnes, s.commands.Load(), float64(s.commands.Load())/took.Seconds(),
		float64(n)/took.Seconds(),
		now.since(used), s.at(50), s.at(90), s.at(99), s.at(99.9), s.at(100), n, after, !t.Failed(), failed, why)
	t.Log(result)
	f.save("saturated.txt", result)
	s.verifyAll()
}

// saturation is a load without pauses. Customers have their turns one after the other: with 20,000, at
// 10,000 commands a second each gives 300 in ten minutes, of the 1,024 that it may. What it remembers is eight bytes
// for each command, whatever it does.
type saturation struct {
	*load
	customers []busy
	commands  atomic.Int64

	mu        sync.Mutex
	latencies *hdrhistogram.Histogram // in microseconds
}

// busy is one customer. Only the worker that it belongs to asks for it.
type busy struct {
	name    string
	told    []uint64 // sequences: of its first command, and of its renewals in their order
	expires int64
}

// newSaturation gives all customers a licence.
func newSaturation(f *fleet) *saturation {
	f.t.Helper()
	s := &saturation{
		load:      dial(f),
		customers: make([]busy, *busyOnes),
		latencies: hdrhistogram.New(1, int64(10*time.Minute/time.Microsecond), 3),
	}
	var loading sync.WaitGroup
	for w := range *workers {
		loading.Go(func() {
			for k := w; k < len(s.customers); k += *workers {
				c := newClient(fmt.Sprintf("busy-%05d", k))
				s.acquire(c)
				s.customers[k] = busy{name: c.customer, told: []uint64{c.told["first"]}, expires: c.expires.Load()}
			}
		})
	}
	loading.Wait()
	return s
}

// run has the workers ask for so long. It calls watch every now and then.
func (s *saturation) run(d time.Duration, watch func()) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	var working sync.WaitGroup
	for w := range *workers {
		working.Go(func() {
			for n := w; ctx.Err() == nil; n++ {
				for k := w; k < len(s.customers) && ctx.Err() == nil; k += *workers {
					s.turn(&s.customers[k], (n+k)%readEvery == 0)
				}
			}
		})
	}
	tick := time.NewTicker(max(time.Second, min(time.Minute, d/10)))
	defer tick.Stop()
	for last := s.commands.Load(); ctx.Err() == nil; {
		select {
		case <-tick.C:
			watch()
			now := s.commands.Load()
			failed, _ := s.failures()
			s.t.Logf("%v: %d commands more, %d attempts failed so far", s.now().Round(time.Second), now-last, failed)
			last = now
		case <-ctx.Done():
		}
	}
	working.Wait()
}

// turn is one request of a customer.
func (s *saturation) turn(c *busy, reading bool) {
	a := s.insist(context.Background(),
		s.targets, func(ctx context.Context, to licensedv1connect.LicenseServiceClient) error {
			if reading {
				shown, err := read(ctx, to, c.name)
				if err == nil && shown < c.expires {
					s.t.Errorf("%s was told that its licence ends at %v and reads %v",
						c.name, time.Unix(0, c.expires), time.Unix(0, shown))
				}
				return err
			}
			sequence, expires, err := renew(ctx, to, c.name, renewal(len(c.told)))
			if err == nil {
				c.told, c.expires = append(c.told, sequence), expires
			}
			return err
		})
	if !reading {
		s.commands.Add(1)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.latencies.RecordValue((a.ended - a.began).Microseconds()); err != nil {
		s.t.Error(err)
	}
}

func renewal(n int) string { return fmt.Sprint("renewal-", n) }

func (s *saturation) at(percent float64) time.Duration {
	return time.Duration(s.latencies.ValueAtQuantile(percent)) * time.Microsecond
}

// verifyAll compares all that was acknowledged with the histories.
func (s *saturation) verifyAll() {
	s.t.Helper()
	var next, acknowledged atomic.Int64
	var working sync.WaitGroup
	for range comparing {
		working.Go(func() {
			for k := int(next.Add(1)) - 1; k < len(s.customers); k = int(next.Add(1)) - 1 {
				c := &s.customers[k]
				told := map[string]uint64{"first": c.told[0]}
				for n := 1; n < len(c.told); n++ {
					told[renewal(n)] = c.told[n]
				}
				s.compare(c.name, told)
				acknowledged.Add(int64(len(told)))
			}
		})
	}
	working.Wait()
	s.t.Logf("%d acknowledged commands of %d customers are in the histories, once each, where they were said to be",
		acknowledged.Load(), len(s.customers))
}
