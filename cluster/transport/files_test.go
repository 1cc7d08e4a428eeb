package transport

import (
	"testing"

	"licensed/internal/scarce"
)

// TestAcceptWithoutFiles: the node port accepts connections again when the process has files again.
func TestAcceptWithoutFiles(t *testing.T) {
	a, b := start(t, nil), start(t, nil)
	conn := scarce.ConnectWithoutFiles(t, a.Address())
	defer conn.Close()
	until(t, "connection", func() bool { _, err := b.execute(t.Context(), a.Address(), "x"); return err == nil })
}
