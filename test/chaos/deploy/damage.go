package deploy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"

	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
	store "licensed/persistence/cassandra"
	"licensed/test/chaos/fault"
)

// damagedTogether is the number of customers one fault damages: most of them are loaded again while it holds.
const damagedTogether = 20

// damageKind overwrites the newest snapshots of some customers in Cassandra, behind the back of the service. Their events are
// whole, so nothing may be lost, and nobody may wait.
func damageKind(c *Cluster, ttl time.Duration) fault.Kind {
	const name = "damaged snapshots"
	return fault.Kind{Name: name, Weight: 2, Make: func(r *rand.Rand) *fault.Fault {
		seed := r.Uint64()
		var damaged int
		var before, after float64
		return &fault.Fault{
			Kind: name, Targets: []string{"snapshots"}, Hold: 2*ttl + time.Duration(r.Int64N(int64(2*ttl))),
			Inject: func(ctx context.Context) error {
				options, err := store.ParseURL(c.store)
				if err != nil {
					return err
				}
				customers, err := c.customers(ctx)
				if err != nil {
					return fmt.Errorf("list customers: %w: %w", err, fault.ErrIdle)
				}
				rand.New(rand.NewPCG(seed, 0)).Shuffle(len(customers), func(i, j int) { customers[i], customers[j] = customers[j], customers[i] })
				before = c.rebuilt(ctx)
				var last error
				for _, id := range customers[:min(damagedTogether, len(customers))] {
					if last = store.DamageSnapshot(ctx, options, id+":LicenseAggregate"); last == nil {
						damaged++
					}
				}
				if damaged == 0 { // Cassandra may be away by another fault.
					return fmt.Errorf("no snapshot was damaged: %w: %w", last, fault.ErrIdle)
				}
				return nil
			},
			Heal: func(ctx context.Context) error { after = c.rebuilt(ctx); return nil },
			Came: func() fault.Effect {
				return fault.Effect{Text: fmt.Sprintf("damaged %d, of which nodes have rebuilt about %.0f so far", damaged, after-before)}
			},
		}
	}}
}

// customers lists customers by the first gateway that answers.
func (c *Cluster) customers(ctx context.Context) (ids []string, err error) {
	for _, g := range c.gateways {
		asked, cancel := context.WithTimeout(ctx, 5*time.Second)
		res, failed := licensedv1connect.NewAdminServiceClient(http.DefaultClient, g.API).
			ListCustomers(asked, connect.NewRequest(&licensedv1.ListCustomersRequest{Limit: 1000}))
		cancel()
		if failed == nil {
			return res.Msg.CustomerIds, nil
		}
		err = errors.Join(err, failed)
	}
	return nil, err
}

// rebuilt counts the customers that the nodes which answer have rebuilt since they started.
func (c *Cluster) rebuilt(ctx context.Context) (sum float64) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for _, n := range c.nodes {
		page, err := fetch(ctx, http.DefaultClient, n.Admin+"/metrics")
		if err != nil {
			continue // It is down, or cut off.
		}
		for lines := bufio.NewScanner(bytes.NewReader(page)); lines.Scan(); {
			if value, ok := strings.CutPrefix(lines.Text(), "licensed_customers_rebuilt_total "); ok {
				v, _ := strconv.ParseFloat(value, 64)
				sum += v
			}
		}
	}
	return sum
}
