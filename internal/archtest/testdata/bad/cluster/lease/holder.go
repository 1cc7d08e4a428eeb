package lease

import "time"

func valid(until time.Time) bool { return time.Now().Before(until) } // want "ownership protocol has no clock and no I/O"
