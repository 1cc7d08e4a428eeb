package membership

import (
	"testing"

	"licensed/internal/scarce"
)

// TestAcceptWithoutFiles: the port for gossip accepts connections again when the process has files again.
func TestAcceptWithoutFiles(t *testing.T) {
	a := start(t, quick("a"))
	conn := scarce.ConnectWithoutFiles(t, a.Address())
	defer conn.Close()
	c := quick("b")
	c.Join = []string{a.Address()}
	b := start(t, c)
	until("joined", t, func() bool { return names(a) == "a b" && names(b) == "a b" })
}
