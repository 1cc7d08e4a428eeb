// Package transport carries requests between the processes of a cluster, on protoactor-go.
//
// # The model
//
// Every process is one protoactor actor system with a remote and a cluster of protoactor on it. Members
// come from our gossip ([Transport.SetMembers]), identities are looked up by our routing
// ([Config.Locate]), and each process has one actor that others can reach: its front, which hands
// requests to the [Handler] and its answers back.
//
// protoactor's wire format and its services are kept, but its connections are not trusted. Both ends
// of the stream between two remotes are wrapped, where gRPC lets interceptors do so:
//
//   - A link wraps the stream of the asking side. To protoactor it is a stream that connects at once and
//     never fails. In truth it dials when there is something to send, with a deadline, and dials again
//     when the connection broke. It knows of every request whether it was written, so that a failure is
//     told as what it is: [ErrNotSent] is certain, actors.ErrUnknownOutcome is not. While requests are
//     under way and nothing is heard, it asks for a sign of life.
//   - A session wraps the stream of the answering side. Only requests for the front get past it; all
//     else that protoactor's reader would take from a stranger (system messages, spawning, gossip,
//     indices out of range, types it does not know) is turned away before it is reached. Answers go back
//     on the same stream, so that the two directions live and fail together, and who asks need not be
//     reachable.
//
// Requests of the process to itself do not come here.
//
// What is known to go wrong in protoactor, and what keeps it from happening here, is in
// docs/design/transport.md, each with its test.
package transport
