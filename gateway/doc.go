// Package gateway is the public API of licensed: it turns requests into commands and queries of the
// customer's aggregate, and what comes of them into replies.
//
// # The model
//
// One port speaks gRPC, gRPC-Web and the Connect protocol (plain JSON over HTTP), over HTTP/1.1 and
// unencrypted HTTP/2. A request passes, in this order:
//
//	admission    draining? too many in flight?            → UNAVAILABLE, RESOURCE_EXHAUSTED
//	decoding     body limit, JSON or protobuf              → RESOURCE_EXHAUSTED, INVALID_ARGUMENT
//	deadline     the client's, capped by MaxDeadline
//	validation   ids, times; all violations at once        → INVALID_ARGUMENT
//	fingerprint  what the client said, as one number
//	aggregate    Execute or Query at its owner             → errors of package actors
//	outcome      the recorded one, a refusal included      → reply, FAILED_PRECONDITION, NOT_FOUND
//
// A session is one stream with many calls. Each of them is admitted, handled and answered as a request of its own, by
// the same handlers within the same interceptors; docs/design/sessions.md has the design.
//
// The gateway keeps no state about customers and decides nothing: that a command id returns the
// same outcome again, that a reply goes out only when it is durable, is the aggregates' business. What
// it does add is certainty for the client about what to do next. Every error says in a
// google.rpc.ErrorInfo whether the command is certainly not executed or its outcome is unknown, and
// carries the detail that belongs to its code: a Refusal, the violated fields, the time to wait. The
// table is docs/reference/errors.md.
package gateway
