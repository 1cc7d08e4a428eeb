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
