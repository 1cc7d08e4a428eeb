package signingkeys

import (
	"log/slog"
	"sync/atomic"
	"time"

	"licensed/licensetoken"
)

// SourceConfig of a source.
type SourceConfig struct {
	// Path is a directory of keys, or a file.
	Path string
	// Grace is the time for which licences of a key are accepted after another key began to sign. Shorter than the
	// longest licence: devices that stay offline refuse licences that have not expired, once they fetch the keys.
	Grace time.Duration
	// Poll is the interval between looks at the files.
	Poll time.Duration
	// Now is the wall clock.
	Now func() time.Time
	Log *slog.Logger
}

// Source has the keys that are in force, and reads changed files. It is safe for concurrent use.
type Source struct {
	config  SourceConfig
	ring    atomic.Pointer[Ring]
	fault   string        // that was logged; of the goroutine that watches
	stop    chan struct{} // closed by Close
	stopped chan struct{} // closed when watch has ended
}

// Open reads the keys and begins to watch them. Errors: those of Read.
func Open(c SourceConfig) (*Source, error) {
	ring, err := Read(c.Path)
	if err != nil {
		return nil, err
	}
	s := &Source{config: c, stop: make(chan struct{}), stopped: make(chan struct{})}
	s.ring.Store(&ring)
	s.tell("keys of licences read")
	go s.watch()
	return s, nil
}

// tell logs the keys in force. Private parts are never logged.
func (s *Source) tell(what string) {
	k := s.ring.Load().Signing(s.config.Now())
	s.config.Log.Info(what, "keys", len(*s.ring.Load()), "signing_key", k.ID, "begins", k.Begins.Format(time.RFC3339))
}

// Close ends the watch. It must be called once.
func (s *Source) Close() {
	close(s.stop)
	<-s.stopped
}

func (s *Source) watch() {
	defer close(s.stopped)
	polls := time.NewTicker(s.config.Poll)
	defer polls.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-polls.C:
			s.Reload()
		}
	}
}

// Reload reads the keys again. A fault is logged once, and leaves the former keys in force. It is called by the
// goroutine that watches; tests that call it must have a long Poll.
func (s *Source) Reload() {
	// Keys are few and small: reading them costs less than finding out whether they changed.
	ring, err := Read(s.config.Path)
	switch {
	case err != nil && err.Error() == s.fault:
	case err != nil:
		s.fault = err.Error()
		s.config.Log.Error("keys of licences not reloaded, the former ones stay in force", "error", err)
	default:
		s.fault = ""
		if !ring.equal(*s.ring.Load()) {
			s.ring.Store(&ring)
			s.tell("keys of licences reloaded")
		}
	}
}

// Signing returns the key that signs now, and since when it does.
func (s *Source) Signing() (key licensetoken.SigningKey, since time.Time) {
	k := s.ring.Load().Signing(s.config.Now())
	return k.SigningKey, k.Begins
}

// Accepted returns the keys whose licences are accepted now.
func (s *Source) Accepted() licensetoken.KeySet {
	return s.ring.Load().Accepted(s.config.Now(), s.config.Grace)
}
