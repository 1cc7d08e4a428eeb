package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"licensed/gateway"
	"licensed/internal/member"
	"licensed/messages/licensedv1"
)

// lifecycle is how a process stops, and how it fails.
type lifecycle struct {
	unlimit  func() // ends the limits of log lines
	parts    []part // in the order of their start
	failed   chan error
	done     chan struct{} // closed by Stop
	stopping sync.Once
	stopped  error

	mu      sync.Mutex
	broken  bool
	silence []func() // what ends the authority to answer
}

// part is something to be stopped.
type part struct {
	name string
	stop func(context.Context) error
}

// push notes how to stop a part that was started.
func (l *lifecycle) push(name string, stop func(context.Context) error) {
	l.parts = append(l.parts, part{name, stop})
}

// handOver has a stop give the shards to other nodes, while this process still serves.
func (n *Node) handOver(context.Context) error {
	n.push("shards", most(func(ctx context.Context) error {
		if m, ok := n.member.Get(); ok {
			return m.HandOver(ctx)
		}
		node, _ := n.owner.Get()
		return member.HandOver(ctx, node, n.log)
	}))
	return nil
}

// most has a part take no more than three quarters of the time that is left to stop, so that those after it have
// the rest: they answer what is in progress, and say good-bye. Half of the drain timeout is what a hand-over plans
// with.
func most(stop func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		if end, ok := ctx.Deadline(); ok {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, time.Until(end)*3/4)
			defer cancel()
		}
		return stop(ctx)
	}
}

// failReadiness has a stop begin with failing the readiness check, and give load balancers time to notice.
func (n *Node) failReadiness(context.Context) error {
	n.push("readiness", func(ctx context.Context) error {
		n.health.Set(gateway.Draining)
		select {
		case <-time.After(n.config.DrainDelay):
		case <-ctx.Done():
		}
		return nil
	})
	return nil
}

// watch fails the node if a server does.
func (n *Node) watch(failed <-chan error) {
	select {
	case err := <-failed:
		n.fail(err)
	case <-n.done:
	}
}

// fail turns the node unhealthy and ends its authority to answer; the first reason is reported.
func (n *Node) fail(err error) {
	n.health.Fail(err)
	n.events.Add(n.config.Now(), &licensedv1.Happening{
		Kind: licensedv1.HappeningKind_HAPPENING_KIND_FAILED, Node: n.name, Text: fmt.Sprintf("%s cannot serve any more: %v", n.name, err),
	})
	n.mu.Lock()
	n.broken = true
	for _, end := range n.silence {
		end()
	}
	n.mu.Unlock()
	select {
	case n.failed <- err:
	default:
	}
}

// onFail has a function called when the node fails, at once if it has.
func (n *Node) onFail(silence func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.silence = append(n.silence, silence)
	if n.broken {
		silence()
	}
}

// Failed receives the reason when the node can no longer serve. It must then be stopped.
func (n *Node) Failed() <-chan error { return n.failed }

// Stop stops the node in order: no more requests, those in progress are answered, everything is written.
// What takes longer than the drain timeout, or than ctx, is cut off; that is an error, and loses
// nothing that was acknowledged. Further calls wait for the first and return its result.
func (n *Node) Stop(ctx context.Context) error {
	n.stopping.Do(func() {
		ctx, cancel := context.WithTimeout(ctx, n.config.DrainDelay+n.config.DrainTimeout)
		defer cancel()
		defer n.unlimit()
		close(n.done)
		var errs []error
		for i := len(n.parts) - 1; i >= 0; i-- {
			p := n.parts[i]
			n.log.Debug("stopping", "part", p.name)
			if err := p.stop(ctx); err != nil {
				errs = append(errs, fmt.Errorf("stop %s: %w", p.name, err))
			}
		}
		n.stopped = errors.Join(errs...)
	})
	return n.stopped
}
