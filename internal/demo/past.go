package demo

import (
	"container/heap"
	"context"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"licensed/client"
	"licensed/messages/licensedv1"
)

// Clock is a wall clock that stands still between the commands of a past. It is safe for concurrent use.
type Clock struct{ ms atomic.Int64 }

// NewClock returns a clock that shows this time.
func NewClock(at time.Time) *Clock {
	c := new(Clock)
	c.set(at)
	return c
}

// Now returns the time that the clock shows.
func (c *Clock) Now() time.Time { return time.UnixMilli(c.ms.Load()) }

func (c *Clock) set(at time.Time) { c.ms.Store(at.UnixMilli()) }

// PastConfig of a past.
type PastConfig struct {
	// Customers is the number of customers.
	Customers int
	// From and To bound the past.
	From, To time.Time
	// Seed makes the choices repeatable.
	Seed uint64
	// Progress is called after each command, with the time that is reached.
	Progress func(at time.Time, t Told)
}

// Told is what a past has.
type Told struct {
	Commands, Refused, Repeated, LateFacts, Exceptions, Removals int
}

// PastService is what a past calls; *client.Client is one.
type PastService interface {
	Service
	ChangePlan(context.Context, *licensedv1.ChangePlanRequest) (*licensedv1.ChangePlanResponse, error)
	SelectDevices(context.Context, *licensedv1.SelectDevicesRequest) (*licensedv1.SelectDevicesResponse, error)
	SyncDevice(context.Context, *licensedv1.SyncDeviceRequest) (*licensedv1.SyncDeviceResponse, error)
	GrantException(context.Context, *licensedv1.GrantExceptionRequest) (*licensedv1.GrantExceptionResponse, error)
}

//go:embed policy.yaml
var policyText string

// Policy returns the text of the policy under which a past that ends then is made. A series becomes unavailable two
// months before the end.
func Policy(end time.Time) string {
	until := end.AddDate(0, -2, 0).UTC().Format(time.DateOnly)
	return strings.ReplaceAll(policyText, `"{{available_until}}"`, until)
}

// titleLine is the line of a title in the policy: its name, and the name of the series if it is an episode of one.
var titleLine = regexp.MustCompile(`(?m)^  ((\w+)S\d\dE\d\d|\w+): \{studio: `)

// catalogue returns the titles of the policy: series, whose episodes are in order, and films, which are alone.
func catalogue() [][]string {
	var all [][]string
	last := ""
	for _, m := range titleLine.FindAllStringSubmatch(policyText, -1) {
		if m[2] == "" || m[2] != last {
			all = append(all, nil)
		}
		last = m[2]
		all[len(all)-1] = append(all[len(all)-1], m[1])
	}
	return all
}

// past is the making of one: what customers are about to do, the earliest first. Commands are executed one after the
// other, each at its own time, so the same seed results in the same histories.
type past struct {
	PastConfig
	clock   *Clock
	service PastService
	random  *rand.Rand
	ids     *rand.ChaCha8 // of commands
	due     steps
	told    Told
}

// step is what happens at a time.
type step struct {
	at     time.Time
	number int // of its making: steps of the same time have an order
	do     func(context.Context) error
}

type steps []step

func (s steps) Len() int { return len(s) }
func (s steps) Less(i, j int) bool {
	return s[i].at.Before(s[j].at) || s[i].at.Equal(s[j].at) && s[i].number < s[j].number
}
func (s steps) Swap(i, j int) { s[i], s[j] = s[j], s[i] }
func (s *steps) Push(x any)   { *s = append(*s, x.(step)) }
func (s *steps) Pop() any {
	last := (*s)[len(*s)-1]
	*s = (*s)[:len(*s)-1]
	return last
}

// Past has customers live from c.From to c.To, through the API of a service that runs by this clock: nothing is
// recorded that the service did not decide itself. Errors: those of the service that are no refusals.
func Past(ctx context.Context, c PastConfig, clock *Clock, service PastService) (Told, error) {
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], c.Seed)
	p := &past{
		PastConfig: c, clock: clock, service: service, random: rand.New(rand.NewPCG(c.Seed, 1)),
		ids: rand.NewChaCha8(seed),
	}
	for i := range c.Customers {
		p.moveIn(i)
	}
	for len(p.due) > 0 {
		next := heap.Pop(&p.due).(step)
		p.clock.set(next.at)
		if err := next.do(ctx); err != nil {
			return p.told, fmt.Errorf("at %s: %w", next.at.UTC().Format(time.DateTime), err)
		}
		if p.Progress != nil {
			p.Progress(next.at, p.told)
		}
	}
	p.clock.set(c.To)
	return p.told, nil
}

// after plans a step, unless the past has ended by then.
func (p *past) after(d time.Duration, do func(context.Context) error) {
	at := p.clock.Now().Add(d)
	if !at.After(p.To) {
		heap.Push(&p.due, step{at, p.told.Commands + len(p.due), do})
	}
}

// between returns a random time between two.
func (p *past) between(low, high time.Duration) time.Duration {
	return low + time.Duration(p.random.Int64N(int64(high-low)))
}

// chance is true in percent of a hundred cases.
func (p *past) chance(percent int) bool { return p.random.IntN(100) < percent }

// commandID returns the id of a new command, of the past's own randomness.
func (p *past) commandID() string { return uuid.Must(uuid.NewRandomFromReader(p.ids)).String() }

// say sends a command, one of thirty twice, as phones do on bad networks. rule is the one that refused it, if any.
func say[Q, A any](
	ctx context.Context, p *past, call func(context.Context, Q) (A, error), request Q,
) (answer A, rule licensedv1.Rule, err error) {
	repeats := 1
	if p.random.IntN(30) == 0 {
		repeats, p.told.Repeated = 2, p.told.Repeated+1
	}
	for range repeats {
		answer, err = call(ctx, request)
	}
	p.told.Commands++
	var refusal *client.Refusal
	if errors.As(err, &refusal) {
		p.told.Refused++
		return answer, refusal.Rule, nil
	}
	return answer, licensedv1.Rule_RULE_UNSPECIFIED, err
}
