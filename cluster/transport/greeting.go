package transport

import (
	"cmp"
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

// wireVersion is the version of what streams carry. Releases of one version understand each other's frames; a process
// of another one is refused. Fields that are added to messages need no new version.
const wireVersion = "2"

// What each side says of itself at the beginning of a stream, as headers: the wire version, the name of the cluster, its
// id, and the incarnation of the process.
const (
	wireHeader        = "wire-version"
	clusterHeader     = "cluster-bin"
	clusterIDHeader   = "cluster-id-bin"
	incarnationHeader = "incarnation-bin"
)

// Reasons of the asking side not to use a stream.
var (
	// errStranger is that the other side is not the process that was meant.
	errStranger = errors.New("an unknown process answers")
	// errOtherWire is that the other side is of an incompatible release.
	errOtherWire = errors.New("the process is of an incompatible release")
)

// greeting returns what this process says of itself.
func (c *Config) greeting() metadata.MD {
	md := metadata.Pairs(wireHeader, wireVersion, clusterHeader, c.Cluster)
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

// ours returns an error for a process of another cluster or wire version: addresses are given to other machines, and
// seeds are mistyped. A request would be executed in the wrong store.
func (t *Transport) ours(ctx context.Context) error {
	md, _ := metadata.FromIncomingContext(ctx)
	c := &t.config
	id, err := persistence.ParseClusterID(header(md, clusterIDHeader))
	from := ""
	if p, ok := grpcpeer.FromContext(ctx); ok {
		from = p.Addr.String()
	}
	wire := string(header(md, wireHeader))
	switch {
	case string(header(md, clusterHeader)) != c.Cluster:
		c.Observer.Rejected("another cluster")
		return status.Errorf(codes.FailedPrecondition, "this process belongs to cluster %q, the caller does not; check --join", c.Cluster)
	case err != nil, t.another(id, from, "incoming stream"):
		c.Observer.Rejected("another cluster")
		return status.Errorf(codes.FailedPrecondition, "this process belongs to cluster %q with id %s, the caller to a cluster with id %s; check --join", c.Cluster, c.ClusterID, id)
	case wire != wireVersion:
		c.Observer.Rejected("another wire version")
		return status.Errorf(codes.FailedPrecondition,
			"this process speaks wire version %s, the caller %q; run releases of one wire version in a cluster", wireVersion, wire)
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

// refused returns why the process at the peer's address did not accept the stream.
func (s *stream) refused(err error) error {
	if status.Code(err) == codes.Unimplemented {
		return fmt.Errorf("%w: it does not speak wire version %s: %w", errOtherWire, wireVersion, err)
	}
	md, _ := s.grpc.Header()
	return cmp.Or(s.known(md), err)
}

// known returns an error if the process that answered, or refused to, is of another cluster or wire version.
func (s *stream) known(md metadata.MD) error {
	t, address := s.peer.transport, s.peer.address
	id, err := persistence.ParseClusterID(header(md, clusterIDHeader))
	if err != nil {
		return fmt.Errorf("%w at %s: %w", errStranger, address, err)
	}
	if own := t.config.ClusterID; t.another(id, address, "connecting to it") {
		return fmt.Errorf("%w at %s: it is of a cluster with id %s, this process of one with id %s", errStranger, address, id, own)
	}
	if wire := string(header(md, wireHeader)); wire != "" && wire != wireVersion {
		return fmt.Errorf("%w: %s speaks wire version %q, this process %s", errOtherWire, address, wire, wireVersion)
	}
	return nil
}

// admit returns an error if the process that answered is not the one that is to be sent requests at the peer's address.
func (s *stream) admit(ctx context.Context) error {
	md, err := s.grpc.Header()
	if err != nil {
		return err
	}
	if err := s.known(md); err != nil {
		return err
	}
	t := s.peer.transport
	i, err := cluster.IncarnationOf(header(md, incarnationHeader))
	if err == nil && t.config.Admit != nil {
		err = t.config.Admit(ctx, s.peer.address, i)
	}
	if err != nil {
		return fmt.Errorf("%w at %s: %w", errStranger, s.peer.address, err)
	}
	return nil
}
