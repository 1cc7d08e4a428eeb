package pebble

import (
	"errors"
	"fmt"

	pebbledb "github.com/cockroachdb/pebble/v2"

	"licensed/persistence"
)

// stop makes the store refuse all calls from now on, tells the writes in progress that
// their outcome is unknown, and then Failed. Only the first call counts. It may be
// called with the engine's locks held: it neither calls the engine nor waits, and
// callbacks run on another goroutine.
func (s *Store) stop(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed {
		return
	}
	// From here on [Store.landed] reports nothing: a sync that succeeds later must not
	// contradict what the writers are told now.
	s.failed = true
	s.err = fmt.Errorf("%w: %s stopped itself: %w", persistence.ErrClosed, s.dir, cause)
	var waiters []waiter
	for _, g := range append(s.flying, s.pending...) {
		waiters = append(waiters, g.waiters...)
		g.waiters = nil
	}
	s.flying, s.pending = nil, nil
	close(s.stopped)
	s.work.Signal()
	err, opened := s.err, s.opened
	go func() {
		unknown := fmt.Errorf("%w: %w", persistence.ErrUnknownOutcome, err)
		for _, w := range waiters {
			w.tell(unknown)
		}
		if opened {
			s.opts.Listener.Failed(err)
		}
	}()
}

// isFailed reports whether the store stopped itself.
func (s *Store) isFailed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

// refusal returns why calls are refused, nil if they are not.
func (s *Store) refusal() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// classify turns an error of the engine's reads into one of package persistence.
func classify(err error) error {
	switch {
	case err == nil:
		return nil
	case pebbledb.IsCorruptionError(err):
		return fmt.Errorf("%w: %w", persistence.ErrCorrupt, err)
	default:
		return fmt.Errorf("%w: %w", persistence.ErrUnavailable, err)
	}
}

// engineLogger gets the engine's messages. It implements pebbledb.Logger.
type engineLogger struct{ s *Store }

// Infof implements pebble.Logger. What the engine does is in its events.
func (engineLogger) Infof(string, ...any) {}

// Errorf implements pebble.Logger.
func (l engineLogger) Errorf(format string, args ...any) {
	l.s.opts.Logger.Warn("store: "+fmt.Sprintf(format, args...), "dir", l.s.dir)
}

// Fatalf must not return: the engine calls it where it cannot continue, with its state half changed and
// locks held. It stops the store and parks the goroutine for good. Nothing here waits for an engine's
// goroutine after that.
func (l engineLogger) Fatalf(format string, args ...any) {
	l.s.stop(fmt.Errorf("engine: %w", fatalError(format, args)))
	select {}
}

// fatalError formats the message and keeps the errors among args in the chain.
func fatalError(format string, args []any) error {
	message := fmt.Sprintf(format, args...)
	for _, a := range args {
		if cause, ok := a.(error); ok {
			return &engineError{message: message, cause: cause}
		}
	}
	return errors.New(message)
}

// engineError is a message of the engine that has an error in it.
type engineError struct {
	message string
	cause   error
}

// Error returns the engine's message.
func (e *engineError) Error() string { return e.message }

// Unwrap returns the error that the message was made of.
func (e *engineError) Unwrap() error { return e.cause }

// backgroundError is told of failures of flushes, compactions and what else the engine does by itself.
func (s *Store) backgroundError(err error) {
	if pebbledb.IsCorruptionError(err) {
		// A table is damaged, and stays as it is. Reads of the damaged rows return ErrCorrupt; for
		// all others, stopping would be worse than a compaction that cannot be done.
		s.opts.Logger.Error("store: damaged table", "dir", s.dir, "error", err)
		return
	}
	if tooManyFiles(err) { // The engine tries again.
		s.opts.Logger.Warn("store delayed: too many open files", "dir", s.dir, "error", err)
		return
	}
	s.stop(fmt.Errorf("in the background: %w", err))
}

// engineEvents returns the listener for what the engine does by itself.
func (s *Store) engineEvents() *pebbledb.EventListener {
	return &pebbledb.EventListener{
		BackgroundError: s.backgroundError,
		DataCorruption: func(i pebbledb.DataCorruptionInfo) {
			s.opts.Logger.Error("store: damaged file", "dir", s.dir, "file", i.Path, "details", i.Details)
		},
		LowDiskSpace: func(i pebbledb.LowDiskSpaceInfo) {
			s.opts.Logger.Warn("store: disk nearly full", "dir", s.dir, "available", i.AvailBytes,
				"total", i.TotalBytes)
		},
		WriteStallBegin: func(i pebbledb.WriteStallBeginInfo) {
			s.opts.Logger.Warn("store: writes wait for the disk", "dir", s.dir, "reason", i.Reason)
		},
	}
}
