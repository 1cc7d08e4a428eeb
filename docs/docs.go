// Package docs has the documents that a program shows.
package docs

import _ "embed"

// Operations is guide/operations.md, whose runbook the dashboard shows.
//
//go:embed guide/operations.md
var Operations []byte
