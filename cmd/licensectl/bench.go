package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/spf13/cobra"

	"licensed/messages/licensedv1"
)

// benchFlags are those of bench. Rate is in commands per second, 0 for a closed loop;
// prefix separates the customers of one run from those of others.
type benchFlags struct {
	duration, warmup time.Duration
	concurrency      int
	rate             float64
	customers        int
	mix              string
	prefix           string
}

// benchCommand returns the verb that makes a load. It writes to real histories, which no
// verb removes: the prefix shows whose they are.
func (p *program) benchCommand() *cobra.Command {
	var f benchFlags
	c := &cobra.Command{
		Use: "bench", Short: "Measure throughput and latency of commands",
		Long: `bench gives commands of customers of its own and measures how long the answers take.

Without --rate the loop is closed: each of --concurrency clients gives its next command when the
last is answered, so a slow service is asked less. With --rate it is open: commands are due at a
steady rate whatever the answers' pace, and latency counts from the moment a command was due, so
that a stall is seen by all that it delayed (no coordinated omission). More clients allow more
commands in flight; if all are busy the next command is late, and that counts.`,
		Example: "  licensectl bench\n  licensectl bench --rate 2000 --concurrency 256 --duration 30s\n" +
			"  licensectl bench --mix renew=1 --customers 10000 -o json",
		Args: exactArgs(),
	}
	fl := c.Flags()
	fl.DurationVar(&f.duration, "duration", 10*time.Second, "how long to measure")
	fl.DurationVar(&f.warmup, "warmup", 2*time.Second, "how long to run before that")
	fl.IntVar(&f.concurrency, "concurrency", 32, "clients")
	fl.Float64Var(&f.rate, "rate", 0, "commands a second of an open loop; 0 for a closed loop")
	fl.IntVar(&f.customers, "customers", 2000, "customers; each takes at most 1024 commands in 10 minutes")
	fl.StringVar(&f.mix, "mix", "acquire=1,renew=4,play=4,release=1", "`WEIGHTS` of the commands")
	fl.StringVar(&f.prefix, "prefix", "", "what the ids of the customers begin with (default: bench- and the time)")
	c.RunE = func(c *cobra.Command, _ []string) error {
		weights, err := parseMix(f.mix)
		if err != nil {
			return err
		}
		// cobra checks types only; ranges are for each verb to check.
		if f.concurrency < 1 || f.customers < 1 || f.duration <= 0 || f.warmup < 0 || f.rate < 0 {
			return usagef(
				"--concurrency, --customers and --duration must be positive, --warmup and --rate not negative",
			)
		}
		// The time keeps two runs apart: customers of an earlier one have devices and
		// licences already.
		if f.prefix == "" {
			f.prefix = "bench-" + p.now().UTC().Format("20060102T150405") + "-"
		}
		return p.bench(c.Context(), &f, weights)
	}
	return c
}

// verbs of the load, in the order of the report.
var benchVerbs = []string{"acquire", "renew", "play", "release"}

// parseMix reads "acquire=1,renew=4".
func parseMix(s string) (map[string]int, error) {
	weights, sum := map[string]int{}, 0
	for part := range strings.SplitSeq(s, ",") {
		verb, weight, _ := strings.Cut(part, "=")
		n, err := strconv.Atoi(weight)
		if err != nil || n < 0 || !slices.Contains(benchVerbs, verb) {
			return nil, usagef("--mix: %q is not VERB=WEIGHT with acquire, renew, play or release", part)
		}
		weights[verb] += n
		sum += n
	}
	if sum == 0 {
		return nil, usagef("--mix: all weights are 0")
	}
	return weights, nil
}

// newHistogram returns one for latencies of one verb: microseconds, three digits, up to a minute.
func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, time.Minute.Microseconds(), 3)
}

// tally is what one client measured. Each client has its own, so that measuring needs no
// lock; they are merged at the end.
type tally struct {
	// By verb, in microseconds.
	latency  map[string]*hdrhistogram.Histogram
	accepted uint64
	refused  uint64
	// By reason, for errors that are no refusals: the service failed, or was not reached.
	failed map[string]uint64
	late   uint64 // recorded as a minute, being longer
}

// newTally returns a tally of nothing.
func newTally() *tally {
	t := &tally{latency: map[string]*hdrhistogram.Histogram{}, failed: map[string]uint64{}}
	for _, v := range benchVerbs {
		t.latency[v] = newHistogram()
	}
	return t
}

// add counts the result of a command. A refusal is an answer, and has a latency like one.
// Latencies are recorded in microseconds; a value above the histogram's range is counted
// as late.
func (t *tally) add(verb string, took time.Duration, e *exitError) {
	switch {
	case e == nil:
		t.accepted++
	case e.code == exitRefused:
		t.refused++
	default:
		reason := e.reason
		if reason == "" {
			reason = "UNREACHABLE"
		}
		t.failed[reason]++
	}
	if t.latency[verb].RecordValue(max(1, took.Microseconds())) != nil {
		t.late++
	}
}

// merge adds what another client measured.
func (t *tally) merge(o *tally) {
	for v, h := range o.latency {
		t.latency[v].Merge(h)
	}
	t.accepted += o.accepted
	t.refused += o.refused
	t.late += o.late
	for r, n := range o.failed {
		t.failed[r] += n
	}
}

// load is a running load. The clients share it: what changes is atomic.
type load struct {
	*program
	conn  *connection
	flags *benchFlags
	deck  []string // verbs by weight
	// Whether each customer holds the licence, as far as the answers say. Clients that
	// use one customer at once may find it otherwise, and are refused.
	held []atomic.Bool
	// Warm-up begins, measuring begins, and all ends.
	begin   time.Time
	measure time.Time
	end     time.Time
	// The number of commands that are due so far; with a rate, the n-th is due at a fixed
	// moment.
	next atomic.Int64
}

// bench runs the load and prints the report, also of a load that was interrupted while it
// was measured.
func (p *program) bench(ctx context.Context, f *benchFlags, weights map[string]int) error {
	conn, err := p.dial()
	if err != nil {
		return err
	}
	l := &load{program: p, conn: conn, flags: f, held: make([]atomic.Bool, f.customers)}
	for _, v := range benchVerbs {
		for range weights[v] {
			l.deck = append(l.deck, v)
		}
	}
	// One command that must be answered, or there is nothing to measure.
	if e := l.give(ctx, "acquire", 0); e != nil && e.code != exitRefused {
		return e
	}
	l.begin = time.Now()
	l.measure = l.begin.Add(f.warmup)
	l.end = l.measure.Add(f.duration)
	line := p.newProgress()
	tallies := make([]*tally, f.concurrency)
	var clients sync.WaitGroup
	for i := range tallies {
		tallies[i] = newTally()
		// Seeded by number: two runs give the same commands in the same shares.
		clients.Go(func() { l.client(ctx, tallies[i], rand.New(rand.NewPCG(uint64(i), 1))) })
	}
	done := make(chan struct{})
	go func() { clients.Wait(); close(done) }()
	for waiting := true; waiting; {
		select {
		case <-done:
			waiting = false
		case <-time.After(250 * time.Millisecond):
			line.Show("%s of %s", time.Since(l.begin).Round(time.Second), f.warmup+f.duration)
		}
	}
	if err := line.Clear(); err != nil {
		return err
	}
	all := newTally()
	for _, t := range tallies {
		all.merge(t)
	}
	// The clients may have ended early, since the user interrupted them.
	took := min(time.Since(l.measure), f.duration)
	if took <= 0 {
		return errInterrupted
	}
	if err := p.printBench(f, all, took); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return errInterrupted
	}
	return nil
}

// client gives commands until the end, or until ctx ends. A command counts if it was due
// while measuring.
func (l *load) client(ctx context.Context, t *tally, rng *rand.Rand) {
	for ctx.Err() == nil {
		due := time.Now()
		if l.flags.rate > 0 {
			// The n-th command is due at begin + n/rate, whichever client takes it.
			due = l.begin.Add(time.Duration(float64(l.next.Add(1)-1) / l.flags.rate * float64(time.Second)))
			if wait := time.Until(due); wait > 0 {
				time.Sleep(wait)
			}
		}
		if !due.Before(l.end) {
			return
		}
		customer := rng.IntN(l.flags.customers)
		verb := l.deck[rng.IntN(len(l.deck))]
		if !l.held[customer].Load() {
			verb = "acquire" // All others need a licence.
		}
		e := l.give(ctx, verb, customer)
		// A command that was interrupted says nothing of the service.
		if ctx.Err() == nil && !due.Before(l.measure) {
			t.add(verb, time.Since(due), e)
		}
	}
}

// give gives one command for a customer and notes whether it holds the licence now.
func (l *load) give(ctx context.Context, verb string, customer int) *exitError {
	ctx, cancel := l.call(ctx)
	defer cancel()
	id, device, title, command := l.flags.prefix+strconv.Itoa(customer), "phone", "GlowS01E01", l.newID()
	var err error
	switch verb {
	case "acquire":
		_, err = l.conn.AcquireLicense(ctx, &licensedv1.AcquireLicenseRequest{
			CustomerId: id, DeviceId: device, TitleId: title, CommandId: command,
		})
	case "renew":
		_, err = l.conn.RenewLicense(ctx, &licensedv1.RenewLicenseRequest{
			CustomerId: id, DeviceId: device, TitleId: title, CommandId: command,
		})
	case "play":
		_, err = l.conn.RecordPlayback(ctx, &licensedv1.RecordPlaybackRequest{
			CustomerId: id, DeviceId: device, TitleId: title, CommandId: command,
		})
	default:
		_, err = l.conn.ReleaseLicense(ctx, &licensedv1.ReleaseLicenseRequest{
			CustomerId: id, DeviceId: device, TitleId: title, CommandId: command,
		})
	}
	if err != nil {
		e := l.explain(err)
		// Another client was first: its release may have been noted before what came before it.
		if e.code == exitRefused {
			l.held[customer].Store(false)
		}
		return e
	}
	l.held[customer].Store(verb != "release")
	return nil
}

// benchRow is a line of the report: latencies in milliseconds.
type benchRow struct {
	Verb  string  `json:"command"`
	Count int64   `json:"count"`
	Mean  float64 `json:"meanMs"`
	P50   float64 `json:"p50Ms"`
	P90   float64 `json:"p90Ms"`
	P99   float64 `json:"p99Ms"`
	P999  float64 `json:"p999Ms"`
	Max   float64 `json:"maxMs"`
}

// rowOf returns the line of a verb.
func rowOf(verb string, h *hdrhistogram.Histogram) benchRow {
	q := func(q float64) float64 { return float64(h.ValueAtQuantile(q)) / 1000 }
	return benchRow{verb, h.TotalCount(), h.Mean() / 1000, q(50), q(90), q(99), q(99.9), float64(h.Max()) / 1000}
}

// printBench prints the report. took is the time that was measured.
func (p *program) printBench(f *benchFlags, t *tally, took time.Duration) error {
	all := newHistogram()
	var rows []benchRow
	for _, v := range benchVerbs {
		if h := t.latency[v]; h.TotalCount() > 0 {
			rows = append(rows, rowOf(v, h))
			all.Merge(h)
		}
	}
	rows = append(rows, rowOf("all", all))
	loop, answered := "closed", t.accepted+t.refused
	if f.rate > 0 {
		loop = "open"
	}
	perSecond := float64(answered) / took.Seconds()
	if p.output == outputJSON {
		return p.printJSON(map[string]any{
			"loop": loop, "rate": f.rate, "concurrency": f.concurrency, "customers": f.customers,
			"seconds":   took.Seconds(),
			"perSecond": perSecond, "accepted": t.accepted, "refused": t.refused, "failed": t.failed,
			"overAMinute": t.late, "latency": rows,
		})
	}
	asked := ""
	if f.rate > 0 {
		asked = fmt.Sprintf(" at %g/s", f.rate)
	}
	fmt.Fprintf(p.stdout, "%s loop%s, %d clients, %d customers, %s\n",
		loop, asked, f.concurrency, f.customers, took.Round(time.Millisecond))
	fmt.Fprintf(p.stdout, "%.0f commands/s answered: %d accepted, %d refused", perSecond, t.accepted, t.refused)
	reasons := make([]string, 0, len(t.failed))
	for r, n := range t.failed {
		reasons = append(reasons, fmt.Sprintf("%d %s", n, r))
	}
	sort.Strings(reasons)
	if len(reasons) > 0 {
		fmt.Fprintf(p.stdout, "; failed: %s", strings.Join(reasons, ", "))
	}
	fmt.Fprint(p.stdout, "\n\n")
	table := p.newTable("LATENCY (ms)", ">COUNT", ">MEAN", ">P50", ">P90", ">P99", ">P99.9", ">MAX")
	for _, r := range rows {
		ms := func(v float64) string { return fmt.Sprintf("%.2f", v) }
		table.Add(r.Verb, fmt.Sprint(r.Count), ms(r.Mean), ms(r.P50), ms(r.P90), ms(r.P99), ms(r.P999), ms(r.Max))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if t.late > 0 {
		fmt.Fprintf(p.stdout, "%d took over a minute and are not among the latencies\n", t.late)
	}
	return nil
}
