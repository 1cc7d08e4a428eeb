// Package actors is the runtime of event-sourced virtual actors: one actor per aggregate, brought to
// memory by the first message and out again when idle. It knows no domain (see [Kind]) and no store
// (see package persistence).
//
// # The model
//
// An aggregate goes through activations. An activation reads the aggregate's top root and the
// records below it, writes a new root of its own, and from then on decides commands in memory:
//
//	recover → decide → append → reply
//
// Commands are decided one after the other on the optimistic state, the state that all mutations sent
// so far lead to. At most one mutation is in flight; commands that arrive meanwhile are decided at
// once and travel together in the next one. No reply leaves before all that it was decided on is
// durable and the [Authority] says, after that, that the shard is still held. Whatever goes wrong
// ends the activation; what it wrote past the base of the next root does not exist.
//
// [Machine] is an activation as a pure state machine: Step takes an input (a request, the result of a
// read or write, the time) and returns what is to be done. It has no goroutine, clock or I/O. Two
// things drive it: the protoactor shell in [Runtime], and the simulator in test/sim, which runs it
// against a store with delayed, lost, torn and late writes.
//
// protoactor-go does this: it spawns an actor for each activation and keeps it in its registry, it calls the actor with
// one message at a time, and its supervision stops an actor that fails. Mailboxes and the goroutines that run them are
// of this package. protoactor does not place, find or persist aggregates, and carries no message to another process:
// packages cluster, cluster/routing, cluster/transport and persistence do. Of protoactor only the package actor is
// imported (internal/archtest).
//
// The rules [R4] to [R11] named in comments are those of docs/design/write-path.md.
package actors
