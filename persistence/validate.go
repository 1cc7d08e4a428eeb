package persistence

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxAggregateLen is the longest id of an aggregate with its kind, in bytes. MaxNameLen is that of
// every other string in a record or root.
const (
	MaxAggregateLen = 512
	MaxNameLen      = 512
)

// Validate returns an error wrapping ErrRejected if no store takes the mutation: its partition has no
// name, it is empty, its records do not follow one another, or a string is too long or not UTF-8.
func (m *Mutation) Validate() error {
	if err := m.Partition.validate(); err != nil {
		return err
	}
	if len(m.Records) == 0 {
		return fmt.Errorf("%w: no records", ErrRejected)
	}
	for i := range m.Records {
		r := &m.Records[i]
		if r.Sequence == 0 || i > 0 && r.Sequence != m.Records[i-1].Sequence+1 {
			return fmt.Errorf("%w: sequence %d out of order", ErrRejected, r.Sequence)
		}
		if r.Index >= r.Count {
			return fmt.Errorf("%w: record %d is number %d of %d", ErrRejected, r.Sequence, r.Index, r.Count)
		}
		if !validNames(r.CommandID, r.Principal, r.Reason, r.AggregateID, r.Mapper, r.Header.KeyID,
			r.Header.PolicyVersion) {
			return fmt.Errorf("%w: record %d: a string is too long or not UTF-8", ErrRejected, r.Sequence)
		}
	}
	return nil
}

// Validate returns an error wrapping ErrRejected if no store takes the root: it has no name, its
// parent is another aggregate's or not below it, or a string is too long or not UTF-8.
func (r *Root) Validate() error {
	p := r.Partition()
	if err := p.validate(); err != nil {
		return err
	}
	if r.Parent.IsZero() {
		if !r.ParentIncarnation.IsZero() {
			return fmt.Errorf("%w: incarnation of no parent", ErrRejected)
		}
	} else if r.Parent.Aggregate != r.Key.Aggregate || r.Parent.Epoch == 0 || r.Parent.Version == 0 ||
		!r.Parent.Less(r.Key) {
		return fmt.Errorf("%w: parent %v is not an earlier root of the aggregate", ErrRejected, r.Parent)
	}
	if !validNames(r.Mapper, r.Header.KeyID, r.Header.PolicyVersion) {
		return fmt.Errorf("%w: a string is too long or not UTF-8", ErrRejected)
	}
	return nil
}

func (p *Partition) validate() error {
	switch {
	case p.Epoch == 0 || p.Version == 0 || p.Incarnation.IsZero():
		return fmt.Errorf("%w: epoch, version or incarnation is zero", ErrRejected)
	case p.Aggregate == "" || len(p.Aggregate) > MaxAggregateLen:
		return fmt.Errorf("%w: aggregate id of %d bytes", ErrRejected, len(p.Aggregate))
	case !utf8.ValidString(p.Aggregate) || strings.IndexByte(p.Aggregate, 0) >= 0:
		return fmt.Errorf("%w: aggregate id %q is not UTF-8 without NUL", ErrRejected, p.Aggregate)
	}
	return nil
}

func validNames(names ...string) bool {
	for _, s := range names {
		if len(s) > MaxNameLen || !utf8.ValidString(s) {
			return false
		}
	}
	return true
}

// Validate returns an error wrapping ErrRejected if there can be no such cluster.
func (c ClusterInfo) Validate() error {
	if c.Shards == 0 || !validNames(c.Name) {
		return fmt.Errorf("%w: cluster %q with %d shards", ErrRejected, c.Name, c.Shards)
	}
	return nil
}

// WithID returns the cluster with a random ID, if it has none.
func (c ClusterInfo) WithID() ClusterInfo {
	if c.ID.IsZero() {
		c.ID = NewClusterID()
	}
	return c
}

// ValidateLeaseSwap returns an error wrapping ErrRejected if old and next are not rows of one lease.
func ValidateLeaseSwap(old, next Lease) error {
	created := old == (Lease{})
	if next.Incarnation.IsZero() || !validNames(next.Node, next.Address) ||
		!created && (old.Incarnation != next.Incarnation || old.Address != next.Address) {
		return fmt.Errorf("%w: lease %v cannot become %v", ErrRejected, old.Incarnation, next.Incarnation)
	}
	return nil
}

// ValidateShardSwap returns an error wrapping ErrRejected if old and next are not rows of one shard.
func ValidateShardSwap(old, next Shard) error {
	if next.Epoch == 0 || next.Epoch > MaxEpoch || old.Epoch != 0 && old.ID != next.ID {
		return fmt.Errorf("%w: shard %d cannot become %d at epoch %d", ErrRejected, old.ID, next.ID, next.Epoch)
	}
	return nil
}
