// Package examples runs the programs of the folder examples against a daemon on the embedded store. It installs their
// packages, at the pinned versions, into bin/examples.
package examples
