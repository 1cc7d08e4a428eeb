package dashboard

import (
	"bytes"
	"fmt"
	"html/template"
	"net/http"
	"regexp"
	"strings"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/parser"
)

// elsewhere are links to documents that the dashboard does not have.
var elsewhere = regexp.MustCompile(`\[([^\]]+)\]\([^)#:][^):]*\)`)

// renderRunbook returns a document as HTML. Headings have the anchors that findings name. HTML in the document is not
// passed on.
func renderRunbook(markdown []byte) (template.HTML, error) {
	md := goldmark.New(goldmark.WithExtensions(extension.Table), goldmark.WithParserOptions(parser.WithAutoHeadingID()))
	var b bytes.Buffer
	// Links to other documents become their text.
	if err := md.Convert(elsewhere.ReplaceAll(markdown, []byte("$1")), &b); err != nil {
		return "", fmt.Errorf("runbook: %w", err)
	}
	// What scrolls, a keyboard must reach.
	html := strings.NewReplacer(
		"<pre>", `<pre tabindex="0">`, "<table>", `<div class="scroll" tabindex="0"><table>`, "</table>",
		"</table></div>",
	).Replace(b.String())
	return template.HTML(html), nil //nolint:gosec // Made of a file of this repository.
}

// runbook shows what to do about findings and alerts.
func (d *Dashboard) runbook(w http.ResponseWriter, _ *http.Request) error {
	return d.render(w, http.StatusOK, "runbook", "", view{Title: "Runbook", Section: "runbook", Body: d.runbookPage})
}
