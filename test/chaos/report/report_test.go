package report_test

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"licensed/test/chaos/fault"
	"licensed/test/chaos/history"
	"licensed/test/chaos/report"
)

func data() *report.Data {
	d := &report.Data{
		Title: "seed <1>", Length: 2 * time.Minute, FaultsFrom: 8 * time.Second, FaultsTo: 100 * time.Second,
		Facts: []report.Fact{{Name: "faults", Value: "7"}},
		Checks: []report.Check{
			{Name: "limits", What: "Nothing too much."},
			{Name: "refused", What: "No.", Violations: []string{"c1 & c2"}},
		},
		Tables: []report.Table{{Title: "Points", Head: []string{"a"}, Rows: [][]string{{"b"}}}},
		Notes:  []string{"a note"},
	}
	outcomes := []history.Outcome{history.Accepted, history.Refused, history.Unknown, history.NotExecuted}
	for i := range int64(1000) {
		at := i * int64(d.Length) / 1000
		d.Ops = append(d.Ops, &history.Op{
			Call:   at,
			Return: at + i*1e5,
			Output: history.Output{Outcome: outcomes[i%4]},
			Input:  history.Input{Kind: history.Acquire},
		})
	}
	for i, kind := range []string{
		"kill -9 node", "cut", "clock jump", "crash at point", "slow store", "cut one way", "kill -9 cassandra",
	} {
		at := time.Duration(10+i*5) * time.Second
		d.Faults = append(d.Faults,
			fault.Record{Kind: kind, Targets: []string{"n1>n2"}, Injected: at, Healed: at + 9*time.Second})
	}
	for i := range 100 {
		d.Holdings = append(d.Holdings, report.Holding{
			At:     time.Duration(i) * time.Second,
			Shards: map[string]int{"n1": 32, "n2": i % 32},
			Epoch:  uint64(64 + i/10),
		})
	}
	return d
}

// TestRender makes sure that the page is whole: well-formed, about everything, and in need of nothing.
func TestRender(t *testing.T) {
	page, err := report.Render(data())
	if err != nil {
		t.Fatal(err)
	}
	text := string(page)
	from, to := strings.Index(text, "<svg"), strings.Index(text, "</svg>")
	d := xml.NewDecoder(strings.NewReader(text[from : to+len("</svg>")]))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	for _, says := range []string{
		"FAIL", "seed &lt;1&gt;", "c1 &amp; c2", "holds", "violated", "Answers per second", "Shards held",
		"prefers-color-scheme: dark", "a note", "Points",
		`class="network"`, `class="process"`, `class="store"`, `class="clock"`, `class="crash-point"`,
	} {
		if !strings.Contains(text, says) {
			t.Errorf("the page does not say %s", says)
		}
	}
	for _, not := range []string{"<script", "http://", "https://", "NaN", "ZgotmplZ", "Inf"} {
		if strings.Contains(text, not) {
			t.Errorf("the page has %s", not)
		}
	}
}

// TestFaults draws a row for each kind, and tells few faults in words, many without.
func TestFaults(t *testing.T) {
	for n, told := range map[int]bool{5: true, 1000: false} {
		d := &report.Data{Length: time.Hour}
		for i := range n {
			at := time.Duration(i) * time.Hour / time.Duration(n)
			d.Faults = append(d.Faults, fault.Record{Kind: []string{"kill", "cut"}[i%2], Targets: []string{"n7"},
				Injected: at, Healed: at + time.Second, Idle: i == 1})
		}
		page, err := report.Render(d)
		if err != nil {
			t.Fatal(err)
		}
		text := string(page)
		if strings.Contains(text, ">n7</text>") != told ||
			!strings.Contains(text, fmt.Sprintf(">kill  × %d</text>", (n+1)/2)) {
			t.Errorf("%d faults: words %t, want %t", n, strings.Contains(text, ">n7</text>"), told)
		}
		if strings.Count(text, `class="network idle"`) != 1 || strings.Count(text, `class="band"`) != n {
			t.Errorf("%d faults: %d bands, %d of them idle",
				n, strings.Count(text, `class="band"`), strings.Count(text, `class="network idle"`))
		}
	}
}

// TestEmpty draws a run in which nothing happened.
func TestEmpty(t *testing.T) {
	for _, d := range []*report.Data{{}, {Length: time.Second}, {Length: time.Hour, Pass: true}} {
		page, err := report.Render(d)
		if err != nil || strings.Contains(string(page), "NaN") {
			t.Errorf("%v: %v", d.Length, err)
		}
	}
}
