// Package spare keeps goroutines for use again: the stack of a new one has to grow for the calls of an engine or a
// driver, which takes a quarter of the time of a read.
package spare

import "sync/atomic"

// Goroutines run functions. They are safe for concurrent use.
type Goroutines struct {
	work   chan func() // unbuffered: handed over only to a goroutine that waits
	idle   atomic.Int32
	keep   int32
	closed chan struct{}
}

// New returns goroutines of which up to keep wait for work when there is none.
func New(keep int) *Goroutines {
	return &Goroutines{work: make(chan func()), keep: int32(keep), closed: make(chan struct{})}
}

// Run runs f soon, on a goroutine of its own.
func (g *Goroutines) Run(f func()) {
	select {
	case g.work <- f:
	default:
		go g.loop(f)
	}
}

func (g *Goroutines) loop(f func()) {
	for {
		f()
		if g.idle.Add(1) > g.keep {
			g.idle.Add(-1)
			return
		}
		select {
		case f = <-g.work:
			g.idle.Add(-1)
		case <-g.closed:
			return
		}
	}
}

// Close lets those that wait end. What is run later still runs. It must be called once.
func (g *Goroutines) Close() { close(g.closed) }
