// Package fallback accepts renewals and releases while the owner of a customer, or its store, cannot be reached, and
// hands them in later.
//
// # The model
//
// A device that shows its signed licence may have it renewed for some hours although nobody can decide on the renewal:
// a renewal raises no count, so that no limit is exceeded by it. It may also release the licence. The gateway keeps
// such a command durably in its [Journal] before it answers, and marks the answer provisional. When the owner is back,
// the gateway sends the command to it, with the same id: now it is executed, or refused with a reason, and recorded in
// the customer's history either way.
//
//	client ── command ──► Execute ──► owner                        the ordinary way
//	                         │ unavailable
//	                         ▼
//	                       Defer ──► Journal ── synced ──► answer   provisional
//	                                    │
//	                                    └── settle, in order ──► owner, once it is back
//
// What makes it safe:
//
//   - [Unavailable] alone decides which failures qualify.
//   - A command is in the journal before it is answered, and leaves it after the owner has answered.
//   - Commands of one customer are handed in in the order in which this gateway accepted them, and before a later
//     command of the customer goes to the owner through this gateway.
//   - They have the ids that their clients gave them. So a command that was also executed by another way, before or
//     after, is executed once.
//   - They name the acquisition that is meant. A licence that was acquired anew meanwhile is not affected.
//
// A [Breaker] for each owner makes the answer immediate once some requests to it have failed. See
// docs/design/fallbacks.md.
package fallback
