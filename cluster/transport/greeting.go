package transport

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"licensed/cluster"
	"licensed/persistence"
)

// What each side says of itself at the beginning of a stream, as headers: the name of the cluster, its id, and the
// incarnation of the process.
const (
	clusterHeader     = "cluster-bin"
	clusterIDHeader   = "cluster-id-bin"
	incarnationHeader = "incarnation-bin"
)

// errStranger is that the other side of a stream is not the process that was meant.
var errStranger = errors.New("an unknown process answers")

// greeting returns what this process says of itself.
func (c *Config) greeting() metadata.MD {
	md := metadata.Pairs(clusterHeader, c.Cluster)
	if !c.ClusterID.IsZero() {
		md.Set(clusterIDHeader, string(c.ClusterID[:]))
	}
	if c.Incarnation != nil {
		if i := c.Incarnation(); !i.IsZero() {
			md.Set(incarnationHeader, string(i[:]))
		}
	}
	return md
}

// header returns the one value of a header; empty if there is none.
func header(md metadata.MD, name string) []byte {
	if v := md.Get(name); len(v) == 1 {
		return []byte(v[0])
	}
	return nil
}

// ours returns an error for who is of another cluster: addresses are given to other machines, and seeds
// are mistyped. A request would be executed in the wrong store.
func (t *Transport) ours(ctx context.Context) error {
	md, _ := metadata.FromIncomingContext(ctx)
	c := &t.config
	id, err := persistence.ParseClusterID(header(md, clusterIDHeader))
	from := ""
	if p, ok := grpcpeer.FromContext(ctx); ok {
		from = p.Addr.String()
	}
	switch {
	case string(header(md, clusterHeader)) != c.Cluster:
		c.Observer.Rejected("another cluster")
		return status.Errorf(codes.FailedPrecondition, "this process belongs to cluster %q, the caller does not; check --join", c.Cluster)
	case err != nil, t.another(id, from, "incoming stream"):
		c.Observer.Rejected("another cluster")
		return status.Errorf(codes.FailedPrecondition, "this process belongs to cluster %q with id %s, the caller to a cluster with id %s; check --join", c.Cluster, c.ClusterID, id)
	}
	return nil
}

// another reports whether a process is of another cluster. One that names none is of an earlier release.
func (t *Transport) another(id persistence.ClusterID, address, how string) bool {
	own := t.config.ClusterID
	if own.IsZero() || id.IsZero() || id == own {
		return false
	}
	t.config.Strangers.Refuse(id, address, how)
	return true
}

// refuse returns an error if who answered, or refused to, is of another cluster.
func (c *connection) refuse() error {
	p := c.link.peer
	md, err := c.stream.Header()
	if err != nil {
		return nil //nolint:nilerr // it said nothing
	}
	id, err := persistence.ParseClusterID(header(md, clusterIDHeader))
	if err != nil {
		return fmt.Errorf("%w at %s: %w", errStranger, p.address, err)
	}
	if own := p.transport.config.ClusterID; p.transport.another(id, p.address, "connecting to it") {
		return fmt.Errorf("%w at %s: it is of a cluster with id %s, this process of one with id %s", errStranger, p.address, id, own)
	}
	return nil
}

// admit returns an error if who answered is not the process that is to be sent requests at the peer's address.
func (c *connection) admit(ctx context.Context) error {
	if err := c.refuse(); err != nil {
		return err
	}
	p := c.link.peer
	t := p.transport
	md, err := c.stream.Header()
	if err != nil {
		return err
	}
	i, err := cluster.IncarnationOf(header(md, incarnationHeader))
	if err == nil && t.config.Admit != nil {
		err = t.config.Admit(ctx, p.address, i)
	}
	if err != nil {
		return fmt.Errorf("%w at %s: %w", errStranger, p.address, err)
	}
	return nil
}
