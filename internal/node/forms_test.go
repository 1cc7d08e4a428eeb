package node_test

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// FuzzForms gives the pages of the dashboard any values of their forms. A page always comes, and nothing of the values
// becomes part of its markup.
func FuzzForms(f *testing.F) {
	c, _ := configOf(f)
	n := start(f, c)
	if err := acquireOf(f.Context(), n, "Bayley", "a"); err != nil {
		f.Fatal(err)
	}
	base := "http://" + n.Admin().String() + "/dashboard/"
	pages := []string{"customer", "customer/events.json", "customers", "devices", "devices/remove"}
	f.Add(uint8(0), "Bayley", "iphone", "GlowS01E01", "1", "1", "acquire")
	f.Add(uint8(0), "Bayley", "<q>", "\"><script>", "2026-01-01T00:00:00Z", "-1", "\x00")
	f.Add(uint8(3), "\xff", "iphone", "", "18446744073709551616", "9999-12-31", "renew")
	f.Add(uint8(2), "a/b", "..", "%2e", "", "1e309", "")
	f.Fuzz(func(t *testing.T, page uint8, id, device, title, at, after, command string) {
		values := url.Values{"id": {id}, "at": {at}, "after": {after}, "late": {at}, "part": {after}, "reason": {title},
			"device": {device}, "command": {command}, "ended": {device},
			"try": {command}, "trydevice": {device}, "trytitle": {title}, "tryplan": {device},
			"whydevice": {device}, "whytitle": {title}}
		res, err := http.Get(base + pages[int(page)%len(pages)] + "?" + values.Encode())
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode >= 500 {
			t.Errorf("%d, %v: %s", res.StatusCode, err, body)
		}
		for _, v := range []string{id, device, title, at, after, command} {
			if marked := strings.Contains(v, "<q"); marked && strings.Contains(string(body), v) &&
				strings.HasPrefix(res.Header.Get("Content-Type"), "text/html") {
				t.Errorf("%q is in the page as it was given", v)
			}
		}
	})
}
