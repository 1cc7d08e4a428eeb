// Package hideids keeps the ids of customers out of logs and traces, which more people read than may know them.
//
// # The model
//
// In place of an id stands its hash: the first 16 digits of its SHA-256 in hex, the same everywhere. Its lines are
// found by the id (`printf Bayley | sha256sum | cut -c 1-16`), and the customer of a hash by trying ids.
//
// A line that is about a customer has the attribute "customer". A handler replaces it by "customer_hash", and the id
// wherever else it stands in the line, such as in the text of an error. Aggregates of customers,
// Bayley:LicenseAggregate, are found without it.
package hideids

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Key is the attribute with the id of a customer, and HashKey the one that takes its place.
const (
	Key     = "customer"
	HashKey = "customer_hash"
)

// Hash returns what stands for an id.
func Hash(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:8])
}

// Text returns a text with the hash of an id in place of the id, wherever that is a word of its own.
func Text(text, id string) string {
	if id == "" {
		return text
	}
	var b strings.Builder
	for {
		i := strings.Index(text, id)
		if i < 0 {
			return b.String() + text
		}
		before, _ := utf8.DecodeLastRuneInString(text[:i])
		after, _ := utf8.DecodeRuneInString(text[i+len(id):])
		b.WriteString(text[:i])
		if ofWord(before) || ofWord(after) {
			b.WriteString(id)
		} else {
			b.WriteString(Hash(id))
		}
		text = text[i+len(id):]
	}
}

// ofWord reports whether a character continues a word. Nothing, at the end of a text, does not.
func ofWord(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }

// suffix makes the id of an aggregate of that of a customer.
const suffix = ":LicenseAggregate"

// aggregates finds the aggregates of customers.
var aggregates = regexp.MustCompile(`[^\s"'=\[{(]+` + suffix + `\b`)

// Handler returns a handler that passes lines to h without ids.
func Handler(h slog.Handler) slog.Handler { return handler{h, ""} }

// handler passes lines to the handler that it embeds. Its attributes named the customer, if that is not empty.
type handler struct {
	slog.Handler
	customer string
}

// Handle implements slog.Handler.
func (h handler) Handle(ctx context.Context, r slog.Record) error {
	customer := h.customer
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == Key {
			customer = a.Value.String()
		}
		return true
	})
	next := slog.NewRecord(r.Time, r.Level, hide(r.Message, customer), r.PC)
	r.Attrs(func(a slog.Attr) bool {
		next.AddAttrs(attr(a, customer))
		return true
	})
	return h.Handler.Handle(ctx, next)
}

// WithAttrs implements slog.Handler.
func (h handler) WithAttrs(all []slog.Attr) slog.Handler {
	for _, a := range all {
		if a.Key == Key {
			h.customer = a.Value.String()
		}
	}
	hidden := make([]slog.Attr, len(all))
	for i, a := range all {
		hidden[i] = attr(a, h.customer)
	}
	h.Handler = h.Handler.WithAttrs(hidden)
	return h
}

// WithGroup implements slog.Handler.
func (h handler) WithGroup(name string) slog.Handler {
	h.Handler = h.Handler.WithGroup(name)
	return h
}

// attr returns an attribute without ids.
func attr(a slog.Attr, customer string) slog.Attr {
	a.Value = a.Value.Resolve()
	switch a.Value.Kind() {
	case slog.KindGroup:
		var group []any
		for _, member := range a.Value.Group() {
			group = append(group, attr(member, customer))
		}
		return slog.Group(a.Key, group...)
	case slog.KindString, slog.KindAny:
	default:
		return a
	}
	if a.Key == Key {
		return slog.String(HashKey, Hash(a.Value.String()))
	}
	text := a.Value.String()
	if err, ok := a.Value.Any().(error); ok {
		text = err.Error()
	} else if a.Value.Kind() == slog.KindAny {
		text = fmt.Sprint(a.Value.Any())
	}
	if hidden := hide(text, customer); hidden != text {
		a.Value = slog.StringValue(hidden)
	}
	return a
}

// kept stands for an aggregate that was found, while others are looked for.
const kept = "\x00"

// hide returns a text without the id of this customer, and without those of aggregates.
func hide(text, customer string) string {
	if !strings.Contains(text, suffix) {
		return Text(text, customer)
	}
	if customer != "" { // Its id may have spaces, which end the others.
		text = strings.ReplaceAll(text, customer+suffix, kept)
	}
	text = aggregates.ReplaceAllStringFunc(text, func(found string) string {
		return Hash(strings.TrimSuffix(found, suffix)) + suffix
	})
	return strings.ReplaceAll(Text(text, customer), kept, Hash(customer)+suffix)
}
