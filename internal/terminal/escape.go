package terminal

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Escape replaces each character that has no glyph of its own, like U+001B, U+202E or U+200B, by its number as JSON
// writes it (\u202e): it would move the cursor, reorder the line, or make two ids look the same.
func Escape(s string) string { return escape(s, "") }

// Writer returns a writer that escapes like Escape, except tabs and the ends of lines. What is valid JSON stays so, and
// means the same. The output must end with a complete character.
func Writer(w io.Writer) io.Writer { return &escaping{w: w} }

// escaping is the writer of [Writer].
type escaping struct {
	w    io.Writer
	held []byte // the beginning of a character whose other bytes come with the next call
}

// Write implements io.Writer. A character that is split between two calls is written with
// the second.
func (e *escaping) Write(b []byte) (int, error) {
	text := append(e.held, b...)
	whole := len(text)
	for n := 1; n < utf8.UTFMax && n <= len(text); n++ {
		if last := text[len(text)-n:]; utf8.RuneStart(last[0]) {
			if !utf8.FullRune(last) {
				whole -= n
			}
			break
		}
	}
	e.held = append([]byte(nil), text[whole:]...)
	if _, err := io.WriteString(e.w, escape(string(text[:whole]), "\t\n")); err != nil {
		return 0, err
	}
	return len(b), nil
}

// escape is Escape, except for the characters to keep.
func escape(s, keep string) string {
	visible := func(r rune) bool { return strconv.IsGraphic(r) || strings.ContainsRune(keep, r) }
	if strings.IndexFunc(s, func(r rune) bool { return !visible(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError:
			_, n := utf8.DecodeRuneInString(s[i:])
			b.WriteString(s[i : i+n]) // bytes that are no character stay as they are
		case visible(r):
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}
