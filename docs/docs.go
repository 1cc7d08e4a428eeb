// Package docs has the documents that a program shows.
package docs

import _ "embed"

// Operations is operations.md, whose runbook the dashboard shows.
//
//go:embed operations.md
var Operations []byte
