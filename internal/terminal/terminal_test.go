package terminal

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestTable(t *testing.T) {
	var b bytes.Buffer
	tab := NewTable(&b, 30, "NAME", ">N", "TEXT")
	for _, row := range [][]string{{"Zoë", "1", "short"}, {"日本", "1000", "a text that does not fit into the line"},
		{"a\x1b[31m", "2", "b\nc"}, {"\u202egpj", "3", "zero\u200bwidth"}} {
		if err := tab.Row(row...); err != nil {
			t.Fatal(err)
		}
	}
	if err := tab.Flush(); err != nil {
		t.Fatal(err)
	}
	want := "NAME            N  TEXT\nZoë             1  short\n日本         1000  a text tha…\n" +
		"a\\u001b[31m     2  b\\u000ac\n\\u202egpj       3  zero\\u200b…\n"
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
	for line := range strings.Lines(b.String()) {
		if Width(strings.TrimSuffix(line, "\n")) > 30 {
			t.Errorf("too long: %s", line)
		}
	}
	b.Reset()
	if err := NewTable(&b, 0, "NOTHING").Flush(); err != nil || b.Len() > 0 {
		t.Errorf("a table without rows: %q, %v", b.String(), err)
	}
	// More rows than widths come from.
	tab = NewTable(&b, 0, "N", "X")
	for i := range settleAfter + 10 {
		if err := tab.Row(fmt.Sprint(i), "x"); err != nil {
			t.Fatal(err)
		}
	}
	if err := tab.Flush(); err != nil || strings.Count(b.String(), "\n") != settleAfter+11 {
		t.Errorf("%d lines, %v", strings.Count(b.String(), "\n"), err)
	}
}

func TestWrapAndCut(t *testing.T) {
	for _, columns := range []int{0, 5, 12, 80} {
		lines := Wrap("the quick brown fox jumps over the lazy dog", columns)
		if got := strings.Join(lines, " "); got != "the quick brown fox jumps over the lazy dog" {
			t.Errorf("%d: %q", columns, got)
		}
		for _, l := range lines {
			if columns > 0 && Width(l) > columns {
				t.Errorf("%d: %q", columns, l)
			}
		}
	}
	if got := Cut("日本語", 5); got != "日本…" {
		t.Errorf("cut to %q", got)
	}
}

// TestEscape: what a terminal would obey or hide is shown, and what it shows stays as it is.
func TestEscape(t *testing.T) {
	for text, want := range map[string]string{
		"Bayley": "Bayley", "Zoë 日本 🎬 e\u0301": "Zoë 日本 🎬 e\u0301", "a\\b": "a\\b", "\xff\ufffd": "\xff\ufffd",
		"a\x1b[2J":         `a\u001b[2J`,
		"\u202eevil":       `\u202eevil`,
		"a\u200bb":         `a\u200bb`,
		"\x7f\u0085\ufeff": `\u007f\u0085\ufeff`,
		"\U000e0041":       `\udb40\udc41`, "line\u2028end": `line\u2028end`, "a\tb\n": `a\u0009b\u000a`,
	} {
		if got := Escape(text); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}

// TestWriter: JSON stays JSON of the same meaning, and lines stay lines.
func TestWriter(t *testing.T) {
	const id = "a\u202eb\U000e0041\u007f"
	text, err := json.Marshal(id)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if n, err := fmt.Fprintf(Writer(&out), "%s\n\t", text); err != nil || n != len(text)+2 {
		t.Fatalf("%d bytes, %v", n, err)
	}
	line, rest, _ := strings.Cut(out.String(), "\n")
	var back string
	if err := json.Unmarshal([]byte(line), &back); err != nil || back != id || rest != "\t" ||
		line != `"a\u202eb\udb40\udc41\u007f"` {
		t.Errorf("%q is %q, %v", out.String(), back, err)
	}
}

// TestWriterOfPieces: a character may come in several pieces.
func TestWriterOfPieces(t *testing.T) {
	const text = "Zoë \u202e日本 🎬 \xff\n"
	var whole, pieces bytes.Buffer
	if _, err := Writer(&whole).Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	w := Writer(&pieces)
	for i := range len(text) {
		if n, err := w.Write([]byte{text[i]}); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}
	if want := "Zoë \\u202e日本 🎬 \xff\n"; whole.String() != want || pieces.String() != want {
		t.Errorf("%q, %q, want %q", whole.String(), pieces.String(), want)
	}
}
