package settings

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"licensed/internal/terminal"
)

// Print writes the settings in effect as a settings file, each with its source as a comment. Passwords are masked.
func (l *Loaded) Print(w io.Writer) error {
	lines, width := make([]string, len(l.table)), 0
	for i := range l.table {
		lines[i] = l.table[i].Name + ": " + l.table[i].shown(l.flags)
		width = max(width, len(lines[i]))
	}
	for i, line := range lines {
		if _, err := fmt.Fprintf(w, "%-*s  # %s\n",
			width, line, cmp.Or(l.source[l.table[i].Name].text, "default")); err != nil {
			return err
		}
	}
	return nil
}

// shown returns the value in YAML, passwords masked.
func (s *Setting) shown(flags *pflag.FlagSet) string {
	f := flags.Lookup(s.Name)
	value := f.Value.String()
	if s.Password {
		value = maskPassword(value)
	}
	if list, ok := f.Value.(pflag.SliceValue); ok {
		value = strings.Join(list.GetSlice(), ",")
	}
	// The YAML encoder quotes where it must: a password may begin with a special
	// character.
	quoted := yaml.Node{Kind: yaml.ScalarNode, Value: value}
	if f.Value.Type() == "string" {
		quoted.Tag = "!!str"
	}
	out, err := yaml.Marshal(&quoted)
	if err != nil || slices.Contains(out[:max(len(out)-1, 0)], '\n') {
		return fmt.Sprintf("%q", value)
	}
	return strings.TrimSpace(string(out))
}

// maskPassword hides the password in a URL. Lists of hosts are no URLs to package url.
func maskPassword(url string) string {
	scheme, rest, ok := strings.Cut(url, "://")
	at := strings.LastIndexByte(rest, '@')
	if !ok || at < 0 {
		return url
	}
	user, _, found := strings.Cut(rest[:at], ":")
	if !found {
		return url
	}
	return scheme + "://" + user + ":" + masked + rest[at:]
}

// Help writes the settings that a command lists, by group: --lease-ttl duration  time … (default 2s). Lines are
// wrapped at the width of the terminal; 0 for none.
func (t Table) Help(w io.Writer, flags *pflag.FlagSet, width int, listed func(*Setting) bool) {
	// Names longer than the column get a line of their own.
	const indent, widest = 6, 34
	group := ""
	for i := range t {
		s := &t[i]
		if !listed(s) {
			continue
		}
		if s.Group != group {
			group = s.Group
			fmt.Fprintf(w, "\n%s:\n", group)
		}
		name := "--" + s.Name
		if _, ok := s.Value.(*bool); !ok {
			name += " " + s.Unit
		}
		room := 0
		if width > 0 {
			room = max(width-indent-widest-2, 30)
		}
		lines := terminal.Wrap(s.describe(flags.Lookup(s.Name).DefValue), room)
		if len(name) > widest {
			fmt.Fprintf(w, "%*s%s\n", indent, "", name)
			name = ""
		}
		for _, line := range lines {
			fmt.Fprintf(w, "%*s%-*s  %s\n", indent, "", widest, name, line)
			name = ""
		}
	}
}

// describe returns the meaning of a setting with its range and default.
func (s *Setting) describe(byDefault string) string {
	text := s.Help
	if s.Allowed.Text != "" && s.Allowed.Words != nil {
		text += ": " + s.Allowed.Text
	}
	if s.Unset != "" {
		return fmt.Sprintf("%s (default: %s)", text, s.Unset)
	}
	if byDefault == "" || byDefault == "[]" {
		return text
	}
	return fmt.Sprintf("%s (default %s)", text, byDefault)
}

// Markdown writes the reference page: one table for each group.
func (t Table) Markdown(w io.Writer, flags *pflag.FlagSet) {
	group := ""
	cell := strings.NewReplacer("|", "\\|", "\n", " ")
	for i := range t {
		s := &t[i]
		if s.Group != group {
			group = s.Group
			fmt.Fprintf(w, "\n## %s\n\n| setting | type | default | allowed | meaning | for | roles |\n"+
				"|---|---|---|---|---|---|---|\n", group)
		}
		kind := s.kind()
		if s.Unit != "" && s.Unit != kind {
			kind += ", " + s.Unit
		}
		byDefault := flags.Lookup(s.Name).DefValue
		switch {
		case s.Unset != "":
			byDefault = s.Unset
		case byDefault == "" || byDefault == "[]":
			byDefault = "none"
		default:
			byDefault = "`" + byDefault + "`"
		}
		fmt.Fprintf(w, "| `%s` | %s | %s | %s | %s | %s | %s |\n", s.Name, cell.Replace(kind), cell.Replace(byDefault),
			cell.Replace(cmp.Or(s.Allowed.Text, "any")), cell.Replace(s.Help), s.For, s.Roles)
	}
}
