package spare

import (
	"runtime"
	"testing"
)

func TestGoroutinesAreUsedAgain(t *testing.T) {
	g := New(1)
	// Two run at once; one of them is kept.
	meet := make(chan struct{})
	for range 2 {
		g.Run(func() { meet <- struct{}{}; meet <- struct{}{} })
	}
	for range 4 {
		<-meet
	}
	for g.idle.Load() != 1 {
		runtime.Gosched()
	}
	ran := make(chan struct{})
	for range 100 {
		g.Run(func() { ran <- struct{}{} })
		<-ran
	}
	for g.idle.Load() != 1 {
		runtime.Gosched()
	}
	g.Close()
	g.Run(func() { ran <- struct{}{} })
	<-ran
}

// Goroutines that wait for nothing are let go.
func TestIdleGoroutinesEnd(t *testing.T) {
	g := New(8)
	defer g.Close()
	meet := make(chan struct{})
	for range 8 {
		g.Run(func() { <-meet })
	}
	close(meet)
	for g.idle.Load() != 8 {
		runtime.Gosched()
	}
	for g.idle.Load() > 0 {
		g.thin()
		runtime.Gosched()
	}
	ran := make(chan struct{})
	g.Run(func() { close(ran) })
	<-ran
}
