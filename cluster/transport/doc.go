// Package transport carries requests between the processes of a cluster, over gRPC streams.
//
// # The model
//
// A process has one bidirectional stream to each process that it sends requests to, on a connection of its own:
// requests go one way, responses come back the other way, in any order. Both directions live and fail together, and a
// process that only asks need not be reachable. Messages are [clusterv1.Frame]: each holds all requests, or responses,
// that were queued while the one before was written.
//
//	Execute ── queue of the peer ── writer ══ stream ══ reader of the session ── a goroutine for each request
//	   ▲                                                                                       │
//	   └────────── reader ══ stream ══ writer ── queue of the session ◄── response ── Handler ─┘
//
// The asking side (peer.go) connects when there is a request to send. It knows of each request whether it was given to
// a stream. If not, it is certain that it was not executed: [ErrNotSent], or actors.ErrExpired. If it was, and the
// stream breaks or the deadline ends, its outcome is actors.ErrUnknownOutcome. A peer that owes responses and sends
// nothing for [Config.Silence] is disconnected.
//
// The answering side (session.go) accepts a stream from a process of the same cluster and wire version (greeting.go).
// What strangers and slow readers can make it hold is bounded: in connections (listener.go), requests and bytes.
//
// Requests of the process to itself do not come here.
//
// protoactor-go runs the actors (package actors). It has no part in this package: its remote and its cluster are not
// used.
package transport
