package dashboard

import (
	"bytes"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"strings"

	"connectrpc.com/connect"
)

// view is what every page gets.
type view struct {
	// Title of the page.
	Title string
	// Customer that the page is about, if it is about one.
	Customer string
	// Section is the entry of the navigation that the page belongs to.
	Section string
	// CanLogOut says that there is a session.
	CanLogOut bool
	// Outside says that the viewer was not admitted: the page leads nowhere.
	Outside bool
	// Body is the page's own.
	Body any
}

// parsePages parses the templates: each page is the layout with a main part of its own.
func parsePages() (map[string]*template.Template, error) {
	root := subtree("templates")
	layout, err := template.New("layout").Funcs(functions).ParseFS(root, "layout.html", "parts.html")
	if err != nil {
		return nil, err
	}
	pages := make(map[string]*template.Template)
	// Each page clones the layout, since all of them define the same name for their main
	// part.
	for _, name := range []string{
		"cluster", "runbook", "customers", "customer", "devices", "remove", "login", "error",
	} {
		page, err := template.Must(layout.Clone()).ParseFS(root, name+".html")
		if err != nil {
			return nil, err
		}
		pages[name] = page
	}
	return pages, nil
}

// render writes a page, or one of its parts.
func (d *Dashboard) render(w http.ResponseWriter, status int, page, part string, v view) error {
	if part == "" {
		part = "layout"
	}
	// Without a token there is no session to end.
	v.CanLogOut = d.access.guarded() && !v.Outside
	// Rendered before the status is written: a template that fails becomes an error page.
	b, err := d.part(page, part, v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(b) // Nobody is left to tell.
	return nil
}

// part returns a part of a page: the name of a template within it. It is rendered as a
// whole before anything is sent, so that an error has a page of its own.
func (d *Dashboard) part(page, part string, v any) ([]byte, error) {
	var b bytes.Buffer
	if err := d.pages[page].ExecuteTemplate(&b, part, v); err != nil {
		return nil, fmt.Errorf("template %s of page %s: %w", part, page, err)
	}
	return visible(b.Bytes()), nil
}

// pageError is an error that people can do something with.
type pageError struct {
	status      int
	title, text string
	customer    string
	retry       bool
	// outside says that the viewer was not admitted.
	outside bool
}

// Error implements error.
func (e *pageError) Error() string { return e.title + ": " + e.text }

// errLargeForm is the page for a body above maxForm.
var errLargeForm = &pageError{
	status: http.StatusRequestEntityTooLarge, title: "Too much", text: "A form has at most 64 KiB.",
}

// errNoText is the page for a value that is no text.
var errNoText = &pageError{
	status: http.StatusBadRequest, title: "Invalid request", text: "A value of the address or form is not valid UTF-8.",
}

// errNoPage is the page for other addresses below Path.
var errNoPage = &pageError{
	status: http.StatusNotFound, title: "No such page", text: "The dashboard has no page of that name.",
}

// errorView is what the page about an error shows.
type errorView struct {
	Status      int
	Title, Text string
	Customer    string
	Retry       bool
}

// fail shows an error as a page, with its status.
func (d *Dashboard) fail(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		return // The client has disconnected.
	}
	e := d.explain(r, err)
	body := errorView{Status: e.status, Title: e.title, Text: e.text, Customer: e.customer, Retry: e.retry}
	err = d.render(w, e.status, "error", "", view{
		Title: e.title, Section: "customers", Outside: e.outside, Body: body,
	})
	if err != nil {
		d.config.Logger.Error("dashboard: error page not rendered", "error", err)
		http.Error(w, e.Error(), e.status)
	}
}

// statuses of the API's codes in HTTP, and the titles of pages about them.
var statuses = map[connect.Code]struct {
	status int
	title  string
}{
	connect.CodeNotFound:           {http.StatusNotFound, "Nothing there"},
	connect.CodeInvalidArgument:    {http.StatusBadRequest, "Invalid request"},
	connect.CodeOutOfRange:         {http.StatusNotFound, "Outside the recorded history"},
	connect.CodeFailedPrecondition: {http.StatusConflict, "Refused"},
	connect.CodeUnauthenticated:    {http.StatusUnauthorized, "Not logged in"},
	connect.CodePermissionDenied:   {http.StatusForbidden, "Not allowed"},
	connect.CodeUnimplemented:      {http.StatusNotFound, "Not supported by this node"},
	connect.CodeUnavailable:        {http.StatusServiceUnavailable, "Not available now"},
	connect.CodeDeadlineExceeded:   {http.StatusGatewayTimeout, "Timed out"},
	connect.CodeResourceExhausted:  {http.StatusServiceUnavailable, "Too busy now"},
	connect.CodeDataLoss:           {http.StatusInternalServerError, "The history is damaged"},
}

// explain returns the words for an error. One that people can do nothing about is logged.
func (d *Dashboard) explain(r *http.Request, err error) *pageError {
	var known *pageError
	if errors.As(err, &known) {
		return known
	}
	customer := r.FormValue("id")
	var api *connect.Error
	if errors.As(err, &api) {
		if s, ok := statuses[api.Code()]; ok {
			// What is temporary can be tried again, by a button on the page.
			retry := s.status >= http.StatusServiceUnavailable
			return &pageError{
				status: s.status, title: s.title, text: sentence(api.Message()), customer: customer, retry: retry,
			}
		}
	}
	d.config.Logger.Error("dashboard: page failed", "path", r.URL.Path, "customer", customer, "error", err)
	return &pageError{
		status: http.StatusInternalServerError, title: "Something went wrong", customer: customer, retry: true,
		text: "This is a defect of the service; its log says more.",
	}
}

// sentence begins a text with a capital and ends it with a full stop.
func sentence(s string) string {
	if s == "" {
		return s
	}
	if !strings.ContainsAny(s[len(s)-1:], ".!?") {
		s += "."
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
