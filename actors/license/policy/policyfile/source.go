package policyfile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"licensed/actors/license"
	"licensed/actors/license/policy"
	"licensed/persistence"
)

// ErrNoFile says that the policy is the built-in one.
var ErrNoFile = errors.New("no policy file is configured")

// SourceConfig of a source.
type SourceConfig struct {
	// File is the policy file; empty for the built-in policy.
	File string
	// Poll is the interval at which the file is looked at.
	Poll time.Duration
	// Listener hears what happens.
	Listener Listener
	Log      *slog.Logger
}

// Listener hears what happens. Functions that are nil are not called.
type Listener struct {
	// Listener of the kind that the source supplies.
	license.Listener
	// Changed hears the version of each policy that replaces another. It is called from the goroutine that watches the
	// file, one call at a time.
	Changed func(version string)
}

// withDefaults fills in Changed.
func (l Listener) withDefaults() Listener {
	if l.Changed == nil {
		l.Changed = func(string) {}
	}
	return l
}

// Source supplies the kind of the license aggregates with the policy in force. It is safe for concurrent use.
type Source struct {
	config  SourceConfig
	kind    *license.Kind
	reloads chan reload        // nil if there is no file
	stop    context.CancelFunc // ends watch
	stopped chan struct{}      // closed when watch has ended
}

// OpenSource reads the policy and, if it comes from a file, begins to watch it.
func OpenSource(c SourceConfig) (*Source, error) {
	c.Listener = c.Listener.withDefaults()
	s := &Source{config: c, stop: func() {}, stopped: make(chan struct{})}
	if c.File == "" {
		close(s.stopped)
		s.setKind(policy.Default())
		return s, nil
	}
	file, err := Open(c.File)
	if err != nil {
		return nil, err
	}
	s.setKind(file.Policy())
	s.reloads = make(chan reload, 1)
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	go s.watch(ctx, file)
	return s, nil
}

func (s *Source) setKind(p *policy.Policy) {
	s.kind = license.NewKind(p)
	s.kind.Listener = s.config.Listener.Listener
}

// Close stops watching the file. The policy in force stays.
func (s *Source) Close() {
	s.stop()
	<-s.stopped
}

// Kind returns the kind whose policy is kept up to date.
func (s *Source) Kind() *license.Kind { return s.kind }

// Version returns that of the policy in force.
func (s *Source) Version() string { return s.kind.Policy().Version() }

// Name says where the policy comes from: its file, or "built in".
func (s *Source) Name() string {
	if s.config.File == "" {
		return "built in"
	}
	return s.config.File
}

// watch puts changed files into force until ctx ends.
func (s *Source) watch(ctx context.Context, file *File) {
	defer close(s.stopped)
	polls := time.NewTicker(s.config.Poll)
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
				s.config.Log.Info("policy unchanged", "version", file.Policy().Version())
			}
			s.take(p, err)
			if r.answer != nil {
				r.answer <- reloaded{changed: p != nil, err: err}
			}
		}
	}
}

// reload requests another read of the file; the answer, if wanted, is its result.
type reload struct{ answer chan<- reloaded }

type reloaded struct {
	changed bool
	err     error // what is wrong with the file
}

// take puts a policy into force, if there is one.
func (s *Source) take(p *policy.Policy, err error) {
	switch {
	case err != nil:
		s.config.Log.Error("policy not reloaded, the former one stays in force", "version", s.Version(), "error", err)
	case p != nil:
		s.kind.SetPolicy(p)
		s.config.Log.Info("policy reloaded", "version", p.Version())
		s.config.Listener.Changed(p.Version())
	}
}

// Reload reads the file again soon, changed or not. The result is logged; a file with mistakes changes nothing.
func (s *Source) Reload() {
	if s.reloads == nil {
		s.config.Log.Warn("policy not reloaded: no policy file is configured")
		return
	}
	select {
	case s.reloads <- reload{}:
	default: // One is in progress already.
	}
}

// ReloadNow reads the file again and waits for the result. Errors: ErrNoFile, persistence.ErrUnavailable if the
// source is closed, what is wrong with the file, or ctx's.
func (s *Source) ReloadNow(ctx context.Context) (changed bool, err error) {
	if s.reloads == nil {
		return false, ErrNoFile
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
