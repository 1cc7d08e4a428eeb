package e2e_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"licensed/internal/harness"
)

var update = flag.Bool("update", false, "write the outputs that TestAPIDocument gets into docs/reference/api.md")

// An example is a request as it stands in the document, and the output below it.
var example = regexp.MustCompile("(?s)(```console\n\\$ curl -d '([^']*)' [^`]*?/([A-Za-z]+)\n)(.*?)```")

// What differs from run to run.
var varying = regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:.]+Z|"value":"[^"]*"`)

// TestAPIDocument sends the requests of docs/reference/api.md, in order, and compares the outputs.
func TestAPIDocument(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "reference", "api.md")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	document := string(content)
	d := start(t, filepath.Join(t.TempDir(), "data"))
	examples := example.FindAllStringSubmatch(document, -1)
	if len(examples) != strings.Count(document, "$ curl") || len(examples) < 9 {
		t.Fatalf("%d examples are understood, the document has %d", len(examples), strings.Count(document, "$ curl"))
	}
	for _, e := range examples {
		request, body, method, want := e[1], e[2], e[3], e[4]
		_, reply := d.post(method, body)
		if *update {
			document = strings.Replace(document, e[0], request+pretty(t, reply)+"\n```", 1)
		} else if fixed(t, want) != fixed(t, reply) {
			t.Errorf("%s %s: the document says\n%s\nthe daemon\n%s", method, body, want, pretty(t, reply))
		}
	}
	if *update {
		if err := os.WriteFile(path, []byte(document), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestMetricsAreDocumented demands that docs/reference/metrics.md lists every metric.
func TestMetricsAreDocumented(t *testing.T) {
	document, err := os.ReadFile(filepath.Join("..", "..", "docs", "reference", "metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, metrics := harness.Get(t, "http://"+start(t, filepath.Join(t.TempDir(), "data")).Admin+"/metrics")
	names := regexp.MustCompile(`(?m)^# TYPE (licensed_\w+) `).FindAllStringSubmatch(metrics, -1)
	if len(names) == 0 {
		t.Fatal("there are none")
	}
	for _, name := range names {
		if !strings.Contains(string(document), "`"+name[1]+"`") {
			t.Errorf("docs/reference/metrics.md does not list %s", name[1])
		}
	}
}

// pretty returns JSON as the document shows it: on one line if it is short.
func pretty(t *testing.T, reply string) string {
	t.Helper()
	var short, long bytes.Buffer
	if err := errors.Join(json.Compact(&short, []byte(reply)),
		json.Indent(&long, []byte(reply), "", "  ")); err != nil {
		t.Fatalf("%q: %v", reply, err)
	}
	if short.Len() <= 120 {
		return short.String()
	}
	return long.String()
}

// fixed returns JSON in one form, without what varies.
func fixed(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	if err := json.Compact(&b, []byte(text)); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return varying.ReplaceAllString(b.String(), "…")
}
