package cluster

import "github.com/cespare/xxhash/v2"

// DefaultShards is the number of shards of a new cluster. It is stored with the cluster and never
// changes.
const DefaultShards = 512

// ShardOf returns the shard of an aggregate (its id with the kind, "Bayley:LicenseAggregate"). The hash
// is part of the stored format: it decides which epoch covers an aggregate.
func ShardOf(aggregate string, shards uint32) uint32 {
	return uint32(xxhash.Sum64String(aggregate) % uint64(shards))
}
