//go:build !race

package harness

// Race says whether the test has the race detector.
const Race = false
