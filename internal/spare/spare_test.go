package spare

import (
	"runtime"
	"testing"
)

func TestGoroutinesAreUsedAgain(t *testing.T) {
	g := idle(1)
	// Two run at once; one of them is kept.
	meet := make(chan struct{})
	for range 2 {
		g.Run(func() { meet <- struct{}{}; meet <- struct{}{} })
	}
	for range 4 {
		<-meet
	}
	// A function that runs while none waits was handed to the one that did. That one may be late once or twice.
	ran, again := make(chan struct{}), 0
	for range 1000 {
		for g.idle.Load() != 1 {
			runtime.Gosched()
		}
		g.Run(func() {
			if g.idle.Load() == 0 {
				again++
			}
			ran <- struct{}{}
		})
		<-ran
	}
	if again == 0 {
		t.Error("no goroutine was used again")
	}
	g.Close()
}

// What is run after Close runs.
func TestRunAfterClose(t *testing.T) {
	g := New(1)
	g.Close()
	ran := make(chan struct{})
	g.Run(func() { close(ran) })
	<-ran
}

// Goroutines that wait for nothing are let go.
func TestIdleGoroutinesEnd(t *testing.T) {
	g := idle(8)
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
