// Package cluster decides which process owns which aggregates. It knows no domain.
//
// # The model
//
// Aggregates are hashed to a fixed number of shards. A shard has at most one owner, an incarnation of
// a node process, under an epoch that rises by compare-and-set whenever the owner changes. What an
// owner writes carries its epoch, so that the writes of a former owner are recognised and ignored
// (docs/design/write-path.md).
//
// [Node] is one of several that share a store. It drives the protocol of package ownership with
// goroutines, the machine's clock and the store, in one incarnation after the other:
//
//	SetMembers, Hear ──► loop ──► ownership.Participant ──► operations on the store, each in a goroutine
//	                      │  ▲                                    │
//	                gates │  └────────────────────────────────────┘
//	                      ▼
//	Execute, Query ──► gate of the shard ──► Host ──► Authority.Holds: gate and clock ──► reply
//
// All that the machine asks for is done by one loop, gates before operations. Requests only read gates
// and count themselves: an open one costs them an atomic addition. A [Host], the aggregates in memory,
// belongs to one incarnation and ends with it. What is measured is in docs/design/cluster.md.
//
// [Solo] is the authority of a node that has a store to itself: the exclusive lock on the store's
// directory proves that no other process is alive, so no lease has to run out.
package cluster
