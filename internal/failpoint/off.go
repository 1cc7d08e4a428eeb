//go:build !failpoints

package failpoint

import (
	"time"

	"licensed/persistence"
)

// Enabled says whether this program was built with points.
const Enabled = false

// Store returns the store.
func Store(s persistence.Store) persistence.Store { return s }

// Archive returns the archive.
func Archive(a persistence.Archive) persistence.Archive { return a }

// Clock returns the clock.
func Clock(now func() time.Time) func() time.Time { return now }
