package license

import (
	"math/rand/v2" // want "domain has no clock and no I/O"
	"net/http"     // want "domain has no clock and no I/O"
	"time"

	"licensed/actors"
	"licensed/cluster" // want "domain knows only runtime and messages"
)

func Decide() time.Time { return time.Now() } // want "domain has no clock and no I/O"
