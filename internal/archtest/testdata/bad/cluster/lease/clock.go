package lease

import "time"

var now = time.Now // the clock is the one file that may
