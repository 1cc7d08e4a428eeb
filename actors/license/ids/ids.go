// Package ids has the rules for the ids of customers, devices, titles, studios, plans and commands. An id is text of
// bounded length without control characters, ':' and '/': ids are parts of stored keys, separated by these, and of
// lines in logs and terminals. The API, the policy file, nodes that are sent a request by another process, and
// imports of histories all go by these rules.
package ids

import (
	"strconv"
	"unicode"
	"unicode/utf8"
)

// Limits of ids in bytes.
const (
	MaxBytes        = 128
	MaxCommandBytes = 64
)

// Fault says what is wrong with an id of at most limit bytes, as the end of a sentence that begins with its name: "is
// required". It returns "" if nothing is.
func Fault(id string, limit int) string {
	switch {
	case id == "":
		return "is required"
	case len(id) > limit:
		return "has " + strconv.Itoa(len(id)) + " bytes, at most " + strconv.Itoa(limit) + " are allowed"
	}
	for i := 0; i < len(id); i++ {
		switch c := id[i]; {
		case c == ':' || c == '/':
			return mustNotContain + "'" + string(c) + "'"
		case c < ' ' || c == 0x7f:
			return mustNotContain + "control characters"
		case c >= utf8.RuneSelf:
			return unicodeFault(id[i:])
		}
	}
	return ""
}

const mustNotContain = "must not contain "

func unicodeFault(id string) string {
	if !utf8.ValidString(id) {
		return mustNotContain + "bytes that are not UTF-8"
	}
	for _, r := range id {
		switch {
		case r == ':' || r == '/':
			return mustNotContain + "'" + string(r) + "'"
		case unicode.IsControl(r):
			return mustNotContain + "control characters"
		}
	}
	return ""
}
