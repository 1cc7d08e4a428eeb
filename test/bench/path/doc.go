// Package path measures the request path from outside: real processes of nodes and a gateway, one Cassandra, and
// clients of package client in this process.
//
// # The model
//
// A [Variant] is a build of licensed with parameters of its store. Each has a cluster of its own, on a keyspace of its
// own of the same Cassandra, and all run at the same time. Their contenders (unary requests and a session, with 1, 64
// and 256 in flight) take turns as package meter has them, so that what else the machine does meets them alike.
//
// A turn counts, for each command: CPU time of nodes, gateway, this process and Cassandra by the kernel's clock of each
// process; allocated objects, as the runtimes of the processes count them; and calls of read and write, from
// /proc/PID/io. Other system calls (of polls, of threads that sleep and wake) are not counted. CPU time of Cassandra
// has the share in it that idle clusters cost meanwhile; [Idle] measures it.
//
// On the embedded store a variant is one process, which has nodes and gateway in it.
package path
