// Package spare keeps goroutines for use again: the stack of a new one has to grow for the calls of a domain, an engine or a
// driver, which takes up to a quarter of the time of a command or a read.
package spare

import (
	"sync/atomic"
	"time"
)

// Goroutines run functions. They are safe for concurrent use.
type Goroutines struct {
	work   chan func() // unbuffered: handed over only to a goroutine that waits
	idle   atomic.Int32
	keep   int32
	closed chan struct{}
}

// thinEvery is how often half of those that wait are let go: too seldom to be felt while there is work,
// and none is left some twenty seconds after it ended.
const thinEvery = 2 * time.Second

// New returns goroutines of which up to keep wait for work when there is none, for some seconds.
func New(keep int) *Goroutines {
	g := idle(keep)
	go g.thinOut()
	return g
}

// idle returns goroutines of which none is let go by itself.
func idle(keep int) *Goroutines {
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
	for f != nil {
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

// thinOut lets goroutines go until Close.
func (g *Goroutines) thinOut() {
	t := time.NewTicker(thinEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			g.thin()
		case <-g.closed:
			return
		}
	}
}

// thin lets half of those that wait go.
func (g *Goroutines) thin() {
	for n := (g.idle.Load() + 1) / 2; n > 0; n-- {
		select {
		case g.work <- nil:
		default: // They have found work.
			return
		}
	}
}

// Close lets those that wait end. What is run later still runs. It must be called once.
func (g *Goroutines) Close() { close(g.closed) }
