package deploy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"licensed/cluster"
	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
	"licensed/test/chaos/fault"
	"licensed/test/chaos/network"
)

const (
	// requestPort is where nodes take requests of other processes.
	requestPort = 7947
	// servedWithin is the time in which the customers of a node are to be served by another one.
	servedWithin = 10 * time.Second
)

// nodePortKind cuts the node port of a node off from everybody. Gossip, the store and what the node itself connects
// to continue. Its customers must be served by others soon. Nothing else is done meanwhile, for that would excuse it.
func (c *Cluster) nodePortKind() fault.Kind {
	const name = "node port cut"
	return fault.Kind{Name: name, Weight: 2, Make: func(r *rand.Rand) *fault.Fault {
		node := c.nodes[r.IntN(len(c.nodes))]
		f := &fault.Fault{
			Kind:    name,
			Targets: []string{node.Process.Name()},
			Also:    c.everything(),
			Hold:    servedWithin + 2*time.Second,
		}
		var at *network.Port
		for _, p := range c.places {
			if p.name == node.Process.Name() {
				at = p.port
			}
		}
		var met uint64
		var result chan error
		var took time.Duration
		f.Inject = func(ctx context.Context) error {
			return alive(node.Process, func() error {
				v := &visitor{cluster: c}
				customers, err := v.customersOf(ctx, node.Process.Name())
				if err != nil || len(customers) == 0 {
					return fmt.Errorf("%s holds nothing that can be told (%w): %w",
						node.Process.Name(), cmp.Or(err, errNothingHeld), fault.ErrIdle)
				}
				for _, p := range c.places {
					if p.name != node.Process.Name() {
						c.network.Set(p.port, at, network.Link{Cut: true, ToPort: requestPort})
					}
				}
				result = make(chan error, 1)
				go func() {
					began := time.Now()
					watching, cancel := context.WithTimeout(context.WithoutCancel(ctx), servedWithin)
					defer cancel()
					err := v.await(watching, customers)
					if took = time.Since(began); err != nil {
						err = fmt.Errorf("customers of %s are not served after its node port was cut: %w",
							node.Process.Name(), err)
					}
					result <- err
				}()
				return nil
			})
		}
		f.Heal = func(context.Context) error {
			err := <-result
			for _, p := range c.places {
				if p.name != node.Process.Name() {
					met += c.network.Set(p.port, at, network.Link{})
				}
			}
			return err
		}
		f.Came = func() fault.Effect {
			return fault.Effect{Text: fmt.Sprintf("dropped %d packets; its customers were served by others after %v",
				met, took.Round(10*time.Millisecond)), Idle: met == 0}
		}
		return f
	}}
}

// everything lists all members and links, as targets that nothing may be done to.
func (c *Cluster) everything() (all []string) {
	for _, p := range c.places {
		all = append(all, p.name)
		for _, o := range c.places {
			if o.name != p.name {
				all = append(all, p.name+">"+o.name)
			}
		}
	}
	return all
}

var errNothingHeld = errors.New("no shard is its own")

// visitor asks gateways.
type visitor struct{ cluster *Cluster }

// status returns that of the cluster, by the first gateway that answers.
func (v *visitor) status(ctx context.Context) (*licensedv1.ClusterStatus, error) {
	var errs []error
	for _, g := range v.cluster.gateways {
		one, cancel := context.WithTimeout(ctx, 3*time.Second)
		res, err := licensedv1connect.NewAdminServiceClient(http.DefaultClient, g.API).GetCluster(one,
			connect.NewRequest(&licensedv1.GetClusterRequest{}))
		cancel()
		if err == nil {
			return res.Msg.Cluster, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// customersOf returns one customer of each shard that a node holds.
func (v *visitor) customersOf(ctx context.Context, node string) ([]string, error) {
	s, err := v.status(ctx)
	if err != nil {
		return nil, err
	}
	incarnation := ""
	for _, n := range s.Nodes {
		if n.Name == node {
			incarnation = n.Incarnation
		}
	}
	wanted := map[uint32]bool{}
	for _, m := range s.ShardMap {
		if m.Owner != "" && m.Owner == incarnation {
			wanted[m.Id] = true
		}
	}
	return visitors(wanted, s.Shards), nil
}

// visitors returns one customer of each wanted shard.
func visitors(wanted map[uint32]bool, shards uint32) (customers []string) {
	for i := 0; len(wanted) > 0; i++ {
		id := fmt.Sprint("visitor-", i)
		if shard := cluster.ShardOf(id+":LicenseAggregate", shards); wanted[shard] {
			delete(wanted, shard)
			customers = append(customers, id)
		}
	}
	return customers
}

// awaitAll returns nil if within servedWithin every gateway has had an answer for a customer of each shard.
func (v *visitor) awaitAll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, servedWithin)
	defer cancel()
	wanted := map[uint32]bool{}
	for id := range uint32(shardCount) {
		wanted[id] = true
	}
	return v.await(ctx, visitors(wanted, shardCount))
}

// await returns nil when every gateway has had an answer for each of these customers.
func (v *visitor) await(ctx context.Context, customers []string) error {
	for _, g := range v.cluster.gateways {
		for _, id := range customers {
			for v.ask(ctx, g.API, id) != nil {
				if ctx.Err() != nil {
					return fmt.Errorf("no answer for %s at %s within %v", id, g.Process.Name(), servedWithin)
				}
				time.Sleep(50 * time.Millisecond)
			}
		}
	}
	return nil
}

func (v *visitor) ask(ctx context.Context, gateway, customer string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err := licensedv1connect.NewLicenseServiceClient(http.DefaultClient, gateway).ListLicenses(ctx,
		connect.NewRequest(&licensedv1.ListLicensesRequest{CustomerId: customer}))
	return err
}
