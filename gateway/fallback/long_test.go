package fallback

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"licensed/actors"
	"licensed/messages/licensedv1"
)

var (
	seeds = flag.Uint64("seeds", 60, "`number` of schedules in each test of them")
	first = flag.Uint64("seed", 0, "first `seed`")
)

// each runs a schedule for each seed.
func each(t *testing.T, run func(t *testing.T, rng *rand.Rand)) {
	for seed := *first; seed < *first+*seeds; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			run(t, rand.New(rand.NewPCG(seed, seed)))
		})
	}
}

// forgetful is an owner of one customer that forgets the ids of commands after a time, as owners do, and has a state
// by which it knows what lasts.
type forgetful struct {
	away    bool // no command is executed
	unsaid  bool // commands are executed, and nobody is told
	now     time.Time
	horizon time.Time // commands issued before it are forgotten
	known   map[string]bool
	renewed map[uint64]int // how often, by fingerprint: the command of the client
	highest uint64         // fact
	facts   map[uint64]int // how often each was recorded
	release int            // how often the licence was released
}

func (o *forgetful) Execute(_ context.Context, _ string, c actors.Command) (r actors.Reply, err error) {
	if o.unsaid {
		err = actors.ErrUnknownOutcome
	}
	switch {
	case o.away:
		return r, actors.ErrUnavailable
	case o.known[c.ID]:
		return r, err
	case c.IssuedAt.Before(o.horizon):
		return r, actors.ErrTooOld
	}
	o.known[c.ID] = true
	payload := c.Payload.(*licensedv1.Command)
	for _, f := range payload.GetSyncDevice().GetFacts() {
		if f.Number > o.highest {
			o.highest = f.Number
			o.facts[f.Number]++
		}
	}
	if payload.GetRenewLicense() != nil {
		o.renewed[c.Fingerprint]++
	}
	if payload.GetReleaseLicense() != nil {
		o.release = 1
	}
	return r, err
}

// TestLongOutages: an outage may be longer than the time for which the owner remembers commands, gateways crash, and a
// device presents the same command at both. No renewal is executed twice; a release and facts that were accepted are
// executed, however late; each fact is recorded once.
func TestLongOutages(t *testing.T) { each(t, longOutage) }

func longOutage(t *testing.T, rng *rand.Rand) {
	o := &forgetful{now: someTime, known: map[string]bool{}, renewed: map[uint64]int{}, facts: map[uint64]int{}}
	dirs, gateways := []string{t.TempDir(), t.TempDir()}, make([]*Fallback, 2)
	start := func(i int) {
		f := newFallback(t, &owner{}, dirs[i])
		f.config.Execute, f.config.Now = o.Execute, func() time.Time { return o.now }
		gateways[i] = f
	}
	start(0)
	start(1)
	made, acknowledged, accepted, released := uint64(0), uint64(0), uint64(0), false
	type sent struct {
		command actors.Command
		fact    uint64
	}
	var before []sent
	for step := range 60 {
		o.now = o.now.Add(time.Second)
		switch n := rng.IntN(24); {
		case n < 3:
			o.away, o.unsaid = false, false
		case n < 5:
			o.away = true
		case n < 6:
			o.away, o.unsaid = false, true
		case n < 8: // The window ends.
			o.now = o.now.Add(48 * time.Hour)
			o.horizon = o.now.Add(-24 * time.Hour)
			clear(o.known)
		case n < 10: // kill -9
			i := rng.IntN(2)
			dir := t.TempDir()
			data, err := os.ReadFile(filepath.Join(dirs[i], "deferred.db"))
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, "deferred.db"), data, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			dirs[i] = dir
			start(i)
		case n < 13:
			gateways[rng.IntN(2)].settleAll(t.Context())
		default:
			s := sent{command: command(fmt.Sprint(step), true)}
			switch rng.IntN(4) {
			case 0:
				s.command = command(fmt.Sprint(step), false)
			case 1: // All facts that are not known to be recorded.
				made++
				var numbers []uint64
				for number := acknowledged + 1; number <= made; number++ {
					numbers = append(numbers, number)
				}
				s.command, s.fact = reported(fmt.Sprint(step), 1), made
				s.command.Payload = facts("", "", "iphone", numbers...).Command
			case 2:
				if len(before) > 0 { // The same again.
					s = before[rng.IntN(len(before))]
				}
			}
			if s.command.IssuedAt.Equal(someTime) {
				s.command.IssuedAt, s.command.Fingerprint = o.now, uint64(step)
			}
			before = append(before, s)
			payload := s.command.Payload.(*licensedv1.Command)
			g := gateways[rng.IntN(2)]
			_, err := g.Execute(t.Context(), "Bayley", s.command, true)
			if err == nil {
				acknowledged = max(acknowledged, s.fact)
				continue
			}
			if !Unavailable(err) {
				continue // Too old: its client knows.
			}
			l := held
			l.ExpiresAt = o.now.Add(time.Hour)
			if _, err = g.Defer(t.Context(), "Bayley", s.command, l, err); err == nil {
				accepted = max(accepted, s.fact)
				released = released || payload.GetReleaseLicense() != nil
			} else if !errors.Is(err, ErrRenewedBefore) {
				t.Fatal(err)
			}
		}
	}
	o.away, o.unsaid = false, false
	for _, g := range gateways {
		until(func() bool {
			g.settleAll(t.Context())
			return !g.config.Journal.Has("Bayley")
		})
	}
	for of, n := range o.renewed {
		if n > 1 {
			t.Errorf("the renewal of step %d was executed %d times", of, n)
		}
	}
	if o.highest < max(accepted, acknowledged) || len(o.facts) != int(o.highest) {
		t.Errorf("%d facts up to %d are recorded, %d accepted", len(o.facts), o.highest, accepted)
	}
	if released && o.release == 0 {
		t.Error("a release was accepted and never executed")
	}
}
