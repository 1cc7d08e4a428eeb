package alerts

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
)

const (
	dashboards  = "../../deploy/grafana/dashboards/*.json"
	datasources = "../../deploy/grafana/provisioning/datasources/prometheus.yml"
)

// dashboard has all that ours have, in Grafana's words: a field that is not here is a slip of the pen, or
// is to be added.
type dashboard struct {
	UID           string   `json:"uid"`
	Title         string   `json:"title"`
	Tags          []string `json:"tags"`
	Timezone      string   `json:"timezone"`
	SchemaVersion int      `json:"schemaVersion"`
	Version       int      `json:"version"`
	Refresh       string   `json:"refresh"`
	Editable      bool     `json:"editable"`
	Time          struct {
		From string `json:"from"`
		To   string `json:"to"`
	} `json:"time"`
	Templating struct {
		List []variable `json:"list"`
	} `json:"templating"`
	Panels []panel `json:"panels"`
}

type variable struct {
	Name       string     `json:"name"`
	Label      string     `json:"label"`
	Type       string     `json:"type"`
	Datasource datasource `json:"datasource"`
	Query      struct {
		Query string `json:"query"`
		RefID string `json:"refId"`
	} `json:"query"`
	Refresh    int  `json:"refresh"`
	Multi      bool `json:"multi"`
	IncludeAll bool `json:"includeAll"`
	Current    struct {
		Text  string `json:"text"`
		Value string `json:"value"`
	} `json:"current"`
	AllValue string `json:"allValue"`
}

type datasource struct {
	Type string `json:"type"`
	UID  string `json:"uid"`
}

type panel struct {
	ID          int        `json:"id"`
	Type        string     `json:"type"`
	Title       string     `json:"title"`
	Description string     `json:"description"`
	Collapsed   bool       `json:"collapsed"`
	Panels      []panel    `json:"panels"`
	Datasource  datasource `json:"datasource"`
	GridPos     struct {
		X int `json:"x"`
		Y int `json:"y"`
		W int `json:"w"`
		H int `json:"h"`
	} `json:"gridPos"`
	FieldConfig struct {
		Defaults  map[string]any `json:"defaults"`
		Overrides []any          `json:"overrides"`
	} `json:"fieldConfig"`
	Options map[string]any `json:"options"`
	Targets []target       `json:"targets"`
}

type target struct {
	RefID        string `json:"refId"`
	Expr         string `json:"expr"`
	LegendFormat string `json:"legendFormat"`
}

// units are those of Grafana's that dashboards use; a panel with another would show bare numbers.
var units = map[string]bool{"short": true, "reqps": true, "ops": true, "s": true, "bytes": true, "percentunit": true}

// options of the kinds of panels, by the names that Grafana has for them.
var options = map[string]string{"stat": "reduceOptions colorMode graphMode", "timeseries": "legend tooltip"}

// loadDashboards reads all dashboards.
func loadDashboards(t *testing.T) map[string]*dashboard {
	t.Helper()
	files, err := filepath.Glob(dashboards)
	if err != nil || len(files) == 0 {
		t.Fatalf("no dashboards: %v", err)
	}
	all := make(map[string]*dashboard)
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		d, decoder := new(dashboard), json.NewDecoder(bytes.NewReader(b))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(d); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all[filepath.Base(file)] = d
	}
	return all
}

// TestDashboards sees that dashboards are what Grafana expects: places that do not overlap, ids once
// each, the source of data that is provisioned, variables that there are.
func TestDashboards(t *testing.T) {
	sources, err := os.ReadFile(datasources)
	if err != nil {
		t.Fatal(err)
	}
	for file, d := range loadDashboards(t) {
		if d.UID == "" || d.Title == "" || d.SchemaVersion < 36 || len(d.Panels) == 0 {
			t.Errorf("%s: uid %q, title %q, schema %d, %d panels", file, d.UID, d.Title, d.SchemaVersion, len(d.Panels))
		}
		defined := map[string]bool{"__rate_interval": true}
		for _, v := range d.Templating.List {
			defined[v.Name] = true
			known(t, file+": variable "+v.Name, v.Query.Query)
		}
		ids, places := make(map[int]bool), make(map[[2]int]string)
		for _, p := range d.Panels {
			where := fmt.Sprintf("%s: panel %d %q", file, p.ID, p.Title)
			if p.ID == 0 || ids[p.ID] {
				t.Errorf("%s: its id is 0 or another's", where)
			}
			ids[p.ID] = true
			g := p.GridPos
			if g.W < 1 || g.H < 1 || g.X < 0 || g.X+g.W > 24 {
				t.Errorf("%s is outside of the grid: %+v", where, g)
			}
			for x := g.X; x < g.X+g.W; x++ {
				for y := g.Y; y < g.Y+g.H; y++ {
					if other := places[[2]int{x, y}]; other != "" {
						t.Fatalf("%s lies on %s", where, other)
					}
					places[[2]int{x, y}] = where
				}
			}
			if p.Type != "row" {
				checkPanel(t, where, &p, string(sources), defined)
			}
		}
	}
}

var used = regexp.MustCompile(`\$(\w+)`)

// checkPanel looks at what a panel shows.
func checkPanel(t *testing.T, where string, p *panel, sources string, defined map[string]bool) {
	t.Helper()
	for name := range p.Options {
		if !strings.Contains(" "+options[p.Type]+" ", " "+name+" ") {
			t.Errorf("%s: %s has no option %s", where, p.Type, name)
		}
	}
	if unit, _ := p.FieldConfig.Defaults["unit"].(string); !units[unit] {
		t.Errorf("%s: unit %q", where, unit)
	}
	if p.Datasource.Type != "prometheus" || !strings.Contains(sources, "uid: "+p.Datasource.UID+"\n") {
		t.Errorf("%s: its data is to come from %v", where, p.Datasource)
	}
	if len(p.Targets) == 0 {
		t.Errorf("%s asks for nothing", where)
	}
	refs := make(map[string]bool)
	for _, target := range p.Targets {
		if target.RefID == "" || refs[target.RefID] || target.LegendFormat == "" {
			t.Errorf("%s: query %q is there twice or has no legend", where, target.RefID)
		}
		refs[target.RefID] = true
		for _, v := range used.FindAllStringSubmatch(target.Expr, -1) {
			if !defined[v[1]] {
				t.Errorf("%s: there is no variable %s", where, v[1])
			}
		}
		known(t, where, target.Expr)
	}
}

// loadScrapes returns what was scraped, first and last, as if a minute had passed between.
func loadScrapes(t *testing.T, directory string) storage.Queryable {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(directory, "*.before.prom"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no scrapes in %s: %v", directory, err)
	}
	var series strings.Builder
	series.WriteString("load 1m\n")
	for _, before := range files {
		process := strings.TrimSuffix(filepath.Base(before), ".before.prom")
		old := samples(t, before, process)
		for name, value := range samples(t, strings.Replace(before, ".before.", ".after.", 1), process) {
			first, ok := old[name]
			if !ok {
				first = "_"
			}
			fmt.Fprintf(&series, "\t%s %s %s %s\n", name, first, value, value)
		}
	}
	s := promqltest.LoadedStorage(t, series.String())
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// samples reads a scrape: values by series, with the labels that Prometheus adds.
func samples(t *testing.T, file, process string) map[string]string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]string)
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		space := strings.LastIndexByte(line, ' ')
		if space < 0 || strings.HasPrefix(line, "#") {
			continue
		}
		name, labels, _ := strings.Cut(strings.TrimSuffix(line[:space], "}"), "{")
		if labels != "" && !strings.HasSuffix(labels, ",") {
			labels += ","
		}
		all[fmt.Sprintf("%s{%sjob=%q,instance=%q}", name, labels, "licensed", process)] = line[space+1:]
	}
	return all
}

// silent are queries that find nothing in the scrapes, with the reason.
var silent = map[string]string{
	"Requests to owners B": "no attempt was repeated",
	"Writes that failed A": "only Cassandra has such",
}

// TestQueries asks what panels ask of a running cluster, and wants numbers.
func TestQueries(t *testing.T) {
	directory := os.Getenv("LICENSED_SCRAPES")
	if directory == "" {
		t.Skip("LICENSED_SCRAPES names no directory; make test-alerts fills one")
	}
	data := loadScrapes(t, directory)
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1e6, Timeout: time.Minute})
	for file, d := range loadDashboards(t) {
		for _, p := range d.Panels {
			for _, target := range p.Targets {
				where := p.Title + " " + target.RefID
				expr := strings.NewReplacer("$__rate_interval", "4m", "$instance", ".*").Replace(target.Expr)
				q, err := engine.NewInstantQuery(context.Background(), data, nil, expr, time.Unix(120, 0))
				if err != nil {
					t.Errorf("%s: %s: %v", file, where, err)
					continue
				}
				result := q.Exec(context.Background())
				v, err := result.Vector()
				if err != nil {
					t.Errorf("%s: %s: %v", file, where, err)
				}
				numbers := 0
				for _, s := range v {
					if !math.IsNaN(s.F) && !math.IsInf(s.F, 0) {
						numbers++
					}
				}
				q.Close()
				if _, known := silent[where]; (numbers == 0) != known {
					t.Errorf("%s: %s: %d numbers: %s", file, where, numbers, expr)
				}
			}
		}
	}
}

// panelIDs returns the ids of the panels of the dashboard licensed, as links to them have.
func panelIDs(t *testing.T) map[string]bool {
	t.Helper()
	content, err := os.ReadFile("../../deploy/grafana/dashboards/licensed.json")
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(content, &d); err != nil || d.UID != "licensed" {
		t.Fatalf("dashboard %q: %v", d.UID, err)
	}
	ids := map[string]bool{}
	var add func([]panel)
	add = func(panels []panel) {
		for _, p := range panels {
			ids[fmt.Sprint(p.ID)] = p.Type != "row"
			add(p.Panels)
		}
	}
	add(d.Panels)
	return ids
}
