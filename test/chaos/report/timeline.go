package report

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"licensed/test/chaos/fault"
)

// Geometry of the timeline, in units of the drawing.
const (
	width  = 1200
	left   = 190
	right  = 1180
	gap    = 34
	lane   = 17
	legend = 14
)

// panel is one part of the timeline.
type panel struct {
	Title       string
	Top, Height int
	Lines       []gridline
	Shapes      []shape
	Rows        []row
	Bands       []band
	Legend      []entry
	// From and To are where faults begin and end.
	From, To float64
}

// Bottom of the panel.
func (p panel) Bottom() int { return p.Top + p.Height }

// gridline is a horizontal line with its value, or a vertical one with its time.
type gridline struct {
	X1, Y1, X2, Y2 float64
	Label          string
	Vertical       bool
}

// shape is a filled area or a line.
type shape struct {
	Class, Path, Title string
}

// band is a fault.
type band struct {
	X, Y, W      float64
	Class, Title string
	Text         string // beside it; empty where there is no room
}

// TextX is where the text begins.
func (b band) TextX() float64 { return b.X + b.W + 3 }

// row is one kind of faults.
type row struct {
	Y    float64
	Text string
}

// entry of a legend.
type entry struct {
	Class, Text string
	X           int
}

type timeline struct {
	data   *Data
	size   time.Duration
	rows   []bucket
	panels []panel
	height int
}

func newTimeline(d *Data) *timeline {
	t := &timeline{data: d, height: 24}
	if d.Length <= 0 {
		return t
	}
	t.size, t.rows = buckets(d)
	t.answers()
	t.failures()
	t.latency()
	t.faults()
	t.holdings()
	t.height += 6
	return t
}

func (t *timeline) x(at time.Duration) float64 {
	return left + (right-left)*float64(at)/float64(t.data.Length)
}

// panel adds a part with a title and vertical lines for the time.
func (t *timeline) panel(title string, height int) *panel {
	top := t.height + legend
	p := panel{Title: title, Top: top, Height: height, From: t.x(t.data.FaultsFrom), To: t.x(t.data.FaultsTo)}
	step := nice(t.data.Length)
	for at := time.Duration(0); at <= t.data.Length; at += step {
		p.Lines = append(p.Lines, gridline{
			X1: t.x(at), X2: t.x(at), Y1: float64(top), Y2: float64(top + height), Label: clock(at), Vertical: true,
		})
	}
	t.panels = append(t.panels, p)
	t.height = top + height + gap
	return &t.panels[len(t.panels)-1]
}

// nice is a step that gives about ten labels.
func nice(length time.Duration) time.Duration {
	for _, s := range []time.Duration{
		time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 15 * time.Second, 30 * time.Second,
		time.Minute, 2 * time.Minute,
		5 * time.Minute, 10 * time.Minute, 15 * time.Minute, 30 * time.Minute,
	} {
		if length/s <= 12 {
			return s
		}
	}
	return (length / 10).Round(time.Hour) + time.Hour
}

func clock(d time.Duration) string {
	if d >= time.Hour {
		return fmt.Sprintf("%d:%02d:%02d", int(d.Hours()), int(d.Minutes())%60, int(d.Seconds())%60)
	}
	return fmt.Sprintf("%d:%02d", int(d.Minutes()), int(d.Seconds())%60)
}

// scale draws horizontal lines for values up to top, and returns how a value becomes a height.
func (p *panel) scale(top float64, label func(float64) string) func(float64) float64 {
	if top <= 0 {
		top = 1
	}
	step := math.Pow(10, math.Floor(math.Log10(top)))
	for _, f := range []float64{5, 2, 1, 0.5, 0.2} {
		if top/(step*f) >= 2 {
			step *= f
			break
		}
	}
	top = math.Ceil(top/step) * step
	y := func(v float64) float64 { return float64(p.Bottom()) - v/top*float64(p.Height) }
	for v := 0.0; v <= top*1.001; v += step {
		p.Lines = append(p.Lines, gridline{X1: left, X2: right, Y1: y(v), Y2: y(v), Label: label(v)})
	}
	return y
}

func number(v float64) string {
	if v >= 10_000 {
		return fmt.Sprintf("%gk", v/1000)
	}
	return fmt.Sprintf("%g", math.Round(v*100)/100)
}

// stack draws areas one on the other.
func (t *timeline) stack(p *panel, classes []string, value func(*bucket, int) int) {
	per := t.size.Seconds()
	highest := 0.0
	for i := range t.rows {
		sum := 0
		for c := range classes {
			sum += value(&t.rows[i], c)
		}
		highest = max(highest, float64(sum)/per)
	}
	y := p.scale(highest, number)
	base := make([]float64, len(t.rows))
	for c, class := range classes {
		var up, down strings.Builder
		for i := range t.rows {
			x1, x2 := t.x(time.Duration(i)*t.size), t.x(min(t.data.Length, time.Duration(i+1)*t.size))
			base[i] += float64(value(&t.rows[i], c)) / per
			fmt.Fprintf(&up, "%s%.1f,%.1fH%.1f", command(i > 0), x1, y(base[i]), x2)
		}
		for i := len(t.rows) - 1; i >= 0; i-- {
			x1, x2 := t.x(time.Duration(i)*t.size), t.x(min(t.data.Length, time.Duration(i+1)*t.size))
			low := base[i] - float64(value(&t.rows[i], c))/per
			fmt.Fprintf(&down, "L%.1f,%.1fH%.1f", x2, y(low), x1)
		}
		p.Shapes = append(p.Shapes,
			shape{Class: "area " + class, Path: up.String() + down.String() + "Z", Title: class})
	}
	p.legend(classes)
}

// command of a path: a line if there is a point before, else a move.
func command(drawn bool) string {
	if drawn {
		return "L"
	}
	return "M"
}

func (p *panel) legend(texts []string) {
	x := right
	for _, s := range slices.Backward(texts) {
		x -= 20 + 7*len(s)
		p.Legend = append(p.Legend, entry{Class: strings.ReplaceAll(s, " ", "-"), Text: s, X: x})
	}
}

func (t *timeline) answers() {
	p := t.panel("Answers per second", 150)
	t.stack(p, []string{"accepted", "refused", "questions"}, func(b *bucket, c int) int {
		return []int{b.accepted, b.refused, b.queries}[c]
	})
}

func (t *timeline) failures() {
	p := t.panel("Attempts without an outcome, per second", 90)
	t.stack(p, []string{"unknown", "not-executed"}, func(b *bucket, c int) int {
		return []int{b.unknown, b.notExecuted}[c]
	})
}

// latency draws two quantiles on a logarithmic scale.
func (t *timeline) latency() {
	p := t.panel("Time to an answer", 90)
	const low, high = 0.1, 10_000.0 // milliseconds
	y := func(ms float64) float64 {
		share := math.Log10(min(max(ms, low), high)/low) / math.Log10(high/low)
		return float64(p.Bottom()) - share*float64(p.Height)
	}
	for v := low; v <= high*1.01; v *= 10 {
		label := ""
		if e := math.Round(math.Log10(v)); int(e)%2 != 0 || e == 0 {
			label = number(v) + " ms"
		}
		p.Lines = append(p.Lines, gridline{X1: left, X2: right, Y1: y(v), Y2: y(v), Label: label})
	}
	for _, q := range []struct {
		class string
		at    float64
	}{{"p50", 0.5}, {"p99", 0.99}} {
		var path strings.Builder
		open := false
		for i := range t.rows {
			l := t.rows[i].latencies
			if len(l) == 0 {
				open = false
				continue
			}
			x := t.x(time.Duration(i)*t.size + t.size/2)
			fmt.Fprintf(&path, "%s%.1f,%.1f", command(open), x, y(quantile(l, q.at).Seconds()*1000))
			open = true
		}
		p.Shapes = append(p.Shapes, shape{Class: "line " + q.class, Path: path.String(), Title: q.class})
	}
	p.legend([]string{"p50", "p99"})
}

// faults draws a band for each, those of a kind in a row.
func (t *timeline) faults() {
	byKind := map[string][]*fault.Record{}
	for i := range t.data.Faults {
		f := &t.data.Faults[i]
		byKind[f.Kind] = append(byKind[f.Kind], f)
	}
	kinds := slices.SortedFunc(maps.Keys(byKind), func(a, b string) int {
		return cmp.Or(cmp.Compare(slices.Index(families, family(a)), slices.Index(families, family(b))),
			cmp.Compare(a, b))
	})
	p := t.panel("Faults", max(1, len(kinds))*lane+6)
	for i, kind := range kinds {
		y := float64(p.Top + 3 + i*lane)
		p.Rows = append(p.Rows, row{Y: y, Text: fmt.Sprintf("%s  × %d", kind, len(byKind[kind]))})
		t.row(p, y, byKind[kind], len(t.data.Faults) <= wordy)
	}
	p.legend(families)
}

// wordy is up to how many faults each is told in words: of more, only a few would find room.
const wordy = 80

// row draws the bands of one kind, with words where they are wanted and do not cover the next band.
func (t *timeline) row(p *panel, y float64, faults []*fault.Record, told bool) {
	const perLetter, thinnest = 5.6, 1.5
	slices.SortStableFunc(faults, func(a, b *fault.Record) int { return cmp.Compare(a.Injected, b.Injected) })
	for i, f := range faults {
		class := strings.ReplaceAll(family(f.Kind), " ", "-")
		if f.Idle || f.Failed {
			class += " idle"
		}
		b := band{
			X: t.x(f.Injected), W: max(thinnest, t.x(f.Healed)-t.x(f.Injected)), Y: y, Class: class, Text: words(f),
		}
		b.Title = fmt.Sprintf("%s %s, from %s for %v; %s %s",
			f.Kind, b.Text, clock(f.Injected), (f.Healed - f.Injected).Round(time.Millisecond), f.Effect, f.Error)
		room := float64(width)
		if i+1 < len(faults) {
			room = t.x(faults[i+1].Injected)
		}
		if !told || b.TextX()+perLetter*float64(len(b.Text)) > room {
			b.Text = ""
		}
		p.Bands = append(p.Bands, b)
	}
}

// words is a fault in short, without its kind.
func words(f *fault.Record) string {
	var s []string
	if len(f.Targets) <= 3 {
		s = f.Targets
	}
	if f.Detail != "" {
		s = append(slices.Clip(s), f.Detail)
	}
	return strings.Join(s, " ")
}

// families of faults, each with a colour.
var families = []string{"process", "crash point", "network", "store", "clock"}

// family of a kind.
func family(kind string) string {
	for _, c := range []struct{ word, family string }{
		{"cassandra", "store"}, {"disk", "store"}, {"store", "store"}, {"point", "crash point"}, {"clock", "clock"},
		{"cut", "network"}, {"delay", "network"}, {"loss", "network"}, {"isolate", "network"}, {"network", "network"},
	} {
		if strings.Contains(kind, c.word) {
			return c.family
		}
	}
	return "process"
}

// holdings draws who holds how many shards, and how many changed hands.
func (t *timeline) holdings() {
	if len(t.data.Holdings) == 0 {
		return
	}
	names := map[string]bool{}
	highest, first := 0, t.data.Holdings[0].Epoch
	for _, h := range t.data.Holdings {
		for name, n := range h.Shards {
			names[name] = true
			highest = max(highest, n)
		}
		if first == 0 {
			first = h.Epoch
		}
	}
	p := t.panel("Shards held", 90)
	y := p.scale(float64(highest), number)
	order := slices.Sorted(maps.Keys(names))
	var classes []string
	for i, name := range order {
		var path strings.Builder
		for j, h := range t.data.Holdings {
			fmt.Fprintf(&path, "%s%.1f,%.1f", command(j > 0), t.x(h.At), y(float64(h.Shards[name])))
		}
		p.Shapes = append(p.Shapes, shape{Class: fmt.Sprintf("line member%d", i%6), Path: path.String(), Title: name})
		classes = append(classes, name)
	}
	p.legend(classes)
	for i := range p.Legend {
		p.Legend[i].Class = fmt.Sprintf("member%d", slices.Index(order, p.Legend[i].Text)%6)
	}
	t.epochs(first)
}

// epochs draws how many shards have changed hands so far.
func (t *timeline) epochs(first uint64) {
	last := t.data.Holdings[len(t.data.Holdings)-1].Epoch
	p := t.panel("Changes of epoch so far, of all shards", 70)
	y := p.scale(float64(last-min(first, last)), number)
	var path strings.Builder
	seen := first
	for _, h := range t.data.Holdings {
		seen = max(seen, h.Epoch)
		fmt.Fprintf(&path, "%s%.1f,%.1f", command(path.Len() > 0), t.x(h.At), y(float64(seen-first)))
	}
	p.Shapes = append(p.Shapes, shape{Class: "line epoch", Path: path.String(), Title: "changes of epoch"})
}

// Places within the panel, for the page.

// Width of the time with faults.
func (p panel) Width() float64 { return p.To - p.From }

// TitleY is the line of title and legend.
func (p panel) TitleY() int { return p.Top - 7 }

// KeyY is the top of the legend's colours.
func (p panel) KeyY() int { return p.Top - 16 }

// ClockY is the line of the times.
func (p panel) ClockY() int { return p.Bottom() + 14 }
