// Package license is the aggregate that accounts for the download licences of one customer. It is
// pure: no clock, no I/O, no randomness; time and policy are arguments.
//
// # The model
//
//	Decide(now, policy, state, command) → events      what happens
//	Evolve(state, event)                              the state after it
//
// A command results in events, always at least one: what it changed, or CommandAccepted where there was
// nothing to change, or CommandRefused with the rule that said no. Everything that may be asked later
// is in the events: [Decide] looks at the policy, [Evolve] never does, so that a history means the same
// under every later policy. From its events alone a command's outcome can be told ([Kind.Outcome],
// [DecodeOutcome]), which is what a repeated command is answered.
//
// Within the aggregate each event names what it is about: DEVICE/TITLE (a licence), DEVICE, or
// "customer"; eventOrderNumber counts the events of each of these from 0.
//
// Time has a precision of milliseconds. A licence is active iff it is not released and now is before
// its expiry; expiry is no event. What happened at t counts in a yearly window iff t is after
// now − 365 days. A licence that has been inactive for more than 365 days is forgotten, and so is a
// device that has no licence which is not forgotten and that was neither used nor deactivated in the
// last 365 days: rules treat them as never seen, whether or not a snapshot has dropped them from the
// state yet. That is what keeps the state bounded and the decisions independent of when snapshots are
// taken. docs/guide/licence-rules.md tells the rules, testdata/*.txt shows them.
//
// [Kind] fits the aggregate into the runtime of package actors.
package license
