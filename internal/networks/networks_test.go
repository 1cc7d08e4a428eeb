package networks

import (
	"errors"
	"net"
	"strings"
	"testing"
)

// address is that of a connection.
type address string

func (address) Network() string  { return "tcp" }
func (a address) String() string { return string(a) }

func TestCheck(t *testing.T) {
	l, err := Parse([]string{"10.0.0.0/8", " 192.0.2.7", "fd00::/8", "fe80::/10"})
	if err != nil {
		t.Fatal(err)
	}
	for a, want := range map[string]error{
		"10.1.2.3:4": nil, "192.0.2.7:1": nil, "[fd12::1]:7": nil, "[::ffff:10.1.2.3]:4": nil, "[fe80::1%eth0]:1": nil,
		"11.0.0.1:1": ErrOutside, "192.0.2.8:1": ErrOutside, "[::1]:1": ErrOutside, "pipe": ErrOutside, "": ErrOutside,
	} {
		if err := l.Check(address(a)); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", a, err, want)
		}
		if host, _, err := net.SplitHostPort(a); err == nil && !strings.Contains(host, "%") {
			if err := l.CheckIP(net.ParseIP(host)); !errors.Is(err, want) {
				t.Errorf("%s as an IP address: %v, want %v", a, err, want)
			}
		}
	}
	if err := l.CheckIP(nil); !errors.Is(err, ErrOutside) {
		t.Errorf("no address: %v", err)
	}
	if err := errors.Join(List(nil).Check(address("pipe")), List(nil).CheckIP(nil)); err != nil {
		t.Errorf("an empty list: %v", err)
	}
}

func TestParse(t *testing.T) {
	for text, says := range map[string]string{
		"10.0.0.1/8": "the network is 10.0.0.0/8", "10.0.0.0/33": "not a network", "host": "not a network",
		"": "not a network", "::ffff:10.0.0.0/104": "IPv4",
	} {
		if _, err := Parse([]string{"10.0.0.0/8", text}); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want it to say %q", text, err, says)
		}
	}
}
