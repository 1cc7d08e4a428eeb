package hideids

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// TestHandler: whatever a line has of the customer it is about, and of aggregates, is hidden.
func TestHandler(t *testing.T) {
	for _, id := range []string{"Bayley", "a", "my id", `q"uote`, "0123456789abcdef", "a.b*c", "Zoë"} {
		var out bytes.Buffer
		log := slog.New(Handler(slog.NewTextHandler(&out, nil)))
		failure := fmt.Errorf("roots of %s:LicenseAggregate: customer %s: %w", id, id, errors.New("corrupt"))
		log.Warn("customer "+id+" failed",
			"customer", id, "path", "/dashboard/customers/"+id+"/devices", "error", failure,
			"count", 3, slog.Group("row", "key", id+":LicenseAggregate@3"))
		log.With("customer", id).WithGroup("g").Warn("later", "error", failure)
		words := strings.FieldsFunc(out.String(),
			func(r rune) bool { return !ofWord(r) && !strings.ContainsRune(id, r) })
		for _, word := range words {
			if word == id {
				t.Errorf("%q is in %s", id, out.String())
				break
			}
		}
		if n := strings.Count(out.String(), Hash(id)); n != 9 {
			t.Errorf("%q: %d times its hash in %s", id, n, out.String())
		}
	}
	var out bytes.Buffer
	slog.New(Handler(slog.NewTextHandler(&out, nil))).Warn("no customer is named", "error",
		errors.New("append Bayley:LicenseAggregate: row Matt:LicenseAggregate:3"), "title", "Bayley")
	if got := out.String(); strings.Contains(got, "Matt") || strings.Count(got, "Bayley") != 1 ||
		!strings.Contains(got, Hash("Bayley")+":LicenseAggregate") {
		t.Errorf("%s", got)
	}
}

// TestText hides words, and not what contains them.
func TestText(t *testing.T) {
	for in, want := range map[string]string{
		"a and a": Hash("a") + " and " + Hash("a"), "banana": "banana", "a": Hash("a"), "": "",
		"(a)": "(" + Hash("a") + ")",
	} {
		if got := Text(in, "a"); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzText(f *testing.F) {
	f.Add("customer Bayley: Bayley:LicenseAggregate", "Bayley")
	f.Add("\x00\xff", "\xff")
	f.Fuzz(func(t *testing.T, text, id string) {
		if got := hide(text, id); id == "" && !strings.Contains(text, suffix) && got != text {
			t.Errorf("%q became %q", text, got)
		}
		if got := Text(text, id); Text(got, id) != got && !strings.Contains(Hash(id), id) {
			t.Errorf("%q of %q keeps %q", got, text, id)
		}
	})
}
