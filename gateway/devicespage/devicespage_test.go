package devicespage

import (
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func get(t *testing.T, method, path string, origins ...string) *http.Response {
	t.Helper()
	w := httptest.NewRecorder()
	Handler(origins).ServeHTTP(w, httptest.NewRequest(method, path, nil))
	res := w.Result()
	if err := res.Body.Close(); err != nil {
		t.Fatal(err)
	}
	return res
}

// TestFraming lets the origins of the setting, and no others, show the page.
func TestFraming(t *testing.T) {
	for want, origins := range map[string][]string{
		"frame-ancestors 'self'":                                    {Self},
		"frame-ancestors https://tv.example":                        {"https://tv.example"},
		"frame-ancestors 'self' https://tv.example http://[::1]:80": {Self, "https://tv.example", "http://[::1]:80"},
	} {
		for path := range map[string]bool{Path: true, Path + "devices.js": true, Path + "devices.css": true} {
			res := get(t, "GET", path, origins...) //nolint:bodyclose // get closes it
			csp := res.Header.Get("Content-Security-Policy")
			if res.StatusCode != http.StatusOK || !strings.HasSuffix(csp, "; "+want) || len(res.Cookies()) > 0 ||
				res.Header.Get("Referrer-Policy") != "no-referrer" ||
				res.Header.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%s for %v: %d %v, want %s", path, origins, res.StatusCode, res.Header, want)
			}
			for _, part := range []string{"default-src 'none'", "script-src 'self'", "connect-src 'self'"} {
				if !strings.Contains(csp, part) || strings.Contains(csp, "unsafe") {
					t.Errorf("%s: %s, want %s and nothing inline", path, csp, part)
				}
			}
		}
	}
	//nolint:bodyclose // get closes it
	if res := get(t, "POST", Path, Self); res.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", res.StatusCode)
	}
	//nolint:bodyclose // get closes it
	if res := get(t, "GET", Path+"index.html", Self); res.StatusCode != http.StatusNotFound {
		t.Errorf("another file: %d", res.StatusCode)
	}
}

func TestCheckOrigin(t *testing.T) {
	for _, good := range []string{Self, "https://tv.example", "http://localhost:8080"} {
		if err := CheckOrigin(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", "*", "tv.example", "https://*.tv.example", "https://tv.example/", "https://tv.example; script-src *",
		"https://tv.example,https://other.example", "data:text/html", "https://tv'.example", "null",
	} {
		if err := CheckOrigin(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

// TestWeight bounds what a customer loads.
func TestWeight(t *testing.T) {
	n := len(page([]string{"https://tv.example"}))
	for name := range files {
		n += len(read(name))
	}
	if n > 20_000 {
		t.Errorf("%d bytes, want at most 20,000", n)
	}
}

// TestProperties: the script sets the properties that the style sheet has, and the guide lists them.
func TestProperties(t *testing.T) {
	guide, err := os.ReadFile("../../docs/guide/devices-page.md")
	if err != nil {
		t.Fatal(err)
	}
	var properties []string
	for _, m := range regexp.MustCompile(`--devices-([a-z-]+):`).FindAllStringSubmatch(string(read("devices.css")), -1) {
		properties = append(properties, m[1])
	}
	slices.Sort(properties)
	for _, p := range slices.Compact(properties) {
		if !strings.Contains(string(read("devices.js")), `"`+p+`"`) && p != "radius" && p != "font" {
			t.Errorf("the script does not set %s", p)
		}
		if !strings.Contains(string(guide), "| `"+p+"` |") {
			t.Errorf("the guide does not list %s", p)
		}
	}
}
