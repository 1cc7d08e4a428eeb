package pebble

import "sync/atomic"

// spareReaders is how many goroutines are kept for reads.
const spareReaders = 128

// readers runs reads on goroutines that it keeps: the stack of a new one has to grow for the engine's
// calls, which takes a quarter of the time of a read.
type readers struct {
	work   chan func() // unbuffered: handed over only to a goroutine that waits
	idle   atomic.Int32
	closed chan struct{}
}

func newReaders() *readers { return &readers{work: make(chan func()), closed: make(chan struct{})} }

// run runs f soon.
func (r *readers) run(f func()) {
	select {
	case r.work <- f:
	default:
		go r.loop(f)
	}
}

func (r *readers) loop(f func()) {
	for {
		f()
		if r.idle.Add(1) > spareReaders {
			r.idle.Add(-1)
			return
		}
		select {
		case f = <-r.work:
			r.idle.Add(-1)
		case <-r.closed:
			return
		}
	}
}

// close lets the idle goroutines end. What is run later still runs.
func (r *readers) close() { close(r.closed) }
