package gateway

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
)

// isJSON reports whether a caller speaks JSON, in any of the protocols.
func isJSON(h http.Header, p connect.Peer) bool {
	kind, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	return strings.HasSuffix(kind, "json") || p.Query.Get("encoding") == "json"
}

// protoName is the name of a field of more than one word in the .proto files.
var protoName = regexp.MustCompile(`\b[a-z]+(?:_[a-z]+)+\b`)

// jsonNames returns a text in which fields have their names in JSON.
func jsonNames(s string) string {
	return protoName.ReplaceAllStringFunc(s, func(name string) string {
		words := strings.Split(name, "_")
		for i, w := range words[1:] {
			words[i+1] = strings.ToUpper(w[:1]) + w[1:]
		}
		return strings.Join(words, "")
	})
}

// namedAsInJSON returns an error whose violations, if it has any, name fields as JSON does.
func namedAsInJSON(err error) error {
	var e *connect.Error
	if !errors.As(err, &e) {
		return err
	}
	named := connect.NewError(e.Code(), errors.New(jsonNames(e.Message())))
	maps.Copy(named.Meta(), e.Meta())
	violated := false
	for _, d := range e.Details() {
		v, err := d.Value()
		request, ok := v.(*errdetails.BadRequest)
		if err != nil || !ok {
			named.AddDetail(d)
			continue
		}
		violated = true
		for _, f := range request.FieldViolations {
			f.Field, f.Description = jsonNames(f.Field), jsonNames(f.Description)
		}
		addDetail(named, request)
	}
	if !violated {
		return err
	}
	return named
}

// WriteHeader implements http.ResponseWriter. Package connect refuses methods and content types without a body, which a
// client would show as nothing.
func (c *call) WriteHeader(status int) {
	// An answer with a content type has a body of its own.
	empty := status >= http.StatusBadRequest && c.Header().Get("Content-Type") == ""
	if empty {
		c.Header().Set("Content-Type", "application/json")
	}
	c.ResponseWriter.WriteHeader(status)
	if empty {
		message := fmt.Sprintf("%d %s", status, strings.ToLower(http.StatusText(status)))
		switch status {
		case http.StatusMethodNotAllowed:
			message = "this call takes " + c.Header().Get("Allow") + " only"
		case http.StatusUnsupportedMediaType:
			message = "unknown content type; this call takes " + c.Header().Get("Accept-Post")
		}
		// A client that cannot be written to has gone.
		_, _ = fmt.Fprintf(c, "{\"code\":\"unimplemented\",\"message\":%q}", message)
	}
}
