//go:build !linux

package network

import (
	"context"
	"errors"
	"net"
	"os/exec"
)

// Network exists on Linux only.
type Network struct{}

// Port exists on Linux only.
type Port struct{}

// New says that there is no such network here.
func New() (*Network, error) {
	return nil, errors.New("network: namespaces and TUN devices need Linux")
}

// Prefix is for Linux only.
func (*Network) Prefix() string { return "" }

// Add is for Linux only.
func (*Network) Add(string) (*Port, error) { return nil, errors.ErrUnsupported }

// Set is for Linux only.
func (*Network) Set(_, _ *Port, _ Link) uint64 { return 0 }

// Packets is for Linux only.
func (*Network) Packets() (passed, dropped uint64) { return 0, 0 }

// Close is for Linux only.
func (*Network) Close() error { return nil }

// Address is for Linux only.
func (*Port) Address() string { return "" }

// Start is for Linux only.
func (*Port) Start(*exec.Cmd) error { return errors.ErrUnsupported }

// Dial is for Linux only.
func (*Port) Dial(context.Context, string, string) (net.Conn, error) {
	return nil, errors.ErrUnsupported
}

// Within is for Linux only.
func (*Port) Within(func() error) error { return errors.ErrUnsupported }
