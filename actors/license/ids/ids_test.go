package ids_test

import (
	"strings"
	"testing"

	"licensed/actors/license/ids"
)

func FuzzFault(f *testing.F) {
	for _, s := range []string{"", "a", "a:b", "ä/", "\x00", "\u0085", "\xff", "日本", strings.Repeat("x", 200)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, id string) {
		want := id == "" || len(id) > ids.MaxBytes ||
			strings.ContainsAny(id, ":/") || strings.ToValidUTF8(id, "") != id ||
			strings.ContainsFunc(id, func(r rune) bool { return r < ' ' || r >= 0x7f && r <= 0x9f })
		if got := ids.Fault(id, ids.MaxBytes); (got != "") != want {
			t.Errorf("%q: fault %q, want any: %v", id, got, want)
		}
	})
}
