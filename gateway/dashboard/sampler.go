package dashboard

import (
	"context"
	"sync"
	"time"

	"licensed/internal/clusterrates"
	"licensed/messages/licensedv1"
)

// How often the cluster is asked: while somebody looks, and while nobody does.
const (
	watchedEvery = time.Second
	idleEvery    = sampleEvery
)

// sampleEvery is the time that a sample of the charts stands for, whether somebody looks or not: if it changed, the
// same load would be drawn with other peaks.
const sampleEvery = 5 * time.Second

// keptSamples is the number of samples kept for the charts: ten minutes.
const keptSamples = 120

// snapshotTimeout bounds the reading of the cluster's status.
const snapshotTimeout = 3 * time.Second

// sampler asks the cluster for its status, and keeps the answers of the last minutes. Safe for concurrent
// use.
type sampler struct {
	cluster Cluster
	now     func() time.Time
	cancel  context.CancelFunc
	wake    chan struct{} // somebody began to look
	stopped chan struct{}

	mu       sync.Mutex
	samples  []clusterrates.Sample     // oldest first
	number   uint64                    // of attempts
	last     *licensedv1.ClusterStatus // nil before the first
	lastAt   time.Time
	base     *licensedv1.ClusterStatus // the reading that the next sample begins at
	baseAt   time.Time
	err      error         // of the last attempt
	news     chan struct{} // closed at the next attempt
	watchers int
	closed   bool
}

// newSampler starts a sampler. now is the clock of readings; pauses are real time.
func newSampler(c Cluster, now func() time.Time) *sampler {
	ctx, cancel := context.WithCancel(context.Background())
	s := &sampler{
		cluster: c, now: now, cancel: cancel,
		wake: make(chan struct{}, 1), stopped: make(chan struct{}), news: make(chan struct{}),
	}
	go s.run(ctx)
	return s
}

// close ends the sampling and waits for it.
func (s *sampler) close() {
	s.cancel()
	<-s.stopped
}

// run asks again and again, at once when a first viewer comes.
func (s *sampler) run(ctx context.Context) {
	defer close(s.stopped)
	defer s.end()
	for {
		s.sample(ctx)
		timer := time.NewTimer(s.pause())
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		case <-s.wake:
			timer.Stop()
		}
	}
}

// pause returns the time until the next attempt.
func (s *sampler) pause() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watchers > 0 {
		return watchedEvery
	}
	return idleEvery
}

// sample asks once, without the lock: an answer may take seconds. A sample is made of two
// readings that succeeded, however far apart.
func (s *sampler) sample(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, snapshotTimeout)
	defer cancel()
	status, err := s.cluster.Cluster(ctx)
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	// A failed attempt has a number, too: viewers must see that it failed.
	s.number++
	if s.err = err; err == nil {
		s.last, s.lastAt = status, now
		// A timer that fires a little early does not make a sample of two times the length.
		took := now.Sub(s.baseAt)
		if s.base != nil && took >= sampleEvery-watchedEvery/2 {
			s.samples = append(s.samples, clusterrates.Between(s.base, status, now, took))
			if excess := len(s.samples) - keptSamples; excess > 0 {
				s.samples = append(s.samples[:0], s.samples[excess:]...)
			}
		}
		// A wall clock that was set back makes no sample: rates would be nonsense.
		if s.base == nil || took < 0 || took >= sampleEvery-watchedEvery/2 {
			s.base, s.baseAt = status, now
		}
	}
	// Viewers wait on the channel that they got with their last reading.
	close(s.news)
	s.news = make(chan struct{})
}

// end tells the waiting viewers that nothing more comes.
func (s *sampler) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	close(s.news)
}

// watch makes readings come every second until stop is called, which must be called once.
func (s *sampler) watch() (stop func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watchers++; s.watchers == 1 {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.watchers--
	}
}

// reading is what is known at a moment.
type reading struct {
	// number counts readings, successful or not; 0 is before the first.
	number uint64
	// Status is nil if the cluster never answered. It is shared, and not to be changed.
	Status *licensedv1.ClusterStatus
	// Latest sample; nil before there were two readings. The one before was taken at a time, if there was one.
	Latest *clusterrates.Sample
	before int64
	// Err says why the last attempt failed.
	Err error
	// At is the time of Status.
	At time.Time
	// news is closed when there may be another reading, closed says that there will be none.
	news   <-chan struct{}
	closed bool
}

// read returns what is known now, without waiting.
func (s *sampler) read() reading {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := reading{number: s.number, Status: s.last, Err: s.err, At: s.lastAt, news: s.news, closed: s.closed}
	n := len(s.samples)
	if n > 0 {
		// A copy: the slice is overwritten by the next sample.
		latest := s.samples[n-1]
		r.Latest = &latest
	}
	if n > 1 {
		r.before = s.samples[n-2].At
	}
	return r
}

// history returns the samples that are kept.
func (s *sampler) history() []clusterrates.Sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]clusterrates.Sample(nil), s.samples...)
}

// first waits for the first attempt to end, or for ctx.
func (s *sampler) first(ctx context.Context) reading {
	for {
		r := s.read()
		if r.Status != nil || r.Err != nil || r.closed {
			return r
		}
		select {
		case <-r.news:
		case <-ctx.Done():
			r.Err = ctx.Err()
			return r
		}
	}
}

// current waits for a reading as young as viewers get: while nobody did, the latest may be of some
// time ago.
func (s *sampler) current(ctx context.Context) reading {
	defer s.watch()()
	r := s.first(ctx)
	// The latest reading may be from before anybody watched, as old as the pause then.
	// Two may be needed: one may have been in flight already.
	for !r.closed && s.now().Sub(r.At) > watchedEvery {
		select {
		case <-r.news: // maybe of an attempt that began before somebody looked
			if r = s.read(); r.Err != nil {
				return r
			}
		case <-ctx.Done():
			return r
		}
	}
	return r
}
