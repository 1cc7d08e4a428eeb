package e2e_test

import (
	"testing"

	"licensed/persistence"
	"licensed/persistence/pebble"
)

// openStore opens the store of a daemon that has stopped.
func openStore(t *testing.T, data string) persistence.Store {
	t.Helper()
	s, err := pebble.Open(data, pebble.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}
