package transport

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"licensed/persistence"
)

// A ping reaches the member it is meant for, which hears who reached it.
func TestPing(t *testing.T) {
	var mu sync.Mutex
	var heard []string
	a := start(t, func(c *Config) { c.Member = "a" })
	b := start(t, func(c *Config) {
		c.Member = "b"
		c.Listener.Pinged = func(process persistence.Incarnation, name string) {
			mu.Lock()
			defer mu.Unlock()
			heard = append(heard, name+" "+process.String()[:2])
		}
	})
	id := persistence.Incarnation{0xab}
	ping := func(address, member string) error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		return a.Ping(ctx, address, member, id)
	}
	if err := ping(b.Address(), "b"); err != nil || len(heard) != 1 || heard[0] != "a ab" {
		t.Errorf("%v, heard %v", err, heard)
	}
	// c advertises b's address: it is not reached, and b learns nothing about its own address.
	if err := ping(b.Address(), "c"); !errors.Is(err, ErrAnother) || len(heard) != 1 {
		t.Errorf("another member's address: %v, heard %v", err, heard)
	}
	if err := ping("127.0.2.1:9", "d"); !errors.Is(err, ErrNotSent) {
		t.Errorf("nobody's address: %v", err)
	}
	if err := ping(b.Address(), "\xff"); !errors.Is(err, ErrInvalid) {
		t.Errorf("no text: %v", err)
	}
}
