// Package policyfile is the one part of the domain that reads files.
package policyfile

import (
	"os"
	"time"
)

var now = time.Now()
