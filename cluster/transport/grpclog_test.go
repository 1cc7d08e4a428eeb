package transport

import "testing"

// TestStartListens: a start is over when its server listens, told by a text of gRPC's that may change with it.
func TestStartListens(t *testing.T) {
	for range 3 {
		before := theGRPCLog.listeners()
		start(t, nil)
		if n := theGRPCLog.listeners() - before; n != 1 {
			t.Fatalf("%d servers began to listen", n)
		}
	}
}
