// Package devicespage serves the page on which a customer of the service sees and removes the devices with downloads.
// A service embeds it in a frame, or links to it.
//
// # The model
//
// The page is static: HTML, a script and a style sheet, the same for everybody. The script calls the licence API of the
// same origin with the customer's own token, which it gets from the page around it (postMessage) or from the fragment
// of its address, and keeps in memory. So the page has no authority of its own, no session and no cookie, and what a
// customer may see is decided where the API decides it. See docs/design/devices-page.md.
package devicespage

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Path is where the page is, with what belongs to it below.
const Path = "/manage-devices/"

// Self stands, among the origins, for a page that is not in a frame, or in one of its own origin.
const Self = "self"

//go:embed static
var static embed.FS

// files are served beside the page, with their types.
var files = map[string]string{
	"devices.js": "text/javascript; charset=utf-8", "devices.css": "text/css; charset=utf-8",
}

// CheckOrigin returns what is wrong with an origin of the setting. Patterns are not accepted: the token of a customer
// is handed to the page by a page that must be known by its whole name.
func CheckOrigin(origin string) error {
	u, err := url.Parse(origin)
	if origin == Self || err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Hostname() != "" &&
		u.Scheme+"://"+u.Host == origin && !strings.ContainsAny(origin, "*;, '\"") {
		return nil
	}
	return fmt.Errorf("%q is neither an origin like https://app.example.com, without a path and *, nor %s",
		origin, Self)
}

// Handler serves the page below Path. Frames of the origins, and of no others, may show it; with only Self, none of
// another origin. The origins must be valid; * is none of them.
func Handler(origins []string) http.Handler {
	ancestors := "'none'"
	framing := slices.Clone(origins)
	if i := slices.Index(framing, Self); i >= 0 {
		framing[i] = "'self'"
	}
	if len(framing) > 0 {
		ancestors = strings.Join(framing, " ")
	}
	policy := "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; " +
		"form-action 'none'; base-uri 'none'; frame-ancestors " + ancestors
	mux := http.NewServeMux()
	serve := func(path, contentType string, content []byte) {
		sum := sha256.Sum256(content)
		etag := `"` + hex.EncodeToString(sum[:8]) + `"`
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			h := w.Header()
			h.Set("Content-Type", contentType)
			h.Set("Content-Security-Policy", policy)
			h.Set("X-Content-Type-Options", "nosniff")
			h.Set("Referrer-Policy", "no-referrer")
			h.Set("Cross-Origin-Opener-Policy", "same-origin")
			h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
			h.Set("Cache-Control", "no-cache")
			h.Set("Etag", etag)
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
		})
	}
	serve(Path+"{$}", "text/html; charset=utf-8", page(origins))
	for name, contentType := range files {
		serve(Path+name, contentType, read(name))
	}
	return mux
}

// page returns the page for the origins whose messages it accepts.
func page(origins []string) []byte {
	var b bytes.Buffer
	t := template.Must(template.New("page").Parse(string(read("index.html"))))
	embedding := slices.DeleteFunc(slices.Clone(origins), func(o string) bool { return o == Self })
	if err := t.Execute(&b, strings.Join(embedding, " ")); err != nil {
		panic(err) // The template and its data are in the program.
	}
	return b.Bytes()
}

// read returns a file that is in the program.
func read(name string) []byte {
	content, err := static.ReadFile("static/" + name)
	if err != nil {
		panic(err)
	}
	return content
}
