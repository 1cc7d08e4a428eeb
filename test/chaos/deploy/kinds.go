package deploy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"licensed/internal/failpoint"
	"licensed/test/chaos/fault"
	"licensed/test/chaos/process"
)

// alive does something to a process that runs; to one that is down nothing can be done.
func alive(p *process.Process, do func() error) error {
	if !p.Running() {
		return fmt.Errorf("%s is down: %w", p.Name(), fault.ErrIdle)
	}
	return do()
}

// killKind is kill -9; the process is started again after up to three TTLs.
func killKind(role Role, ps []*process.Process, ttl time.Duration) fault.Kind {
	name := fmt.Sprintf("kill -9 %s", role)
	return fault.Kind{Name: name, Weight: 3, Make: func(r *rand.Rand) *fault.Fault {
		p := ps[r.IntN(len(ps))]
		return &fault.Fault{
			Kind: name, Targets: []string{p.Name()}, Hold: time.Duration(r.Int64N(int64(3 * ttl))),
			Inject: func(context.Context) error { return alive(p, p.Kill) },
			Heal:   p.Restart,
		}
	}}
}

// pauseKind is SIGSTOP for one, three or ten TTLs, then SIGCONT.
func pauseKind(role Role, ps []*process.Process, ttl time.Duration) fault.Kind {
	name := fmt.Sprintf("pause %s", role)
	return fault.Kind{Name: name, Weight: 3, Make: func(r *rand.Rand) *fault.Fault {
		p := ps[r.IntN(len(ps))]
		n := []int{1, 1, 1, 3, 3, 10}[r.IntN(6)]
		return &fault.Fault{
			Kind: name, Targets: []string{p.Name()}, Detail: fmt.Sprintf("%d × TTL", n), Hold: time.Duration(n) * ttl,
			Inject: func(context.Context) error { return alive(p, p.Pause) },
			Heal:   func(context.Context) error { return p.Resume() },
		}
	}}
}

// starveKind lets a process run for one tenth of the time.
func starveKind(role Role, ps []*process.Process, ttl time.Duration) fault.Kind {
	name := fmt.Sprintf("starve %s", role)
	return fault.Kind{Name: name, Weight: 1, Make: func(r *rand.Rand) *fault.Fault {
		p := ps[r.IntN(len(ps))]
		stop, stopped := make(chan struct{}), make(chan error, 1)
		return &fault.Fault{
			Kind:    name,
			Targets: []string{p.Name()},
			Detail:  "10 % of the time",
			Hold:    ttl + time.Duration(r.Int64N(int64(3*ttl))),
			Inject: func(context.Context) error {
				return alive(p, func() error { go func() { stopped <- starve(p, stop) }(); return nil })
			},
			Heal: func(context.Context) error { close(stop); return errors.Join(<-stopped, p.Resume()) },
		}
	}}
}

func starve(p *process.Process, stop <-chan struct{}) error {
	for {
		for i, do := range []func() error{p.Pause, p.Resume} {
			if err := do(); err != nil {
				return err
			}
			select {
			case <-stop:
				return nil
			case <-time.After([]time.Duration{90 * time.Millisecond, 10 * time.Millisecond}[i]):
			}
		}
	}
}

// restartKind is an orderly stop of all processes of a role, one after the other, each started again
// before the next is stopped.
func restartKind(role Role, ps []*process.Process) fault.Kind {
	name := fmt.Sprintf("rolling restart of %ss", role)
	if len(ps) == 1 {
		name = fmt.Sprintf("restart %s", role)
	}
	return fault.Kind{Name: name, Weight: 1, Make: func(*rand.Rand) *fault.Fault {
		f := &fault.Fault{Kind: name, Heal: func(context.Context) error { return nil }}
		for _, p := range ps {
			f.Targets = append(f.Targets, p.Name())
		}
		f.Inject = func(ctx context.Context) error {
			for _, p := range ps {
				if err := errors.Join(p.Stop(ctx), p.Restart(ctx)); err != nil {
					return fmt.Errorf("%w: %w", fault.ErrService, err)
				}
			}
			return nil
		}
		return f
	}}
}

// jumps are the sizes of clock jumps, forward and back. The first is the largest; it is made often, since a long run
// must meet it.
var jumps = []time.Duration{
	time.Hour, -time.Minute, 10 * time.Minute, time.Hour, -10 * time.Second, time.Minute, time.Hour, -time.Hour,
	10 * time.Second, time.Hour, -10 * time.Minute, time.Second, -time.Second,
}

// clockKind makes the wall clock of a node jump. A jump is met if an event bears the wrong time. One of a node that
// executes no command meanwhile is not met, nor one back where all customers have later events already.
func clockKind(nodes []*server, ttl time.Duration) fault.Kind {
	return jumpKind(ClockJump, nodes, failpoint.WallClock, "events with the wrong time", ttl)
}

// gatewayClockKind makes the wall clock of a gateway jump. It shows in no event, only in the time at which a command
// was issued. A jump is met if the gateway read its clock meanwhile.
func gatewayClockKind(gateways []*server, ttl time.Duration) fault.Kind {
	return jumpKind("gateway clock jump", gateways, failpoint.ClockReads, "readings of the wrong clock", ttl)
}

// ClockJump is the name of the fault that makes the wall clock of a node jump.
const ClockJump = "clock jump"

// jumpKind makes the wall clock of a process jump by each size in turn. A jump is met if the hits of a counter rise
// while it lasts.
func jumpKind(name string, ss []*server, counter, counted string, ttl time.Duration) fault.Kind {
	made := 0
	return fault.Kind{Name: name, Weight: 2, Make: func(r *rand.Rand) *fault.Fault {
		s := ss[r.IntN(len(ss))]
		by := jumps[made%len(jumps)]
		made++
		var before, met uint64
		return &fault.Fault{
			Kind:    name,
			Targets: []string{s.Process.Name()},
			Detail:  by.String(),
			Hold:    ttl + time.Duration(r.Int64N(int64(2*ttl))),
			Inject: func(ctx context.Context) error {
				return alive(s.Process, func() error {
					s.look(ctx)
					before = s.hits(counter)
					return s.set(ctx, failpoint.WallClock, by.String())
				})
			},
			Heal: func(ctx context.Context) error {
				err := s.reset(ctx, failpoint.WallClock, "0s")
				s.look(ctx)
				met = s.hits(counter) - before
				return err
			},
			Came: func() fault.Effect {
				return fault.Effect{Text: fmt.Sprintf("%d %s", met, counted), Idle: met == 0}
			},
		}
	}}
}

// slowKind makes every call of a process to its store take longer.
func slowKind(ss []*server, ttl time.Duration) fault.Kind {
	return fault.Kind{Name: "slow store", Weight: 1, Make: func(r *rand.Rand) *fault.Fault {
		s := ss[r.IntN(len(ss))]
		by := []time.Duration{20 * time.Millisecond, 200 * time.Millisecond, ttl / 2}[r.IntN(3)]
		all := func(
			ctx context.Context, set func(ctx context.Context, point, action string) error, action string,
		) error {
			var errs []error
			for _, call := range []string{failpoint.Append, failpoint.RootActivation, failpoint.RootRollover,
				failpoint.ReadTop, failpoint.ReadRecords} {
				errs = append(errs, set(ctx, failpoint.Before(call), action))
			}
			return errors.Join(errs...)
		}
		return &fault.Fault{
			Kind:    "slow store",
			Targets: []string{s.Process.Name()},
			Detail:  "+" + by.String(),
			Hold:    ttl + time.Duration(r.Int64N(int64(2*ttl))),
			Inject: func(ctx context.Context) error {
				return alive(s.Process, func() error { return all(ctx, s.set, "sleep "+by.String()) })
			},
			Heal: func(ctx context.Context) error { return all(ctx, s.reset, "off") },
		}
	}}
}

// archiveRound is within what archiving gets to every step of its, under load.
const archiveRound = 7 * time.Second

// crashKind lets a process die at a failpoint, every one in turn. One that is not reached within the time
// is switched off again.
func crashKind(ss []*server, points []string, ttl time.Duration) fault.Kind {
	var left []string
	return fault.Kind{Name: "crash at point", Weight: 4, Make: func(r *rand.Rand) *fault.Fault {
		if len(left) == 0 {
			left = slices.Clone(points)
			r.Shuffle(len(left), func(i, j int) { left[i], left[j] = left[j], left[i] })
		}
		point := left[0]
		left = left[1:]
		s := ss[r.IntN(len(ss))]
		hold := ttl + time.Duration(r.Int64N(int64(2*ttl)))
		if strings.HasPrefix(point, "archive.") {
			hold = max(hold, archiveRound)
		}
		return crash(s, point, hold)
	}}
}

// crash lets a process die at a failpoint. Only one that was armed is credited with the end of the process.
func crash(s *server, point string, hold time.Duration) *fault.Fault {
	armed := false
	var came fault.Effect
	return &fault.Fault{
		Kind: "crash at point", Targets: []string{s.Process.Name()}, Detail: point, Hold: hold,
		Inject: func(ctx context.Context) error {
			return alive(s.Process, func() error {
				s.Doom(true)
				s.look(ctx)
				err := s.set(ctx, point, "exit")
				armed = err == nil
				return err
			})
		},
		Heal: func(ctx context.Context) error {
			lives, err := s.spare(ctx, point)
			if lives {
				came = fault.Effect{Text: "not reached", Idle: true}
				return err
			}
			came = fault.Effect{Text: "ended, not known to be armed", Idle: true}
			if armed {
				came = fault.Effect{Text: "died there"}
				s.diedAt(point)
			}
			return errors.Join(err, s.Restart(ctx))
		},
		Came: func() fault.Effect { return came },
	}
}

// fullDiskKind takes all the space that is left in a directory with a file system of its own. The process
// may end by that, as documented; it is started again when there is space.
func fullDiskKind(s *server, dir string, ttl time.Duration) fault.Kind {
	return fault.Kind{Name: "full disk", Weight: 1, Make: func(r *rand.Rand) *fault.Fault {
		filler := dir + "/.filler"
		return &fault.Fault{
			Kind: "full disk", Targets: []string{s.Process.Name()}, Hold: ttl + time.Duration(r.Int64N(int64(2*ttl))),
			Inject: func(context.Context) error { s.Expect(true); return fill(filler) },
			Heal: func(ctx context.Context) error {
				err := os.Remove(filler)
				if s.Running() {
					// It notices at the next write, or has noticed and is about to end.
					stop, cancel := context.WithTimeout(ctx, time.Minute)
					defer cancel()
					err = errors.Join(err, s.Stop(stop))
				}
				return errors.Join(err, s.Restart(ctx))
			},
		}
	}}
}

// fill writes a file until there is no space left.
func fill(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	for block := make([]byte, 1<<20); len(block) > 0; {
		if _, err := f.Write(block); err != nil {
			if !strings.Contains(err.Error(), "no space") {
				return err
			}
			block = block[:len(block)/2]
		}
	}
	return nil
}

// scaleKind lets a further node join, and leave in good order some time later.
func scaleKind(spares []*process.Process, ttl time.Duration) fault.Kind {
	const name = "scale out and in"
	return fault.Kind{Name: name, Weight: 2, Make: func(r *rand.Rand) *fault.Fault {
		p := spares[r.IntN(len(spares))]
		return &fault.Fault{
			Kind: name, Targets: []string{p.Name()}, Hold: 2*ttl + time.Duration(r.Int64N(int64(4*ttl))),
			Inject: func(ctx context.Context) error {
				if err := p.Restart(ctx); err != nil {
					return fmt.Errorf("%w: %w", fault.ErrService, err)
				}
				return nil
			},
			Heal: p.Stop,
		}
	}}
}
