package deploy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"

	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
	store "licensed/persistence/cassandra"
	"licensed/persistence/pebble"
	"licensed/test/chaos/fault"
)

// damagedTogether is the number of customers one fault damages: most of them are loaded again while it holds.
const damagedTogether = 20

// damageKind damages the newest snapshots of some customers in the store, behind the back of the service. Their
// events are whole, so nothing may be lost, and nobody may wait. damage returns the number it damaged, and the count
// of customers rebuilt from which the nodes continue.
func damageKind(
	v victims, target string, ttl time.Duration,
	damage func(ctx context.Context, customers []string) (damaged int, rebuilt float64, err error),
) fault.Kind {
	const name = "damaged snapshots"
	return fault.Kind{Name: name, Weight: 2, Make: func(r *rand.Rand) *fault.Fault {
		seed := r.Uint64()
		var damaged int
		var before, after float64
		return &fault.Fault{
			Kind: name, Targets: []string{target}, Hold: 2*ttl + time.Duration(r.Int64N(int64(2*ttl))),
			Inject: func(ctx context.Context) error {
				customers, err := v.customers(ctx)
				if err != nil {
					return fmt.Errorf("list customers: %w: %w", err, fault.ErrIdle)
				}
				rand.New(rand.NewPCG(seed, 0)).Shuffle(len(customers), func(i, j int) {
					customers[i], customers[j] = customers[j], customers[i]
				})
				damaged, before, err = damage(ctx, customers[:min(damagedTogether, len(customers))])
				return err
			},
			Heal: func(ctx context.Context) error { after = v.rebuilt(ctx); return nil },
			Came: func() fault.Effect {
				return fault.Effect{Text: fmt.Sprintf("damaged %d, of which nodes have rebuilt about %.0f so far",
					damaged, after-before), Idle: damaged == 0}
			},
		}
	}}
}

// damage damages snapshots in Cassandra while the nodes run.
func (c *Cluster) damage(ctx context.Context, customers []string) (damaged int, rebuilt float64, err error) {
	options, err := store.ParseURL(c.store)
	if err != nil {
		return 0, 0, err
	}
	rebuilt = c.victims().rebuilt(ctx)
	var last error
	for _, id := range customers {
		if last = store.DamageSnapshot(ctx, options, id+":LicenseAggregate"); last == nil {
			damaged++
		}
	}
	if damaged == 0 { // Cassandra may be unavailable by another fault.
		return 0, rebuilt, fmt.Errorf("no snapshot was damaged: %w: %w", last, fault.ErrIdle)
	}
	return damaged, rebuilt, nil
}

// damage kills the process, damages snapshots in its store, and starts it again: nobody else can open the store.
func (e *Embedded) damage(ctx context.Context, customers []string) (damaged int, rebuilt float64, err error) {
	for i := range customers {
		customers[i] += ":LicenseAggregate"
	}
	err = alive(e.server.Process, func() error {
		err := e.server.Kill()
		if err == nil {
			damaged, err = pebble.DamageSnapshots(ctx, e.data, pebble.Options{Logger: slog.New(slog.DiscardHandler)},
				customers...)
		}
		if restartErr := e.server.Restart(ctx); restartErr != nil {
			err = errors.Join(err, fmt.Errorf("%w: %w", fault.ErrService, restartErr))
		}
		return err
	})
	return damaged, 0, err // The process that was started counts from 0.
}

// victims are where customers are listed, and where those rebuilt are counted.
type victims struct{ gateways, nodes []*server }

func (c *Cluster) victims() victims { return victims{c.gateways, c.nodes} }

// customers lists customers by the first gateway that answers.
func (v victims) customers(ctx context.Context) (ids []string, err error) {
	for _, g := range v.gateways {
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
func (v victims) rebuilt(ctx context.Context) (sum float64) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for _, n := range v.nodes {
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
