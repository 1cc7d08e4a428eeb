package terminal

import (
	"bufio"
	"io"
	"strings"

	"github.com/charmbracelet/x/ansi"
)

// Table prints rows in columns. On a terminal its last column is cut to what is left of
// the line. The widths come from the first rows, so that a table of any length can be
// printed as it comes. It is used by one goroutine.
type Table struct {
	out    *bufio.Writer
	limit  int // of a line, 0 for none
	right  []bool
	widths []int
	// Rows that are not printed yet, the titles first.
	waiting [][]string
	// Whether the widths are decided.
	settled bool
	rows    int
}

// settleAfter is the number of rows the widths come from.
const settleAfter = 500

// NewTable prints a table with these titles to w, with lines of at most limit columns; 0 for no limit. A title that
// begins with ">" is of a column that is aligned to the right.
func NewTable(w io.Writer, limit int, titles ...string) *Table {
	t := &Table{out: bufio.NewWriter(w), limit: limit}
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

// Row adds a row, and may print it.
func (t *Table) Row(cells ...string) error {
	t.Add(cells...)
	if len(t.waiting) <= settleAfter && !t.settled {
		return nil
	}
	return t.settle()
}

// Add adds a row that only Flush prints, or the next call of Row.
func (t *Table) Add(cells ...string) {
	for i := range cells {
		cells[i] = Escape(cells[i])
	}
	t.rows++
	t.waiting = append(t.waiting, cells)
}

// Empty reports whether no row was added.
func (t *Table) Empty() bool { return t.rows == 0 }

// Flush prints what is left, and nothing at all if there was no row.
func (t *Table) Flush() error {
	if !t.Empty() {
		if err := t.settle(); err != nil {
			return err
		}
	}
	return t.out.Flush()
}

// settle prints the rows that wait; the first ones decide the widths.
func (t *Table) settle() error {
	if !t.settled {
		for _, row := range t.waiting {
			for i, cell := range row {
				t.widths[i] = max(t.widths[i], Width(cell))
			}
		}
	}
	t.settled = true
	for _, row := range t.waiting {
		if err := t.print(row); err != nil {
			return err
		}
	}
	t.waiting = t.waiting[:0]
	return nil
}

// print writes a row. Cells wider than their column push the rest of the row to the
// right.
func (t *Table) print(cells []string) error {
	var b strings.Builder
	used := 0
	for i, cell := range cells {
		last := i == len(cells)-1
		if last && t.limit > 0 {
			cell = Cut(cell, max(t.limit-used, 8))
		}
		pad := strings.Repeat(" ", max(0, t.widths[i]-Width(cell)))
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

// Width returns the number of columns that a text takes on a terminal.
func Width(s string) int { return ansi.StringWidth(s) }

// Cut shortens a text to a number of columns; the last one then is "…".
func Cut(s string, columns int) string { return ansi.Truncate(s, columns, "…") }

// Wrap breaks a text into lines of at most this many columns; 0 for no limit.
func Wrap(s string, columns int) []string {
	if columns <= 0 || Width(s) <= columns {
		return []string{s}
	}
	var lines []string
	line := ""
	for _, word := range strings.Fields(s) {
		if line != "" && Width(line)+1+Width(word) > columns {
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
