// Package process runs the programs of a deployment and does to them what operating systems and operators
// do to programs: end them without a word, stop them in their tracks, ask them to leave.
package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Spec is how to run a program.
type Spec struct {
	Name string
	// Path and Args of the program.
	Path string
	Args []string
	// Env is added to that of this process.
	Env []string
	// Log is a file that output is appended to.
	Log string
	// Ready returns nil once the program serves.
	Ready func(context.Context) error
	// Start starts the command; nil is (*exec.Cmd).Start. It may do so in another network namespace.
	Start func(*exec.Cmd) error
}

// Process is a program that can be started again and again. It is safe for concurrent use.
type Process struct {
	spec Spec

	mu      sync.Mutex
	cmd     *exec.Cmd
	exited  chan struct{}    // closed when cmd has ended
	wanted  bool             // it is ready and meant to run: an end is an accident
	doomed  bool             // it may be killed by others: that is none
	sent    []syscall.Signal // what this side sent to cmd to end it
	starts  int
	crashes int
	ended   func(error)
}

// New returns a program that does not run yet. ended is called with [ErrUnasked] when it ends without being asked
// to, and with [ErrCrashed] when it ends in a way that no program may, whatever it was asked and whether it was ready.
func New(s Spec, ended func(error)) *Process { return &Process{spec: s, ended: ended} }

// Name of the program.
func (p *Process) Name() string { return p.spec.Name }

// ErrEnded says that a program ended while it was started.
var ErrEnded = errors.New("ended before it was ready")

// poll is the interval between requests for readiness.
const poll = 50 * time.Millisecond

// Start starts the program if it does not run, and waits until it is ready.
func (p *Process) Start(ctx context.Context) error {
	exited, err := p.launch()
	if err != nil {
		return fmt.Errorf("start %s: %w", p.spec.Name, err)
	}
	for {
		attempt, cancel := context.WithTimeout(ctx, time.Second)
		err = p.spec.Ready(attempt)
		cancel()
		if err == nil {
			return p.ready(exited)
		}
		select {
		case <-exited:
			return p.endedEarly()
		case <-ctx.Done():
			return fmt.Errorf("start %s: %w, last %w", p.spec.Name, ctx.Err(), err)
		case <-time.After(poll):
		}
	}
}

// ready makes every end from now on an accident. The end of a program before that was none: only the
// caller that starts it is told.
func (p *Process) ready(exited chan struct{}) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.exited != exited || !p.running() {
		return p.endedEarly()
	}
	p.wanted = true
	return nil
}

func (p *Process) endedEarly() error {
	return fmt.Errorf("start %s: %w, see %s", p.spec.Name, ErrEnded, p.spec.Log)
}

// Restart is Start as a supervisor does it: again and again while the program ends at once, as where its
// store does not answer yet.
func (p *Process) Restart(ctx context.Context) error {
	for {
		err := p.Start(ctx)
		if err == nil || !errors.Is(err, ErrEnded) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(time.Second):
		}
	}
}

func (p *Process) launch() (exited chan struct{}, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running() {
		return p.exited, nil
	}
	log, err := os.OpenFile(p.spec.Log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	fmt.Fprintf(log, "--- start %d at %s\n", p.starts+1, time.Now().UTC().Format(time.RFC3339Nano))
	cmd := exec.Command(p.spec.Path, p.spec.Args...)
	cmd.Env = append(os.Environ(), p.spec.Env...)
	cmd.Stdout, cmd.Stderr = log, log
	// A group of its own: Ctrl-C at the tool is the tool's business.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	start := p.spec.Start
	if start == nil {
		start = (*exec.Cmd).Start
	}
	if err := start(cmd); err != nil {
		return nil, err
	}
	p.cmd, p.exited, p.wanted, p.doomed, p.sent = cmd, make(chan struct{}), false, false, nil
	p.starts++
	go p.wait(cmd, p.exited)
	return p.exited, nil
}

// wait notices the end.
func (p *Process) wait(cmd *exec.Cmd, exited chan struct{}) {
	err := cmd.Wait()
	p.mu.Lock()
	killed := p.doomed && signaled(cmd.ProcessState, []syscall.Signal{syscall.SIGKILL})
	unasked := p.wanted && p.cmd == cmd && !killed
	crashed := !killed && !signaled(cmd.ProcessState, p.sent) && crash(cmd.ProcessState)
	if unasked || crashed {
		p.crashes++
	}
	close(exited) // Before anybody can want it to run on.
	p.mu.Unlock()
	if p.ended == nil {
		return
	}
	switch {
	case unasked:
		p.ended(fmt.Errorf("%s ended by itself: %w, see %s", p.spec.Name, errors.Join(err, ErrUnasked), p.spec.Log))
	case crashed:
		p.ended(fmt.Errorf("%s ended as if by a defect: %w, see %s",
			p.spec.Name, errors.Join(err, ErrCrashed), p.spec.Log))
	}
}

// Exit statuses that Go gives to programs: after a panic or a fatal error, and at the end of one built with
// the race detector that has found a race.
const (
	statusPanic = 2
	statusRace  = 66
)

// crash says whether a process ended as programs do by a defect: any signal is one, unless it was sent.
func crash(s *os.ProcessState) bool {
	status, ok := waitStatus(s)
	return ok && (status.Signaled() || status.ExitStatus() == statusPanic || status.ExitStatus() == statusRace)
}

// signaled says whether a process was ended by one of these signals.
func signaled(s *os.ProcessState, by []syscall.Signal) bool {
	status, ok := waitStatus(s)
	return ok && status.Signaled() && slices.Contains(by, status.Signal())
}

func waitStatus(s *os.ProcessState) (syscall.WaitStatus, bool) {
	if s == nil {
		return 0, false
	}
	status, ok := s.Sys().(syscall.WaitStatus)
	return status, ok
}

var (
	// ErrUnasked says that a program ended although nobody asked it to.
	ErrUnasked = errors.New("nobody asked it to")
	// ErrCrashed says that a program that was not ready yet, or was to end, ended by a panic, a fatal error, a
	// data race or a signal that nobody sent.
	ErrCrashed = errors.New("by a panic, a fatal error, a data race or a signal that nobody sent")
)

func (p *Process) running() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// Running says whether the program runs, paused or not.
func (p *Process) Running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.running()
}

// PID of the program, 0 if it does not run.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running() {
		return 0
	}
	return p.cmd.Process.Pid
}

// Doom says whether the program may be killed by others from now on, as by a failpoint or by the kernel.
// Any other end of it stays an accident.
func (p *Process) Doom(to bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.doomed = to
}

// Expect says whether the program may end by itself from now on, by any exit but a crash: as where its disk is full.
func (p *Process) Expect(end bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wanted = !end
}

// signal sends a signal if the program runs, which is wanted to run on or not.
func (p *Process) signal(s syscall.Signal, wanted bool) (exited chan struct{}, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running() {
		return nil, nil
	}
	if p.wanted = wanted; !wanted {
		p.sent = append(p.sent, s)
	}
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return nil, fmt.Errorf("%s: %v: %w", p.spec.Name, s, err)
	}
	return p.exited, nil
}

// Kill ends the program with kill -9 and waits until it is gone.
func (p *Process) Kill() error {
	exited, err := p.signal(syscall.SIGKILL, false)
	if err == nil && exited != nil {
		<-exited
	}
	return err
}

// Stop asks the program to stop and waits until it has. When ctx ends first it is killed, and that is
// an error.
func (p *Process) Stop(ctx context.Context) error {
	exited, err := p.signal(syscall.SIGTERM, false)
	if err != nil || exited == nil {
		return err
	}
	select {
	case <-exited:
		return nil
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("stop %s: %w", p.spec.Name, ctx.Err()), p.Kill())
	}
}

// Pause stops the program in its tracks, Resume lets it continue.
func (p *Process) Pause() error {
	_, err := p.signal(syscall.SIGSTOP, true)
	return err
}

// Resume undoes Pause.
func (p *Process) Resume() error {
	_, err := p.signal(syscall.SIGCONT, true)
	return err
}

// Starts returns how often the program was started, and how often it ended by itself.
func (p *Process) Starts() (starts, crashes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.starts, p.crashes
}

// Tail returns the end of the program's log.
func (p *Process) Tail(n int64) string {
	f, err := os.Open(p.spec.Log)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > n {
		if _, err := f.Seek(-n, io.SeekEnd); err != nil {
			return err.Error()
		}
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
