package bench

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"licensed/actors"
	"licensed/actors/actorstest"
	"licensed/actors/license"
	"licensed/actors/license/policy"
	"licensed/messages/licensedv1"
)

const generous = `
default_plan: any
plans:
  any: {devices: 100}
defaults:
  yearly_limit: unlimited
  studio_downloads: unlimited
`

// BenchmarkResidentCustomer measures the heap of an idle customer in memory, with its actor, mailbox
// and registry entries: 10 licences on two devices, and this many remembered commands, whose ids are
// UUIDs.
func BenchmarkResidentCustomer(b *testing.B) {
	for _, ids := range []int{16, 256} {
		b.Run(fmt.Sprintf("ids=%d", ids), func(b *testing.B) {
			for b.Loop() {
				customers := 200_000 / ids
				b.ReportMetric(residentBytes(b, customers, ids), "B/customer")
			}
		})
	}
}

func residentBytes(b *testing.B, customers, ids int) float64 {
	p, err := policy.Parse("generous", []byte(generous))
	if err != nil {
		b.Fatal(err)
	}
	c := actors.DefaultConfig()
	c.CompactAfter, c.SweepEvery, c.IdleAfter = time.Millisecond, 10*time.Millisecond, time.Hour
	a := newHeld()
	r, err := actors.New(
		actors.Options{Kind: license.NewKind(p), Journal: actorstest.Discard{}, Authority: a, Config: c},
	)
	if err != nil {
		b.Fatal(err)
	}
	before := heap()
	var g errgroup.Group
	g.SetLimit(64)
	for i := range customers {
		g.Go(func() error {
			for n := range ids {
				if _, err := r.Execute(b.Context(), fmt.Sprintf("customer-%08d", i), acquire(n)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	for r.Stats().Unpacked > 0 {
		time.Sleep(time.Millisecond)
	}
	after := heap()
	if s := r.Stats(); s.Resident != int64(customers) {
		b.Fatalf("%d of %d customers are in memory", s.Resident, customers)
	}
	b.ReportMetric(float64(r.Stats().ResidentBytes)/float64(customers), "estimated-B")
	if err := r.Close(b.Context()); err != nil {
		b.Fatal(err)
	}
	return float64(after-before) / float64(customers)
}

// acquire returns the n-th command of a customer: ten licences, then renewals.
func acquire(n int) actors.Command {
	title, device := fmt.Sprintf("GlowS01E%02d", n%10+1), []string{"iphone-6s-1a2b3c4d", "galaxy-tab-5e6f7a8b"}[n%2]
	c := &licensedv1.Command{Command: &licensedv1.Command_AcquireLicense{
		AcquireLicense: &licensedv1.AcquireLicense{DeviceId: device, TitleId: title},
	}}
	if n >= 10 {
		c.Command = &licensedv1.Command_RenewLicense{
			RenewLicense: &licensedv1.RenewLicense{DeviceId: device, TitleId: title},
		}
	}
	return actors.Command{ID: uuid.NewString(), IssuedAt: time.Now(), Payload: c}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
