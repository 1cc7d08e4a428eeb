package network

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// Network is a switch with its ports. It is safe for concurrent use. Close it.
type Network struct {
	fabric *fabric
	prefix [3]byte

	mu    sync.Mutex
	ports map[string]*Port
	files []*os.File
	pumps sync.WaitGroup
}

// Port is a place in the network for processes.
type Port struct {
	name    string
	address netip.Addr
	space   *os.File // the namespace; nil for the one of this process
}

// own is the last byte of the address of this process.
const own = 254

// New makes a network with a port in the namespace of this process. Its addresses are drawn; others that were
// drawn alike are no reason to go without.
func New() (n *Network, err error) {
	for range 8 {
		if n, err = draw(); err == nil || !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EEXIST) {
			return n, err
		}
	}
	return nil, err
}

func draw() (*Network, error) {
	n := &Network{
		fabric: newFabric(),
		prefix: [3]byte{10, byte(64 + rand.IntN(64)), byte(rand.IntN(256))},
		ports:  map[string]*Port{},
	}
	address := n.at(own)
	tun, err := openTUN(fmt.Sprintf("chaos%d", n.prefix[2]), address)
	if err != nil {
		return nil, err
	}
	n.join(address, tun)
	// Try what every other port will need, so that the caller hears at once.
	probe, err := n.Add("probe")
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	delete(n.ports, probe.name)
	return n, probe.space.Close()
}

func (n *Network) at(last byte) netip.Addr {
	return netip.AddrFrom4([4]byte{n.prefix[0], n.prefix[1], n.prefix[2], last})
}

// Prefix returns the first three bytes of all addresses, "10.64.7".
func (n *Network) Prefix() string {
	return fmt.Sprintf("%d.%d.%d", n.prefix[0], n.prefix[1], n.prefix[2])
}

// Own returns the address of this process in the network.
func (n *Network) Own() netip.Addr { return n.at(own) }

func (n *Network) join(a netip.Addr, tun *os.File) {
	n.files = append(n.files, tun)
	n.fabric.attach(a, tun)
	n.pumps.Go(func() { n.fabric.pump(tun) })
}

// Add makes a port. Ports get the addresses from 1 on, in order.
func (n *Network) Add(name string) (*Port, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ports[name] != nil {
		return nil, fmt.Errorf("network: there is a port %q", name)
	}
	p := &Port{name: name, address: n.at(byte(len(n.ports) + 1))}
	var tun *os.File
	err := apart(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("network: make a namespace: %w", err)
		}
		if p.space, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		if err := up("lo", netip.Addr{}); err != nil {
			return err
		}
		tun, err = openTUN("eth0", p.address)
		return err
	})
	if err != nil {
		return nil, err
	}
	n.join(p.address, tun)
	n.ports[name] = p
	return p, nil
}

// apart runs fn on a thread of its own that may change its namespace, and brings the thread back.
func apart(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			runtime.UnlockOSThread()
			done <- err
			return
		}
		defer home.Close()
		err = fn()
		// A thread that cannot go back ends with this goroutine.
		if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
			done <- errors.Join(err, back)
			return
		}
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}

// Address of the port.
func (p *Port) Address() string { return p.address.String() }

// Within runs fn in the port's namespace, on a thread of its own. Sockets that fn opens, in its own goroutine, belong
// to the namespace for as long as they live, whichever code uses them afterwards.
func (p *Port) Within(fn func() error) error {
	return apart(func() error {
		if err := unix.Setns(int(p.space.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("network: enter the namespace of %s: %w", p.name, err)
		}
		return fn()
	})
}

// Start starts a command in the port's namespace.
func (p *Port) Start(cmd *exec.Cmd) error { return p.Within(cmd.Start) }

// Dial connects from the port, so that the other side sees the port's address. The address is an IP address
// with a port; no name is resolved. The connection may be used by any goroutine.
func (p *Port) Dial(ctx context.Context, network, address string) (c net.Conn, err error) {
	if _, err := netip.ParseAddrPort(address); err != nil {
		return nil, fmt.Errorf("network: dial from %s: %w", p.name, err)
	}
	err = p.Within(func() error {
		var d net.Dialer
		c, err = d.DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// Set sets how packets go from one port to another; the zero Link makes all well. It returns the number of packets
// the link that was present before has dropped or delayed.
func (n *Network) Set(from, to *Port, l Link) (met uint64) {
	return n.fabric.set(from.address, to.address, l)
}

// Packets returns the number of packets that were passed on and dropped.
func (n *Network) Packets() (passed, dropped uint64) {
	return n.fabric.passed.Load(), n.fabric.dropped.Load()
}

// Close takes the network away.
func (n *Network) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var errs []error
	for _, f := range n.files {
		errs = append(errs, f.Close())
	}
	for _, p := range n.ports {
		errs = append(errs, p.space.Close())
	}
	n.pumps.Wait()
	return errors.Join(errs...)
}

// openTUN makes a TUN device with an address in the namespace of the calling thread.
func openTUN(name string, a netip.Addr) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("network: /dev/net/tun: %w", err)
	}
	r, err := unix.NewIfreq(name)
	if err == nil {
		r.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, r)
	}
	if err == nil {
		err = up(name, a)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("network: make device %s: %w", name, err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), name), nil
}

// up switches a device on, with an address if there is one.
func up(name string, a netip.Addr) (err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	if a.IsValid() {
		mask := netip.AddrFrom4([4]byte{0xff, 0xff, 0xff, 0})
		for _, set := range []struct {
			request uint
			address netip.Addr
		}{{unix.SIOCSIFADDR, a}, {unix.SIOCSIFNETMASK, mask}} {
			if err := ioctl(fd, name, set.request,
				func(r *unix.Ifreq) error { return r.SetInet4Addr(set.address.AsSlice()) }); err != nil {
				return err
			}
		}
		if err := ioctl(fd, name, unix.SIOCSIFMTU,
			func(r *unix.Ifreq) error { r.SetUint32(maxPacket); return nil }); err != nil {
			return err
		}
	}
	return ioctl(fd, name, unix.SIOCSIFFLAGS,
		func(r *unix.Ifreq) error { r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING); return nil })
}

func ioctl(fd int, name string, request uint, fill func(*unix.Ifreq) error) error {
	r, err := unix.NewIfreq(name)
	if err == nil {
		err = fill(r)
	}
	if err == nil {
		err = unix.IoctlIfreq(fd, request, r)
	}
	if err != nil {
		return fmt.Errorf("network: set up %s (%#x): %w", name, request, err)
	}
	return nil
}
