package main

import (
	"bufio"
	"io"
	"strings"
	"unicode"

	"golang.org/x/text/width"
)

// table prints rows in columns. On a terminal its last column is cut to what is left of the line. The
// widths come from the first rows, so that a table of any length can be printed as it comes.
type table struct {
	out     *bufio.Writer
	limit   int // of a line, 0 for none
	right   []bool
	widths  []int
	waiting [][]string
	settled bool
	rows    int
}

// settleAfter is the number of rows the widths come from.
const settleAfter = 500

// newTable prints a table with these titles; a title that begins with ">" is of a column that is
// aligned to the right.
func (p *program) newTable(titles ...string) *table { return newTable(p.stdout, p.width(), titles...) }

func newTable(w io.Writer, limit int, titles ...string) *table {
	t := &table{out: bufio.NewWriter(w), limit: limit}
	header := make([]string, len(titles))
	for i, title := range titles {
		text, right := strings.CutPrefix(title, ">")
		header[i] = text
		t.right = append(t.right, right)
	}
	t.widths = make([]int, len(titles))
	t.waiting = append(t.waiting, header)
	return t
}

// row adds a row.
func (t *table) row(cells ...string) error {
	for i := range cells {
		cells[i] = printable(cells[i])
	}
	t.rows++
	if t.settled {
		return t.print(cells)
	}
	t.waiting = append(t.waiting, cells)
	if len(t.waiting) <= settleAfter {
		return nil
	}
	return t.settle()
}

// few adds a row to a table that is printed by flush alone.
func (t *table) few(cells ...string) {
	for i := range cells {
		cells[i] = printable(cells[i])
	}
	t.rows++
	t.waiting = append(t.waiting, cells)
}

// flush prints what is left, and nothing at all if there was no row.
func (t *table) flush() error {
	if t.rows > 0 && !t.settled {
		if err := t.settle(); err != nil {
			return err
		}
	}
	return t.out.Flush()
}

func (t *table) settle() error {
	t.settled = true
	for _, row := range t.waiting {
		for i, cell := range row {
			t.widths[i] = max(t.widths[i], textWidth(cell))
		}
	}
	for _, row := range t.waiting {
		if err := t.print(row); err != nil {
			return err
		}
	}
	t.waiting = nil
	return nil
}

func (t *table) print(cells []string) error {
	var b strings.Builder
	used := 0
	for i, cell := range cells {
		last := i == len(cells)-1
		if last && t.limit > 0 {
			cell = cut(cell, max(t.limit-used, 8))
		}
		pad := strings.Repeat(" ", max(0, t.widths[i]-textWidth(cell)))
		switch {
		case t.right[i]:
			b.WriteString(pad + cell)
		case last:
			b.WriteString(cell)
		default:
			b.WriteString(cell + pad)
		}
		if !last {
			b.WriteString("  ")
		}
		used += t.widths[i] + 2
	}
	_, err := t.out.WriteString(strings.TrimRight(b.String(), " ") + "\n")
	return err
}

// printable replaces what would move the cursor.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '\uFFFD'
		}
		return r
	}, s)
}

// textWidth returns the number of columns of a terminal a text takes.
func textWidth(s string) int {
	n := 0
	for _, r := range s {
		n += runeWidth(r)
	}
	return n
}

func runeWidth(r rune) int {
	switch {
	case r < 0x80:
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		return 0
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	default:
		return 1
	}
}

// cut shortens a text to so many columns.
func cut(s string, columns int) string {
	if textWidth(s) <= columns {
		return s
	}
	n := 0
	for i, r := range s {
		if n += runeWidth(r); n > columns-1 {
			return s[:i] + "…"
		}
	}
	return s
}

// wrap breaks a text into lines of at most so many columns; 0 for no limit.
func wrap(s string, columns int) []string {
	if columns <= 0 || textWidth(s) <= columns {
		return []string{s}
	}
	var lines []string
	line := ""
	for _, word := range strings.Fields(s) {
		if line != "" && textWidth(line)+1+textWidth(word) > columns {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
