package actors

import "sync/atomic"

// dispatcher runs mailboxes on goroutines that it keeps. protoactor's own starts a goroutine each
// time, whose small stack then has to grow for the domain's code: a fifth of the time of a command.
type dispatcher struct {
	work   chan func() // unbuffered: handed over only to a goroutine that waits
	idle   atomic.Int32
	spare  int32
	closed chan struct{}
}

func newDispatcher(spare int) *dispatcher {
	return &dispatcher{work: make(chan func()), spare: int32(spare), closed: make(chan struct{})}
}

// Schedule implements actor.Dispatcher.
func (d *dispatcher) Schedule(run func()) {
	select {
	case d.work <- run:
	default:
		go d.loop(run)
	}
}

// Throughput implements actor.Dispatcher: messages handled before others get a turn.
func (d *dispatcher) Throughput() int { return 300 }

func (d *dispatcher) loop(run func()) {
	for {
		run()
		if d.idle.Add(1) > d.spare {
			d.idle.Add(-1)
			return
		}
		select {
		case run = <-d.work:
			d.idle.Add(-1)
		case <-d.closed:
			return
		}
	}
}

// close lets the idle goroutines end. What is scheduled later still runs.
func (d *dispatcher) close() { close(d.closed) }
