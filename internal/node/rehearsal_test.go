package node_test

import (
	"os"
	"path/filepath"
	"testing"

	"licensed/internal/node"
)

// scrapers fetch what Prometheus gets from processes, by the names of these.
type scrapers map[string]func() string

// scraped returns the scraper of a process without TLS.
func scraped(t *testing.T, n *node.Node) func() string {
	return func() string {
		t.Helper()
		_, text := get(t, n.Admin().String(), "/metrics")
		return text
	}
}

// rehearse keeps what processes tell before something that alerts are for. The function that it returns keeps what they
// tell then; processes that are missing do not answer any more. tools/alerts demands that the alerts are quiet on the
// former and fire on the latter; `make test-alerts` runs both. Without LICENSED_SCRAPES it does nothing.
func rehearse(t *testing.T, before scrapers, alerts ...string) (during func(scrapers)) {
	t.Helper()
	directory := os.Getenv("LICENSED_SCRAPES")
	if directory == "" {
		return func(scrapers) {}
	}
	keep := func(processes scrapers, when string) {
		t.Helper()
		for name, scrape := range processes {
			text := scrape()
			for _, alert := range alerts {
				dir := filepath.Join(directory, "alerts", alert)
				if err := os.MkdirAll(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, name+"."+when+".prom"), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	keep(before, "before")
	return func(processes scrapers) {
		t.Helper()
		keep(processes, "during")
	}
}
