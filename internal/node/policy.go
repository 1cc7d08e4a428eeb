package node

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"licensed/actors/license"
	"licensed/actors/license/policy"
	"licensed/actors/license/policy/policyfile"
	"licensed/gateway"
	"licensed/messages/licensedv1"
	"licensed/persistence"
)

// policySource keeps the kind of the license aggregates supplied with the policy in force.
type policySource struct {
	kind    *license.Kind
	log     *slog.Logger
	file    string
	changed func(version string)
	reloads chan reload // nil if there is no file
	stopped chan struct{}
}

// openPolicy reads the policy and, if it comes from a file, begins to watch it.
func (n *Node) openPolicy(context.Context) error {
	s := &policySource{log: n.log, file: n.config.Policy, changed: func(version string) {
		n.happenings.add(n.config.Now(), &licensedv1.Happening{
			Kind: licensedv1.HappeningKind_HAPPENING_KIND_POLICY_CHANGED, Node: n.name, Text: fmt.Sprintf("policy %s is in force on %s", version, n.name),
		})
	}}
	n.policy = s
	if n.config.Policy == "" {
		s.kind = license.NewKind(policy.Default())
		s.kind.OnLarge = n.large
		return nil
	}
	file, err := policyfile.Open(n.config.Policy)
	if err != nil {
		return err
	}
	s.kind = license.NewKind(file.Policy())
	s.kind.OnLarge = n.large
	s.reloads, s.stopped = make(chan reload, 1), make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	go s.watch(ctx, file, n.config.PolicyPoll)
	n.push("policy", func(context.Context) error {
		cancel()
		<-s.stopped
		return nil
	})
	return nil
}

// watch takes over changed files until ctx ends.
func (s *policySource) watch(ctx context.Context, file *policyfile.File, every time.Duration) {
	defer close(s.stopped)
	polls := time.NewTicker(every)
	defer polls.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-polls.C:
			s.take(file.Poll())
		case r := <-s.reloads:
			p, err := file.Reload()
			if p == nil && err == nil {
				s.log.Info("policy unchanged", "version", file.Policy().Version())
			}
			s.take(p, err)
			if r.answer != nil {
				r.answer <- reloaded{changed: p != nil, err: err}
			}
		}
	}
}

// reload asks for another reading of the file; the answer, if wanted, tells what came of it.
type reload struct{ answer chan<- reloaded }

type reloaded struct {
	changed bool
	err     error // what is wrong with the file
}

// take puts a policy into force, if there is one.
func (s *policySource) take(p *policy.Policy, err error) {
	switch {
	case err != nil:
		s.log.Error("policy not reloaded, the former one stays in force", "version", s.version(), "error", err)
	case p != nil:
		s.kind.SetPolicy(p)
		s.log.Info("policy reloaded", "version", p.Version())
		s.changed(p.Version())
	}
}

// version returns that of the policy in force.
func (s *policySource) version() string { return s.kind.Policy().Version() }

// reload reads the file again soon.
func (s *policySource) reload() {
	if s.reloads == nil {
		s.log.Warn("policy not reloaded: no policy file is configured")
		return
	}
	select {
	case s.reloads <- reload{}:
	default: // One is in progress already.
	}
}

// reloadNow reads the file again and waits for what comes of it. Errors: gateway.ErrUnsupported if there
// is no file, what is wrong with it, or ctx's.
func (s *policySource) reloadNow(ctx context.Context) (changed bool, err error) {
	if s.reloads == nil {
		return false, gateway.ErrUnsupported
	}
	answer := make(chan reloaded, 1)
	select {
	case s.reloads <- reload{answer}:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	select {
	case r := <-answer:
		return r.changed, r.err
	case <-s.stopped:
		return false, fmt.Errorf("the node stops: %w", persistence.ErrUnavailable)
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// source says where the policy comes from.
func (s *policySource) source() string {
	if s.file == "" {
		return "built in"
	}
	return s.file
}
