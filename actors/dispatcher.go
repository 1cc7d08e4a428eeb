package actors

import "licensed/internal/spare"

// dispatcher runs mailboxes on goroutines that are used again. protoactor's own starts one each time.
type dispatcher struct{ goroutines *spare.Goroutines }

func newDispatcher(keep int) dispatcher { return dispatcher{spare.New(keep)} }

// Schedule implements actor.Dispatcher.
func (d dispatcher) Schedule(run func()) { d.goroutines.Run(run) }

// Throughput implements actor.Dispatcher: messages handled before others get a turn.
func (d dispatcher) Throughput() int { return 300 }

// close lets the idle goroutines end. What is scheduled later still runs.
func (d dispatcher) close() { d.goroutines.Close() }
