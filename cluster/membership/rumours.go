package membership

import (
	"hash/maphash"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/hashicorp/memberlist"
	"google.golang.org/protobuf/proto"

	"licensed/messages/clusterv1"
)

// rumours are the parts of news that this member gossips: its own, and those of others that it heard for the first
// time. Each member sends a part a bounded number of times and forwards it at most once while the part is among
// the last rememberedParts that it heard. So a part reaches every member with a probability that grows with
// retransmitMult, and then dies out. It is safe for concurrent use.
//
// memberlist puts its own messages into a packet first, and parts into what is left of its 1,400 bytes. A part
// that is larger than that space waits for a packet with fewer of memberlist's messages. Small parts fit into
// nearly every packet.
type rumours struct {
	queue memberlist.TransmitLimitedQueue
	seed  maphash.Seed
	heard *lru.Cache[uint64, struct{}] // hashes of parts
}

const (
	// maxPart is the size of a part of news, in bytes. A single row or death of more is a part of its own.
	maxPart = 150
	// keptParts is the number of parts that may wait for their turn; of more, those that were sent most often are
	// dropped. The full exchange of state delivers them later.
	keptParts = 4096
	// rememberedParts is more than twice what is queued by one member at a time: a part that still circulates
	// is remembered, except under a flood of other parts. Sending is bounded under a flood, too: by packets.
	rememberedParts = 4 * keptParts
	// retransmitMult times the decimal logarithm of the number of members, rounded up, is the number of packets of
	// one member carry a part: 12 of 50 members, 24 of 1,000. A member is missed by all packets of all others
	// with a probability of e^-12 and e^-24.
	retransmitMult = 6
)

// newRumours returns an empty queue. The function returns the number of members that are
// listed at that moment; the queue calls it with its lock held.
func newRumours(members func() int) *rumours {
	heard, err := lru.New[uint64, struct{}](rememberedParts)
	if err != nil {
		panic(err) // The size is not positive.
	}
	return &rumours{
		queue: memberlist.TransmitLimitedQueue{NumNodes: members, RetransmitMult: retransmitMult},
		seed:  maphash.MakeSeed(), heard: heard,
	}
}

// start queues a part of this member's own news.
func (r *rumours) start(part []byte) {
	// Marking it as heard comes first: it may come back while it is queued.
	r.first(part) // What comes back from others is not forwarded.
	r.queue.QueueBroadcast(broadcast(part))
	r.queue.Prune(keptParts)
}

// forward queues a part of another member's news unless it was heard before or is larger than any of this release.
// It keeps no reference to part.
func (r *rumours) forward(part []byte) {
	if len(part) <= maxPart && r.first(part) {
		r.queue.QueueBroadcast(broadcast(append([]byte(nil), part...)))
		r.queue.Prune(keptParts)
	}
}

// drop forgets what is queued. The queue's own Reset must not run beside Prune.
func (r *rumours) drop() {
	if r.queue.NumQueued() > 0 {
		r.queue.Prune(0)
	}
}

// first reports whether a part was not heard before.
func (r *rumours) first(part []byte) bool {
	known, _ := r.heard.ContainsOrAdd(maphash.Bytes(r.seed, part), struct{}{})
	return !known
}

// split returns news in encoded parts of at most maxPart bytes, if its rows and deaths are not larger. Each part
// carries all other fields.
func split(news *clusterv1.News) [][]byte {
	rest := proto.CloneOf(news)
	rest.Shards, rest.Dead = nil, nil
	var parts [][]byte
	empty := proto.Size(rest)
	part, size := proto.CloneOf(rest), empty
	flush := func() {
		if b, err := proto.Marshal(part); err == nil {
			parts = append(parts, b)
		}
		part, size = proto.CloneOf(rest), empty
	}
	// room makes room for a field of n bytes, which has a tag of a byte and a length of two at most.
	room := func(n int) {
		n += 3
		if size > empty && size+n > maxPart {
			flush()
		}
		size += n
	}
	for _, dead := range news.Dead {
		room(len(dead))
		part.Dead = append(part.Dead, dead)
	}
	for _, s := range news.Shards {
		room(proto.Size(s))
		part.Shards = append(part.Shards, s)
	}
	if size > 0 { // also without a row or a death
		flush()
	}
	return parts
}

// broadcast is a part of news in the queue. No part makes another invalid: rows carry epochs.
type broadcast []byte

// Invalidates implements memberlist.Broadcast.
func (broadcast) Invalidates(memberlist.Broadcast) bool { return false }

// UniqueBroadcast implements memberlist.UniqueBroadcast: the queue need not look for what it invalidates.
func (broadcast) UniqueBroadcast() {}

// Message implements memberlist.Broadcast.
func (b broadcast) Message() []byte { return b }

// Finished implements memberlist.Broadcast.
func (broadcast) Finished() {}
