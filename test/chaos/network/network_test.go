//go:build linux

package network

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestMain plays the part of a process in a port when it is started as one: it echoes lines.
func TestMain(m *testing.M) {
	address := os.Getenv("CHAOS_ECHO")
	if address == "" {
		os.Exit(m.Run())
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		os.Exit(1)
	}
	for {
		c, err := l.Accept()
		if err != nil {
			os.Exit(1)
		}
		go func() { _, _ = io.Copy(c, c) }()
	}
}

func TestLinks(t *testing.T) {
	n, err := New()
	if err != nil {
		t.Skip("no rights for namespaces here: ", err)
	}
	defer n.Close()
	p, err := n.Add("echo")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "CHAOS_ECHO="+p.Address()+":7777")
	if err := p.Start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // It was killed.
	})
	var c net.Conn
	for {
		if c, err = net.DialTimeout("tcp", p.Address()+":7777", time.Second); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	defer c.Close()
	lines := bufio.NewReader(c)
	echo := func(patience time.Duration) (time.Duration, error) {
		began := time.Now()
		if err := c.SetDeadline(began.Add(patience)); err != nil {
			return 0, err
		}
		if _, err := c.Write([]byte("x\n")); err != nil {
			return 0, err
		}
		_, err := lines.ReadString('\n')
		return time.Since(began), err
	}
	if _, err := echo(time.Minute); err != nil {
		t.Fatal(err)
	}
	host := &Port{address: n.Own()}
	n.Set(host, p, Link{Delay: 100 * time.Millisecond})
	if d, err := echo(time.Minute); err != nil || d < 100*time.Millisecond {
		t.Errorf("over a slow link it took %v, %v", d, err)
	}
	// One way: the answer is lost, not the request.
	n.Set(host, p, Link{})
	n.Set(p, host, Link{Cut: true})
	if _, err := echo(100 * time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("over a cut link there was an answer: %v", err)
	}
	for dropped := uint64(0); dropped == 0; _, dropped = n.Packets() {
		time.Sleep(time.Millisecond)
	}
	// The connection lives on when the link is whole again: what was lost is sent again.
	if met := n.Set(p, host, Link{Loss: 1e-12}); met == 0 {
		t.Error("the cut link met no packet")
	}
	if _, err := echo(time.Minute); err != nil {
		t.Errorf("the link stays cut: %v", err)
	}
	if met := n.Set(p, host, Link{}); met != 0 {
		t.Errorf("a good link met %d packets", met)
	}
}

// A link may be cut for one port only.
func TestPortCut(t *testing.T) {
	f, to := newFabric(), &recorder{}
	b := netip.AddrFrom4([4]byte{10, 0, 0, 2})
	f.attach(b, to)
	a := netip.AddrFrom4([4]byte{10, 0, 0, 1})
	f.set(a, b, Link{Cut: true, ToPort: 7947})
	tcp := func(port uint16, protocol byte, fragment uint16) []byte {
		p := packet(1, 2, "")
		p[9] = protocol
		binary.BigEndian.PutUint16(p[6:], fragment)
		return binary.BigEndian.AppendUint16(append(p, 0xff, 0xff), port)
	}
	for _, p := range [][]byte{tcp(7947, 6, 0), tcp(7946, 6, 0), tcp(7947, 17, 0), tcp(7947, 6, 3), packet(1, 2, "x")} {
		f.pass(p)
	}
	if len(to.got) != 4 {
		t.Errorf("%d of 5 packets were passed on, want all but that to the port", len(to.got))
	}
	if met := f.set(a, b, Link{}); met != 1 {
		t.Errorf("the cut met %d packets", met)
	}
}

type recorder struct{ got []string }

func (r *recorder) Read([]byte) (int, error) { return 0, io.EOF }
func (r *recorder) Write(p []byte) (int, error) {
	r.got = append(r.got, string(p[20:]))
	return len(p), nil
}

// packet makes an IPv4 packet from 10.0.0.a to 10.0.0.b.
func packet(a, b byte, body string) []byte {
	p := make([]byte, 20, 20+len(body))
	p[0] = 0x45
	copy(p[12:], []byte{10, 0, 0, a, 10, 0, 0, b})
	return append(p, body...)
}

func TestFabric(t *testing.T) {
	f := newFabric()
	one, two := &recorder{}, &recorder{}
	from, _, _ := addresses(packet(1, 2, ""))
	_, to, _ := addresses(packet(1, 2, ""))
	f.attach(from, one)
	f.attach(to, two)
	f.pass(packet(1, 2, "a"))
	f.set(from, to, Link{Cut: true})
	f.pass(packet(1, 2, "b"))
	f.pass(packet(2, 1, "c")) // The other way is open.
	f.set(from, to, Link{Loss: 0.5})
	for range 100 {
		f.pass(packet(1, 2, "d"))
	}
	// A link counts what it did something to, not what merely came.
	if dropped := f.set(from, to, Link{Loss: 1e-12}); dropped == 0 || dropped == 100 {
		t.Errorf("a link that loses half has dropped %d of 100", dropped)
	}
	f.pass(packet(1, 2, "e"))
	if dropped := f.set(from, to, Link{}); dropped != 0 {
		t.Errorf("a link that lost nothing has dropped %d", dropped)
	}
	f.pass(packet(1, 9, "nobody is there"))
	f.pass([]byte("no packet"))
	got := strings.Join(two.got, "")
	lost := 100 - strings.Count(got, "d")
	if strings.ReplaceAll(got, "d", "") != "ae" || lost < 20 || lost > 80 || strings.Join(one.got, "") != "c" {
		t.Errorf("got %q and %q", got, one.got)
	}
}

func FuzzAddresses(f *testing.F) {
	f.Add(packet(1, 2, "x"))
	f.Fuzz(func(_ *testing.T, b []byte) { newFabric().pass(b) })
}

// What is opened within a port has the port's address, whichever goroutine uses it.
func TestWithin(t *testing.T) {
	n, err := New()
	if err != nil {
		t.Skip("no rights for namespaces here: ", err)
	}
	defer n.Close()
	a, err := n.Add("a")
	if err != nil {
		t.Fatal(err)
	}
	b, err := n.Add("b")
	if err != nil {
		t.Fatal(err)
	}
	var l net.Listener
	if err := a.Within(func() (err error) { l, err = net.Listen("tcp", a.Address()+":0"); return err }); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	from := make(chan string, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			from <- err.Error()
			return
		}
		host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
		from <- host
		_ = c.Close()
	}()
	c, err := b.Dial(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := <-from; got != b.Address() {
		t.Errorf("the listener saw %s, want %s", got, b.Address())
	}
	if _, err := b.Dial(t.Context(), "tcp", "localhost:1"); err == nil {
		t.Error("a name was accepted as an address")
	}
}
