package transport

import "testing"

// TestStartListens: a start is over when its server listens, told by a text of gRPC's that may change with it. It
// does not wait for long, so on a busy machine one or the other may be over before.
func TestStartListens(t *testing.T) {
	before, awaited := theGRPCLog.listeners(), 0
	const starts = 5
	for k := range starts {
		start(t, nil)
		if theGRPCLog.listeners()-before == k+1 {
			awaited++
		}
	}
	if awaited == 0 {
		t.Fatal("no server listens at the end of its start")
	}
	until(t, "server that listens, for each start", func() bool { return theGRPCLog.listeners()-before >= starts })
	if n := theGRPCLog.listeners() - before; n != starts {
		t.Errorf("%d servers began to listen in %d starts", n, starts)
	}
}
