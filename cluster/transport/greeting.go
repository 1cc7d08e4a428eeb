package transport

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"licensed/cluster"
	"licensed/persistence"
)

// wireVersion is the version of what streams carry. Releases of one version understand each other's frames; a process
// of another one is refused. Fields that are added to messages need no new version.
const wireVersion = "2"

// What each side says of itself at the beginning of a stream, as headers: the wire version, the name of the cluster,
// its id, and the incarnation of the process.
const (
	wireHeader        = "wire-version"
	clusterHeader     = "cluster-bin"
	clusterIDHeader   = "cluster-id-bin"
	incarnationHeader = "incarnation-bin"
)

// Reasons to refuse the process at the other side.
var (
	errOtherCluster = errors.New("the process is of another cluster")
	errOtherWire    = errors.New("the process is of an incompatible release")
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

// differs returns an error if the headers are not those of a process of the same cluster and wire version: addresses
// are given to other machines, and seeds are mistyped. A request would be executed in the wrong store.
func (t *Transport) differs(md metadata.MD, address, how string) error {
	c := &t.config
	id, err := persistence.ParseClusterID(header(md, clusterIDHeader))
	// Zero ids are those of processes of a release that had none: then the names decide.
	foreign := !c.ClusterID.IsZero() && !id.IsZero() && id != c.ClusterID
	if foreign {
		c.Strangers.Refuse(id, address, how)
	}
	name, wire := string(header(md, clusterHeader)), string(header(md, wireHeader))
	switch {
	case err != nil || foreign || name != c.Cluster:
		return fmt.Errorf("%w: cluster %q with id %s, here %q with id %s; check --join",
			errOtherCluster, name, id, c.Cluster, c.ClusterID)
	case wire != wireVersion:
		return fmt.Errorf("%w: wire version %q, here %q; run compatible releases in a cluster",
			errOtherWire, wire, wireVersion)
	}
	return nil
}

// ours returns an error for a caller of another cluster or wire version.
func (t *Transport) ours(ctx context.Context, from string) error {
	md, _ := metadata.FromIncomingContext(ctx)
	err := t.differs(md, from, "incoming stream")
	switch {
	case errors.Is(err, errOtherWire):
		t.config.Listener.Rejected("another wire version")
	case err != nil:
		t.config.Listener.Rejected("another cluster")
	default:
		return nil
	}
	// The caller reports the text to its operator: it names both sides.
	return status.Error(codes.FailedPrecondition, err.Error())
}

// refused returns why the process at the peer's address did not accept the stream.
func (s *stream) refused(err error) error {
	if status.Code(err) == codes.Unimplemented {
		return fmt.Errorf("%w: it does not speak wire version %q: %w", errOtherWire, wireVersion, err)
	}
	if md, _ := s.grpc.Header(); len(header(md, clusterHeader)) > 0 {
		return cmp.Or(s.peer.transport.differs(md, s.peer.address, "connecting to it"), err)
	}
	return err
}

// admit returns an error if the process that answered is not the one that is to be sent requests at the peer's address.
func (s *stream) admit(ctx context.Context) error {
	md, err := s.grpc.Header()
	if err != nil {
		return err
	}
	t, address := s.peer.transport, s.peer.address
	if err := t.differs(md, address, "connecting to it"); err != nil {
		return err
	}
	process, err := t.identify(s.grpc.Context())
	if err != nil {
		return err
	}
	i, err := cluster.IncarnationOf(header(md, incarnationHeader))
	if err == nil && !i.IsZero() && process != Node {
		err = errStranger // It says that it is a node.
	}
	if err == nil && t.config.Admit != nil {
		err = t.config.Admit(ctx, address, i)
	}
	if err != nil {
		return fmt.Errorf("an unknown process answers at %s: %w", address, err)
	}
	return nil
}
