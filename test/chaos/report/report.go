// Package report draws a chaos run as one page that stands for itself: no script, nothing to fetch,
// readable by day and by night.
//
// # The model
//
// Time goes from left to right, the same in all parts of the timeline: what clients got (answers per
// second), what they did not get (attempts without an outcome, and those not executed), how long it took,
// what was done to the service (a band for each fault), and who held the shards. Below are the verdict of
// each check, what was injected and which failpoints were met.
package report

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"slices"
	"time"

	"licensed/test/chaos/fault"
	"licensed/test/chaos/history"
)

// Data is what a page shows.
type Data struct {
	Title string
	Pass  bool
	// Facts are the figures at the top.
	Facts []Fact
	// Checks, in order.
	Checks []Check
	// Length of the run; faults were injected from FaultsFrom to FaultsTo.
	Length, FaultsFrom, FaultsTo time.Duration
	Ops                          []*history.Op
	Faults                       []fault.Record
	Holdings                     []Holding
	// Tables below the timeline.
	Tables []Table
	// Notes in words.
	Notes []string
}

// Fact is a figure with its name.
type Fact struct{ Name, Value, Detail string }

// Check is one check and what it found.
type Check struct {
	Name, What string
	Violations []string
	// More violations than are listed.
	More int
}

// Holding is who holds how many shards at a moment, and the sum of all epochs.
type Holding struct {
	At     time.Duration
	Shards map[string]int
	Epoch  uint64
}

// Table with a head and rows.
type Table struct {
	Title, Note string
	Head        []string
	Rows        [][]string
}

//go:embed report.html.tmpl
var page string

var tmpl = template.Must(template.New("report").Parse(page))

// Render returns the page.
func Render(d *Data) ([]byte, error) {
	t := newTimeline(d)
	var b bytes.Buffer
	err := tmpl.Execute(&b, struct {
		*Data
		Panels []panel
		Height int
		Width  int
		Left   int
		Right  int
	}{d, t.panels, t.height, width, left, right})
	if err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	return b.Bytes(), nil
}

// bucket is what happened in one slice of time.
type bucket struct {
	accepted, refused, queries int
	unknown, notExecuted       int
	latencies                  []time.Duration
}

// Buckets: at most this many, at least a second each.
const maxBuckets = 400

// buckets sorts the answers by when they came.
func buckets(d *Data) (size time.Duration, out []bucket) {
	size = max(time.Second, d.Length/maxBuckets)
	out = make([]bucket, d.Length/size+1)
	for _, o := range d.Ops {
		at := time.Duration(max(o.Call, o.Return))
		b := &out[min(int(at/size), len(out)-1)]
		switch {
		case o.Output.Outcome == history.Unknown:
			b.unknown++
			continue
		case o.Output.Outcome == history.NotExecuted:
			b.notExecuted++
			continue
		case o.Input.Kind.Query() || o.Input.ValidateOnly:
			b.queries++
		case o.Output.Outcome == history.Refused:
			b.refused++
		default:
			b.accepted++
		}
		b.latencies = append(b.latencies, o.Latency())
	}
	return size, out
}

// quantile of latencies, which it sorts.
func quantile(l []time.Duration, q float64) time.Duration {
	if len(l) == 0 {
		return 0
	}
	slices.Sort(l)
	return l[min(int(float64(len(l))*q), len(l)-1)]
}
