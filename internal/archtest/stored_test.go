package archtest

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// layoutConst is how a package names a stored form: by the first byte of its encoding.
var layoutConst = regexp.MustCompile(`(?m)^(?:const )?\s*(layout[A-Z]\w*)\s*=\s*(0x[0-9a-f]+)\b`)

// TestEveryStoredFormHasAGoldenFile demands, for every layout number below persistence, a file in the
// testdata of its package with bytes that begin with it: what was stored once is read forever, and a new
// form does not get by without being remembered.
func TestEveryStoredFormHasAGoldenFile(t *testing.T) {
	found := 0
	eachFile(t, ".go", func(name, text string) {
		if !strings.Contains(filepath.ToSlash(name), "/persistence/") || strings.HasSuffix(name, "_test.go") {
			return
		}
		for _, m := range layoutConst.FindAllStringSubmatch(text, -1) {
			found++
			number, err := strconv.ParseUint(m[2], 0, 8)
			if err != nil {
				t.Fatal(err)
			}
			if !hasGolden(t, filepath.Join(filepath.Dir(name), "testdata"), byte(number)) {
				t.Errorf("%s: %s = %s has no golden file in %s/testdata: store one of its bytes and test that "+
					"it is read",
					name, m[1], m[2], filepath.Dir(name))
			}
		}
	})
	if found < 10 {
		t.Errorf("only %d stored forms were found: are they named otherwise now?", found)
	}
}

// hasGolden reports whether a directory has a golden file of bytes that begin with a layout number.
func hasGolden(t *testing.T, dir string, layout byte) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // a directory
		}
		if strings.HasSuffix(f, ".hex") {
			if b, err = hex.DecodeString(strings.TrimSpace(string(b))); err != nil {
				t.Errorf("%s: %v", f, err)
			}
		}
		if (strings.HasSuffix(f, ".hex") || strings.HasSuffix(f, ".bin")) && len(b) > 0 && b[0] == layout {
			return true
		}
	}
	return false
}
