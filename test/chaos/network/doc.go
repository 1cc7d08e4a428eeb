// Package network joins processes by a network whose every link can be cut, delayed and made to lose
// packets, one way or both.
//
// # The model
//
// Every [Port] is a network namespace of its own with one interface, a TUN device, and one address. This
// process is the switch between them: it reads each IP packet, TCP or UDP, finds the link from its source
// to its destination, and passes it on, or not, or later. A cut link is silent, as a cable that was
// pulled: nobody is told that a connection is gone. So links need no rules of the kernel, which not every
// machine has, and take effect on connections that exist. The switch has a port in the namespace of this
// process, too, for clients.
//
// It needs Linux, /dev/net/tun and the rights to make namespaces (root, or root of a user namespace); New
// says what is missing.
package network
