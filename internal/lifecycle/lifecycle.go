// Package lifecycle stops the parts of a process in the reverse order of their start.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// Parts of a process that are to be stopped. One goroutine pushes them, before it calls Stop.
type Parts struct {
	all      []part // in the order of their start
	stopping chan struct{}
	once     sync.Once
	err      error
}

type part struct {
	name string
	stop func(context.Context) error
}

// New returns no parts.
func New() *Parts { return &Parts{stopping: make(chan struct{})} }

// Push notes how to stop a part that was started.
func (p *Parts) Push(name string, stop func(context.Context) error) {
	p.all = append(p.all, part{name, stop})
}

// Go starts a part that runs in a goroutine of its own, until its context ends. Stop ends the context and waits for run
// to return, however long that takes.
func (p *Parts) Go(name string, run func(context.Context)) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { run(ctx) })
	p.Push(name, func(context.Context) error {
		cancel()
		running.Wait()
		return nil
	})
}

// Stopping is closed when Stop begins.
func (p *Parts) Stopping() <-chan struct{} { return p.stopping }

// Stop stops all parts, the last one first, and returns their errors. Further calls wait for the first and return its
// result.
func (p *Parts) Stop(ctx context.Context, log *slog.Logger) error {
	p.once.Do(func() {
		close(p.stopping)
		var errs []error
		for _, part := range slices.Backward(p.all) {
			log.Debug("stopping", "part", part.name)
			if err := part.stop(ctx); err != nil {
				errs = append(errs, fmt.Errorf("stop %s: %w", part.name, err))
			}
		}
		p.err = errors.Join(errs...)
	})
	return p.err
}

// Most has a part take no more than three quarters of the time that is left to stop, so that those after it have
// the rest: they answer what is in progress, and say good-bye. Half of the drain timeout is what a hand-over plans
// with.
func Most(stop func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		if end, ok := ctx.Deadline(); ok {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, time.Until(end)*3/4)
			defer cancel()
		}
		return stop(ctx)
	}
}
