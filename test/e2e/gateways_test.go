package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"licensed/client"
	"licensed/messages/licensedv1"
)

// TestGatewaysAreKilled kills one gateway after the other under package client. Its calls all succeed, each command is
// executed exactly once, whatever number of attempts it took, and a customer that is followed is seen without a gap.
func TestGatewaysAreKilled(t *testing.T) {
	t.Parallel()
	const rounds, perCustomer, followed = 4, 200, "customer-0-0"
	f := startFleet(t)
	gateways := []*daemon{f.gateway, f.startGateway(2)}
	var repeats atomic.Int64
	listener := client.Listener{Attempted: func(a client.Attempt) {
		if a.Number > 1 && a.Err == nil {
			repeats.Add(1)
		}
	}}
	c, err := client.Dial([]string{gateways[0].API, gateways[1].API}, client.Options{Listener: listener})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()

	following, stop := context.WithCancel(t.Context())
	defer stop()
	var seen []uint64
	var last atomic.Uint64
	var follower sync.WaitGroup
	follower.Go(func() {
		begin := uint64(0)
		m := &licensedv1.FollowRequest{CustomerId: followed, AfterSequence: &begin}
		for item, err := range c.Follow(following, m) {
			if err == nil {
				seen = append(seen, item.GetEvent().GetSequence())
				last.Store(seen[len(seen)-1])
			} else if !errors.Is(err, context.Canceled) {
				t.Errorf("follow: %v", err)
			}
		}
	})
	var answered atomic.Int64
	var done atomic.Bool
	acknowledged := make([]map[string]map[string]uint64, workers) // sequence by customer and command id
	var clients sync.WaitGroup
	for i := range acknowledged {
		acknowledged[i] = map[string]map[string]uint64{}
		clients.Go(func() {
			var told map[string]uint64
			for n := 0; !done.Load(); n++ {
				customer, id := fmt.Sprintf("customer-%d-%d", i, n/perCustomer), uuid.NewString()
				if n%perCustomer == 0 {
					told = map[string]uint64{}
					acknowledged[i][customer] = told
				}
				sequence, err := give(t.Context(), c, customer, id, n%perCustomer == 0)
				if err != nil {
					t.Errorf("command %s of %s: %v", id, customer, err)
					return
				}
				told[id] = sequence
				answered.Add(1)
				time.Sleep(5 * time.Millisecond) // The machine has others to serve.
			}
		})
	}
	more := func(n int64, by *daemon) {
		enough := answered.Load() + n
		by.Until(func() bool { return answered.Load() >= enough || t.Failed() })
	}
	for round := range rounds {
		killed, other := round%2, 1-round%2
		more(50, gateways[other])
		gateways[killed].Kill()
		more(50, gateways[other])
		gateways[killed] = f.startGateway(killed + 1)
	}
	done.Store(true)
	clients.Wait()
	t.Logf("%d commands; %d were answered to a later attempt than the first", answered.Load(), repeats.Load())
	for _, customers := range acknowledged {
		for customer, told := range customers {
			all := executedOnce(t, c, customer, told)
			if customer != followed {
				continue
			}
			gateways[0].Until(func() bool { return last.Load() == all[len(all)-1] }) // Events are sent a little later.
			stop()
			follower.Wait()
			if !slices.Equal(seen, all) {
				t.Errorf("followed %d events, the history has %d:\n%d\n%d", len(seen), len(all), seen, all)
			}
		}
	}
}

// give has a customer acquire its licence, or renew it, and returns where that is recorded.
func give(ctx context.Context, c *client.Client, customer, id string, first bool) (sequence uint64, err error) {
	if first {
		r, err := c.AcquireLicense(ctx, &licensedv1.AcquireLicenseRequest{
			CustomerId: customer, DeviceId: "iphone", TitleId: "GlowS01E01", CommandId: id,
		})
		return r.GetSequence(), err
	}
	r, err := c.RenewLicense(ctx, &licensedv1.RenewLicenseRequest{
		CustomerId: customer, DeviceId: "iphone", TitleId: "GlowS01E01", CommandId: id,
	})
	return r.GetSequence(), err
}

// executedOnce checks that a customer's history has the acknowledged commands, each once and where it was said to be,
// and no other. It returns the sequences of all events.
func executedOnce(t *testing.T, c *client.Client, customer string, told map[string]uint64) (all []uint64) {
	t.Helper()
	stream, err := licensedv1.NewHistoryServiceClient(c).ListEvents(t.Context(),
		&licensedv1.ListEventsRequest{CustomerId: customer})
	if err != nil {
		t.Fatal(err)
	}
	recorded := map[string]uint64{}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range m.Items {
			e := item.GetEvent()
			all = append(all, e.GetSequence())
			if e.GetCommandIndex()+1 != e.GetCommandCount() {
				continue
			}
			if before, twice := recorded[e.CommandId]; twice {
				t.Errorf("%s: command %s is recorded at %d and %d", customer, e.CommandId, before, e.Sequence)
			}
			recorded[e.CommandId] = e.Sequence
		}
	}
	if len(recorded) != len(told) {
		t.Errorf("%s: %d commands are recorded, %d were given", customer, len(recorded), len(told))
	}
	for id, sequence := range told {
		if recorded[id] != sequence {
			t.Errorf("%s: command %s was acknowledged at %d and is recorded at %d",
				customer, id, sequence, recorded[id])
		}
	}
	return all
}
