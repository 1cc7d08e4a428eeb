// Package browser tests the dashboard in Chromium, against nodes that run in the process of the test.
//
// # The model
//
// Each test starts what it needs (a node with an embedded store, or a cluster that the test makes up),
// gives commands through the API, opens pages as a person would, and waits for what a person would see;
// nothing depends on how long things take. At its end every page must have logged no error, and axe-core
// must find nothing wrong with what was shown. Screenshots of the pages, at two sizes and in both themes,
// are kept in bin/screenshots.
//
// Without Chromium the tests fail: make test installs it on Debian. CHROMIUM names another program.
package browser
