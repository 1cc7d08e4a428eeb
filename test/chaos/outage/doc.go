// Package outage takes the store of a licence service away under load, and judges what devices noticed.
//
// # The model
//
// Many customers hold a signed licence each. An open loop of requests renews and releases licences, reports facts,
// acquires others and asks questions, at a rate that does not depend on the answers: the time of a request counts from
// when it was due. Then the store is taken away for some time, and gateways are killed meanwhile if that is wanted.
//
//	acquire ── load ─┬─ store away ─ load, kill gateways ─ store back ─┬─ load until settled ── check each customer
//	                 └──────────── judged: answered in time ──────────┘
//
// What must hold: renewals and releases are answered in time, what was deferred is settled soon after the store is
// back, each accepted command is in the history of its customer once, no limit is exceeded, and an answer that is not
// marked as stale has all that was acknowledged before the question.
package outage
