package node

import (
	"context"
	"fmt"
	"time"

	"licensed/gateway"
	"licensed/internal/lifecycle"
	"licensed/internal/member"
	"licensed/messages/licensedv1"
)

// handOver has a stop give the shards to other nodes, while this process still serves.
func (n *Node) handOver(context.Context) error {
	n.parts.Push("shards", lifecycle.Most(func(ctx context.Context) error {
		if m, ok := n.member.Get(); ok {
			return m.HandOver(ctx)
		}
		node, _ := n.owner.Get()
		return member.HandOver(ctx, node, n.log)
	}))
	return nil
}

// failReadiness has a stop begin with failing the readiness check, and give load balancers time to notice.
func (n *Node) failReadiness(context.Context) error {
	n.parts.Push("readiness", func(ctx context.Context) error {
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
	case <-n.parts.Stopping():
	}
}

// fail turns the node unhealthy and ends its authority to answer; the first reason is reported.
func (n *Node) fail(err error) {
	n.health.Fail(err)
	n.events.Add(n.config.Now(), &licensedv1.Happening{
		Kind: licensedv1.HappeningKind_HAPPENING_KIND_FAILED,
		Node: n.name,
		Text: fmt.Sprintf("%s cannot serve any more: %v", n.name, err),
	})
	// Without it, activations would answer from a store that has failed.
	if solo, ok := n.solo.Get(); ok {
		solo.Lose()
	}
	select {
	case n.failed <- err:
	default:
	}
}

// Failed receives the reason when the node can no longer serve. It must then be stopped.
func (n *Node) Failed() <-chan error { return n.failed }

// Stop stops the node in order: no more requests, those in progress are answered, everything is written.
// What takes longer than the drain timeout, or than ctx, is cut off; that is an error, and loses
// nothing that was acknowledged. Further calls wait for the first and return its result.
func (n *Node) Stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, n.config.DrainDelay+n.config.DrainTimeout)
	defer cancel()
	return n.parts.Stop(ctx, n.log)
}
