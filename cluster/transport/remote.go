package transport

import (
	"fmt"
	"io"
	"net"
	"reflect"
	"unsafe"

	"github.com/asynkron/protoactor-go/actor"
	protocluster "github.com/asynkron/protoactor-go/cluster"
	"github.com/asynkron/protoactor-go/remote"
	"google.golang.org/grpc"
	"google.golang.org/grpc/grpclog"
)

// The log of gRPC is one variable for the whole process, without a lock. It is set here once, before anything of gRPC runs, and
// keeps nothing: what goes wrong with peers is told by this package, to who started the transport.
//
// protoactor's Remote.Start would set it again whenever a remote starts, while connections of others read it. So a remote is
// started by [startRemote], which does all that Remote.Start does but that. The parts of protoactor that this takes are not
// exported. They are those of the release that go.mod names: the build fails if one of the functions is gone, and
// TestRemoteParts if one of the fields is.
func init() { grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard)) }

//go:linkname newEndpointManager github.com/asynkron/protoactor-go/remote.newEndpointManager
func newEndpointManager(*remote.Remote) unsafe.Pointer

//go:linkname startEndpointManager github.com/asynkron/protoactor-go/remote.(*endpointManager).start
func startEndpointManager(unsafe.Pointer)

//go:linkname newEndpointReader github.com/asynkron/protoactor-go/remote.newEndpointReader
func newEndpointReader(*remote.Remote) unsafe.Pointer

//go:linkname remoteHandler github.com/asynkron/protoactor-go/remote.(*Remote).remoteHandler
func remoteHandler(*remote.Remote, *actor.PID) (actor.Process, bool)

// startRemote listens, and begins to serve. Errors: it cannot listen.
func startRemote(system *actor.ActorSystem, c *remote.Config) (*remote.Remote, error) {
	l, err := net.Listen("tcp", c.Address())
	if err != nil {
		return nil, fmt.Errorf("failed to listen: %w", err)
	}
	address := c.AdvertisedHost
	if address == "" {
		address = l.Addr().String()
	}
	r := remote.NewRemote(system, c)
	system.ProcessRegistry.RegisterAddressResolver(func(pid *actor.PID) (actor.Process, bool) { return remoteHandler(r, pid) })
	system.ProcessRegistry.Address = address

	manager := newEndpointManager(r)
	setPart(r, "edpManager", manager)
	startEndpointManager(manager)

	server := grpc.NewServer(c.ServerOptions...)
	setPart(r, "s", unsafe.Pointer(server))
	remote.RegisterRemotingServer(server, setPart(r, "edpReader", newEndpointReader(r)).(remote.RemotingServer))
	go func() { _ = server.Serve(l) }()
	return r, nil
}

// setPart sets a field of a remote, which is a pointer, and returns its value.
func setPart(r *remote.Remote, name string, to unsafe.Pointer) any {
	field := reflect.ValueOf(r).Elem().FieldByName(name)
	part := reflect.NewAt(field.Type().Elem(), to)
	reflect.NewAt(field.Type(), field.Addr().UnsafePointer()).Elem().Set(part)
	return part.Interface()
}

// startCluster does what protoactor's StartMember does, but for kinds, which nobody uses, and a pause of a second at its end.
func startCluster(c *protocluster.Cluster) (err error) {
	if c.Remote, err = startRemote(c.ActorSystem, c.Config.RemoteConfig); err != nil {
		return err
	}
	c.IdentityLookup = c.Config.IdentityLookup
	c.IdentityLookup.Setup(c, nil, false)
	if err := c.Gossip.StartGossiping(); err != nil {
		return err
	}
	c.PubSub.Start()
	c.MemberList.InitializeTopologyConsensus()
	return c.Config.ClusterProvider.StartMember(c)
}
