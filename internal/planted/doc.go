// Package planted has bugs that tests switch on, one at a time, to show that a check notices them.
//
// # The model
//
// A planted bug is a hook: a call of [Bug] beside the rule that the bug breaks. Its constant is in bugs.go,
// and its row in [Bugs] says which rule it breaks and which test must fail with it. Most hooks are one more
// condition of the rule:
//
//	if again.Archive == nil || planted.Bug(planted.TrustFirstMark) {
//
// Only programs built with the tag plantedbugs can have bugs. In others Bug is false, the compiler removes
// the hooks, and nothing of this package is linked. With the tag, the environment variable [Variable] has
// the name of the bug; without the variable the program has none. So one build serves all bugs.
//
// A program with a bug prints a line when it begins to run and another one when it first reaches the
// hook ([Met]). A bug that no run meets proves nothing, so tests look for the second line.
package planted

// Variable of the environment that names the bug.
const Variable = "LICENSED_PLANTED_BUG"

// Tag is the build tag of programs that can have bugs.
const Tag = "plantedbugs"

// Met is what a program prints to standard error when it first reaches the hook of its bug.
const Met = "planted bug met: "
