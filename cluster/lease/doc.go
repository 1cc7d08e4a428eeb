// Package lease keeps one process's claim to be alive, and ends that of another which is not.
//
// # The model
//
// Each incarnation of a process has a lease row with a counter. The [Holder] raises the counter by
// compare-and-set every quarter of the TTL. Each rise gives it validity: from the moment before it sent
// the compare-and-set that moved the counter, for the TTL less an allowance ([R1]). A lease that ran out, as when the
// store is unavailable, is valid again after the next rise: nobody marked it dead, so nobody took what it has.
//
// A [Watch] looks at the row of another incarnation. Where it saw the counter unchanged for the TTL plus
// the allowance, counted from the arrival of the reply that first showed it, it marks the incarnation
// dead, by compare-and-set on that very counter ([R2]). The row tells the two apart: either the counter
// moved and the mark fails, or the mark succeeded and the counter never moves again. Only who saw the
// mark takes what the incarnation owned. A store that did not answer proves nothing about the holder: the time begins
// anew when it answers. So a watch needs no linearizable reads as long as renewals come in time: the
// mark compares what was read.
//
//	holder      send ──── row moves ──── reply          valid until send + TTL − allowance
//	watch              read ──── reply                  marks at reply + TTL + allowance, not before
//
// Both measure with their own clock, one that continues while the machine sleeps ([Clock]). The allowance
// is for clocks that do not go equally fast: it covers a rate error of allowance/TTL on each side.
//
// For machines that can be frozen with their clocks (a paused virtual machine), [Confirmer] is the way
// without a clock: nothing is said to the outside before a read of its own row, begun after it was
// decided, showed that the incarnation is not dead.
//
// Holder, Watch and Confirmer are pure state machines: no goroutine, clock or I/O. They are not safe for
// concurrent use. [R1], [R2] and [R9] are rules of docs/design/write-path.md.
package lease
