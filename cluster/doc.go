// Package cluster decides which process may speak for which aggregates. It knows no domain.
//
// # The model
//
// Aggregates are hashed to a fixed number of shards. A shard has at most one owner, an incarnation of
// a node process, under an epoch that rises by compare-and-set whenever the owner changes. What an
// owner writes carries its epoch, so that the writes of a former owner are recognised and ignored
// (docs/write-path.md).
//
// [Solo] is the authority of a node that has a store to itself: the exclusive lock on the store's
// directory proves that no other process is alive, so no lease has to run out.
package cluster
