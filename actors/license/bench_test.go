package license

import (
	"fmt"
	"testing"
	"time"

	"licensed/actors"
	"licensed/actors/license/policy"
	"licensed/messages/licensedv1"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func must(p *policy.Policy, err error) *policy.Policy {
	if err != nil {
		panic(err)
	}
	return p
}

// roomy refuses next to nothing.
var roomy = must(policy.Parse("roomy", []byte("default_plan: p\nplans: {p: {devices: 4}}\n"+
	"defaults: {studio: netflix, studio_downloads: 1000}\n")))

// evolve executes a command as the runtime does, without recording it.
func evolve(a actors.Aggregate, now time.Time, c *licensedv1.Command) actors.Decision {
	d := a.Decide(now, c)
	for i := range d.Events {
		a.Evolve(d.Events[i])
	}
	return d
}

// household is a customer with n licences on one device.
func household(k *Kind, n int) actors.Aggregate {
	a := k.New(customerID)
	for i := range n {
		at := epoch.Add(time.Duration(i)*17*time.Hour + time.Duration(i*i*7919)*time.Millisecond)
		if d := evolve(a, at, acquire("iphone-6s-1a2b3c4d", fmt.Sprintf("GlowS01E%02d", i+1))); d.Refused {
			panic(describe(d))
		}
	}
	return a
}

// BenchmarkAcquire is a customer with 10 licences who acquires an eleventh, from the decision to the
// bytes that are stored and remembered.
func BenchmarkAcquire(b *testing.B) {
	k := NewKind(roomy)
	snapshot := household(k, 10).Snapshot(epoch)
	c := acquire("iphone-6s-1a2b3c4d", "GlowS02E01")
	now := epoch.Add(10 * 24 * time.Hour)
	awake := make([]actors.Aggregate, 4096)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if i%len(awake) == 0 {
			b.StopTimer()
			for j := range awake {
				awake[j] = restore(b, k, snapshot)
			}
			b.StartTimer()
		}
		d := evolve(awake[i%len(awake)], now, c)
		if d.Refused || len(d.Events) != 3 || len(k.Outcome(d.Events)) == 0 {
			b.Fatal(describe(d))
		}
		i++
	}
}

// BenchmarkWake is the same for a customer who was asleep and falls asleep again: restored, and
// packed after the command.
func BenchmarkWake(b *testing.B) {
	k := NewKind(roomy)
	snapshot := household(k, 10).Snapshot(epoch)
	c := acquire("iphone-6s-1a2b3c4d", "GlowS02E01")
	now := epoch.Add(10 * 24 * time.Hour)
	b.ReportAllocs()
	for b.Loop() {
		a, err := k.Restore(customerID, snapshot)
		if err != nil {
			b.Fatal(err)
		}
		d := evolve(a, now, c)
		if d.Refused || len(k.Outcome(d.Events)) == 0 || len(a.Snapshot(now).Data) == 0 {
			b.Fatal(describe(d))
		}
	}
}

// BenchmarkRenew is a customer with 10 licences who renews one.
func BenchmarkRenew(b *testing.B) {
	k := NewKind(roomy)
	a := household(k, 10)
	c := renew("iphone-6s-1a2b3c4d", "GlowS01E05")
	now := epoch.Add(10 * 24 * time.Hour)
	b.ReportAllocs()
	for b.Loop() {
		d := evolve(a, now, c)
		if d.Refused || len(k.Outcome(d.Events)) == 0 {
			b.Fatal(describe(d))
		}
	}
}

// BenchmarkRefuse is a customer with 10 licences whose fifth device is refused.
func BenchmarkRefuse(b *testing.B) {
	k := NewKind(policy.Default())
	a := household(k, 10)
	evolve(a, epoch, acquire("ipad", "GlowS01E01"))
	c := acquire("laptop", "GlowS01E05")
	now := epoch.Add(10 * 24 * time.Hour)
	b.ReportAllocs()
	for b.Loop() {
		d := evolve(a, now, c)
		if !d.Refused || len(k.Outcome(d.Events)) == 0 {
			b.Fatal(describe(d))
		}
	}
}

func BenchmarkSnapshotEncode(b *testing.B) {
	for _, n := range []int{1, 10, 100} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			a := household(NewKind(roomy), n)
			b.ReportAllocs()
			var s actors.Snapshot
			for b.Loop() {
				s = a.Snapshot(epoch)
			}
			b.ReportMetric(float64(len(s.Data)), "bytes")
		})
	}
}

func BenchmarkSnapshotDecode(b *testing.B) {
	for _, n := range []int{1, 10, 100} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			k := NewKind(roomy)
			s := household(k, n).Snapshot(epoch)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := k.Restore(customerID, s); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkReplay is the recovery of an aggregate from the events of ten acquisitions.
func BenchmarkReplay(b *testing.B) {
	k := NewKind(roomy)
	r := newTrial(b, roomy, epoch)
	r.kind = k
	for i := range 10 {
		r.execute(acquire("iphone-6s-1a2b3c4d", fmt.Sprintf("GlowS01E%02d", i+1)))
	}
	b.ReportAllocs()
	for b.Loop() {
		a := k.New(customerID)
		for _, e := range r.history {
			value, err := k.DecodeEvent(e.Mapper, e.Header, e.Data)
			if err != nil {
				b.Fatal(err)
			}
			e.Value = value
			a.Evolve(e)
		}
	}
}
