// Package archtest holds the architecture as a test: who may import whom, and which code is pure.
//
// # The model
//
// The arrows of docs/design/architecture.md, from what is assembled down to what knows nothing:
//
//	cmd → internal/node → gateway, cluster, actors/license, stores
//	                      gateway → actors/license → messages
//	                      gateway, cluster, actors/license → actors → persistence ← stores
//
// A rule takes away imports or calls from a set of packages and says why. The rules read source, not
// what was built: so they hold for every build tag and platform, also for tests where they are told to.
// testdata/bad breaks each rule, marked in place, to show that the test can fail.
package archtest
