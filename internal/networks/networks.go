// Package networks has lists of networks from which a port accepts connections.
package networks

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// ErrOutside says that an address is in none of the networks.
var ErrOutside = errors.New("address outside --member-networks")

// List of networks. An empty one has every address.
type List []netip.Prefix

// Parse reads networks in CIDR form (10.0.0.0/8, fd00::/8); a single address is a network of its own.
func Parse(texts []string) (all List, err error) {
	for _, text := range texts {
		text = strings.TrimSpace(text)
		network, err := netip.ParsePrefix(text)
		if single, e := netip.ParseAddr(text); e == nil {
			network, err = netip.PrefixFrom(single, single.BitLen()), nil
		}
		switch {
		case err != nil:
			return nil, fmt.Errorf("%q is not a network, such as 10.0.0.0/8", text)
		case network != network.Masked():
			return nil, fmt.Errorf("%q has bits of hosts; the network is %s", text, network.Masked())
		case network.Addr().Is4In6():
			return nil, fmt.Errorf("%q is a mapped address; write it as IPv4", text)
		}
		all = append(all, network)
	}
	return all, nil
}

// Check returns an error if the address of a connection or packet is in none of the networks. One that has no IP
// address is in none.
//
// Errors: ErrOutside.
func (l List) Check(a net.Addr) error {
	if len(l) == 0 {
		return nil
	}
	host, _, err := net.SplitHostPort(a.String())
	if err == nil {
		if ip, err := netip.ParseAddr(host); err == nil && l.has(ip) {
			return nil
		}
	}
	return ErrOutside
}

// CheckIP is Check of an IP address.
func (l List) CheckIP(b net.IP) error {
	if ip, ok := netip.AddrFromSlice(b); len(l) > 0 && (!ok || !l.has(ip)) {
		return ErrOutside
	}
	return nil
}

// has reports whether an address is in one of the networks.
func (l List) has(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	return slices.ContainsFunc(l, func(n netip.Prefix) bool { return n.Contains(ip) })
}
