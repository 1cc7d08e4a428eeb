package node

import (
	"context"
	"fmt"

	"licensed/internal/failpoint"
	"licensed/messages/licensedv1"
	"licensed/persistence/pebble"
)

// soloCluster is the name that a node with a store of its own gives its cluster of one.
const soloCluster = "licensed"

// openStore opens the store that the settings name.
func (n *Node) openStore(ctx context.Context) error {
	switch {
	case n.config.shared != nil:
		n.store = n.config.shared
		n.storeStatus = func(context.Context) *licensedv1.StoreStatus { return &licensedv1.StoreStatus{Kind: "shared"} }
		return nil
	case n.config.Store == "":
		return n.openPebble()
	}
	return n.openCassandra(ctx)
}

// openPebble opens the embedded store, which locks its directory. A disk error stops the node: it can
// no longer tell what is durable.
func (n *Node) openPebble() error {
	store, err := pebble.Open(n.config.Data, pebble.Options{
		Logger: n.log, MaxOpenFiles: n.files.store,
		OnFatal: func(err error) { n.fail(fmt.Errorf("the store stopped: %w", err)) },
	})
	if err != nil {
		return err
	}
	n.store = failpoint.Store(store)
	n.storeStatus = func(ctx context.Context) *licensedv1.StoreStatus { return pebbleStatus(ctx, n.config.Data, store) }
	n.registry.MustRegister(newPebbleMetrics(store))
	n.push("store", func(context.Context) error { return store.Close() })
	return nil
}

func pebbleStatus(ctx context.Context, dir string, store *pebble.Store) *licensedv1.StoreStatus {
	s := &licensedv1.StoreStatus{Kind: "pebble", Location: dir}
	if m, err := store.Metrics(ctx); err == nil { // If it stopped, the node's state tells.
		s.DiskBytes, s.Writes, s.Syncs = m.Engine.DiskSpaceUsage(), m.Writes, m.Groups
	}
	return s
}
