package workload

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"

	"licensed/test/chaos/history"
	"licensed/test/chaos/model"
)

// generator chooses what clients ask. What it chooses depends on its seed and on nothing that was
// answered. It is safe for concurrent use.
type generator struct {
	config Config
	titles []string
	// endless are the titles without a yearly limit.
	endless []string
	plans   []string

	mu      sync.Mutex
	random  *rand.Rand
	pool    []*customer
	retired []string
	born    int
	asked   int
}

// customer is one that takes part.
type customer struct {
	id   string
	hot  bool
	sent int
	last int // commands after which it is left alone
	held []download
}

// download is a title on a device that the customer may have: what was asked for, not what was granted.
type download struct{ device, title string }

// rememberedDownloads of a customer at most.
const rememberedDownloads = 4

// Bounds of a customer's life. A customer who sends more than 1,024 commands in ten minutes is
// rate-limited, and the time to check a customer grows faster than its commands.
const (
	hotLife  = 900
	coldLife = 120
)

func newGenerator(c Config, r *model.Rules) *generator {
	g := &generator{
		config: c, random: rand.New(rand.NewPCG(c.Seed, 1)),
		titles: slices.Sorted(maps.Keys(r.Titles)), plans: slices.Sorted(maps.Keys(r.Plans)),
	}
	for _, id := range g.titles {
		if r.Titles[id].Yearly == model.Unlimited {
			g.endless = append(g.endless, id)
		}
	}
	for i := range c.Customers {
		g.pool = append(g.pool, g.birth(i < c.Hot))
	}
	return g
}

func (g *generator) birth(hot bool) *customer {
	g.born++
	c := &customer{hot: hot, last: 1 + g.random.IntN(coldLife), id: fmt.Sprintf("%s-%d", g.config.Prefix, g.born)}
	if hot {
		c.last, c.id = hotLife, fmt.Sprintf("%s-hot-%d", g.config.Prefix, g.born)
	}
	return c
}

// next chooses a request. Half of all go to the hot customers.
func (g *generator) next(now func() int64) history.Input {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := g.random.IntN(len(g.pool))
	if g.config.Hot > 0 && g.random.IntN(2) == 0 {
		i = g.random.IntN(g.config.Hot)
	}
	if g.pool[i].sent >= g.pool[i].last {
		g.retired = append(g.retired, g.pool[i].id)
		g.pool[i] = g.birth(g.pool[i].hot)
	}
	c := g.pool[i]
	g.asked++
	if n := len(g.retired); n > 0 && g.random.IntN(100) == 0 {
		// A question about somebody from long ago, whose history may be archived by now.
		return g.question(g.retired[g.random.IntN(n)])
	}
	if g.random.IntN(8) == 0 {
		return g.question(c.id)
	}
	in := g.command(c)
	if g.random.IntN(12) == 0 {
		in.ValidateOnly = true
		return in
	}
	c.sent++
	in.Command = fmt.Sprintf("c%d", g.asked)
	if g.random.IntN(4) == 0 {
		in.IssuedAt = now()
	}
	return in
}

func (g *generator) question(id string) history.Input {
	switch g.random.IntN(3) {
	case 0:
		return history.Input{Kind: history.ListDevices, Customer: id}
	case 1:
		return history.Input{Kind: history.ListDownloads, Customer: id, Title: g.title()}
	}
	return history.Input{Kind: history.ListLicenses, Customer: id, Inactive: g.random.IntN(2) == 0}
}

func (g *generator) command(c *customer) history.Input {
	in := history.Input{Customer: c.id}
	switch n := g.random.IntN(100); {
	case n < 38:
		in.Kind, in.NewDownload = history.Acquire, g.random.IntN(4) == 0
		in.Device, in.Title = g.device(), g.title()
		if len(c.held) >= rememberedDownloads {
			c.held = c.held[1:]
		}
		c.held = append(c.held, download{in.Device, in.Title})
		return in
	case n < 53:
		in.Kind = history.Renew
	case n < 80:
		in.Kind = history.Release
	case n < 94:
		in.Kind = history.Play
	case n < 96:
		in.Kind, in.Device = history.Deactivate, g.device()
		return in
	default:
		in.Kind, in.Plan = history.ChangePlan, g.plans[g.random.IntN(len(g.plans))]
		if g.random.IntN(20) == 0 {
			in.Plan = "none-such"
		}
		return in
	}
	in.Device, in.Title = g.device(), g.title()
	if n := len(c.held); n > 0 && g.random.IntN(10) > 0 {
		d := c.held[g.random.IntN(n)]
		in.Device, in.Title = d.device, d.title
	}
	return in
}

// probe is a command for a customer that any state accepts.
func (g *generator) probe(id string) history.Input {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asked++
	return history.Input{Kind: history.ChangePlan, Customer: id, Plan: g.plans[0], Command: fmt.Sprintf("c%d", g.asked)}
}

// device and title choose mostly what rarely meets a limit: a service that refuses everything is not
// tested much, and refusals of one customer are rate-limited.
func (g *generator) device() string {
	if g.random.IntN(5) > 0 {
		return "d0"
	}
	return fmt.Sprintf("d%d", g.random.IntN(4))
}

func (g *generator) title() string {
	if n := len(g.endless); n > 0 && g.random.IntN(6) > 0 {
		return g.endless[g.random.IntN(n)]
	}
	return g.titles[g.random.IntN(len(g.titles))]
}

// chance is true one time in n.
func (g *generator) chance(n int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.random.IntN(n) == 0
}

// pick returns a number below n.
func (g *generator) pick(n int) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.random.IntN(n)
}

// customers returns the ids of all there ever were; active those that are not retired.
func (g *generator) customers() (all, active []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.pool {
		active = append(active, c.id)
	}
	return append(append(all, g.retired...), active...), active
}
