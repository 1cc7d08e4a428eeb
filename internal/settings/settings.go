// Package settings reads the settings of a program from flags, environment variables and a file, all of which one table
// describes. Help texts, the reference page and shell completion come from the same table.
//
// # The model
//
// A Table has a row for each setting: its name, the value it sets, and what people need to know of it. The setting
// "lease-ttl" is the flag --lease-ttl, the environment variable LICENSED_LEASE_TTL and the key lease-ttl in the file,
// which is YAML and named by --config. The former wins. An error names the place that has the wrong value, and what
// is allowed.
package settings

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"licensed/internal/terminal"
)

// Setting is a row of a table.
type Setting struct {
	// Name of the flag, and of the key in the file.
	Name string
	// Value points to what is set: a string, bool, int, uint32, float64, time.Duration, []string or pflag.Value. What
	// it points to when the table is bound is the default.
	Value any
	// Unit is the noun for the value in help texts, like "events" or "file".
	Unit string
	// Help is the meaning, a noun phrase or an imperative. It does not repeat unit, default or range.
	Help string
	// Unset is what an empty value or 0 stands for, if not for itself.
	Unset string
	// Allowed values; any if it has no check.
	Allowed Range
	// Group is the heading under which it is listed.
	Group string
	// For is the audience of the setting.
	For Audience
	// Roles it applies to.
	Roles Role
	// Password says that the value is a URL that may have a password in it.
	Password bool
}

// Audience is the group of readers that a setting is documented for.
type Audience int

// The audiences.
const (
	Everyone Audience = iota // any user of the program
	Operator                 // operators of a production system
	Tuning                   // operators with a measurement that shows that the default does not fit
)

// String returns the audience as the reference page has it.
func (a Audience) String() string { return [...]string{"everyone", "operator", "tuning"}[a] }

// Role is what a process does.
type Role int

// The roles, and all of them.
const (
	Embedded Role = 1 << iota // everything in one process
	Node
	Gateway
	All = Embedded | Node | Gateway
)

// String returns the roles as the reference page has them.
func (r Role) String() string {
	if r == All {
		return "all"
	}
	var names []string
	for i, name := range []string{"embedded", "node", "gateway"} {
		if r&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// Range is what values are allowed.
type Range struct {
	// Text for people, like "at least 1".
	Text string
	// Words that are allowed, if only these are.
	Words []string
	// Check returns what is wrong with what Setting.Value points to, or nil.
	Check func(value any) error
}

// AtLeast allows values from low on.
func AtLeast[T cmp.Ordered](low T) Range {
	return allow(fmt.Sprintf("at least %v", low), func(v T) bool { return v >= low })
}

// Above allows values above low.
func Above[T cmp.Ordered](low T) Range {
	return allow(fmt.Sprintf("above %v", low), func(v T) bool { return v > low })
}

// Between allows values from low to high.
func Between[T cmp.Ordered](low, high T) Range {
	return allow(fmt.Sprintf("%v to %v", low, high), func(v T) bool { return v >= low && v <= high })
}

// allow returns the range of values for which ok is true. T is the type that
// Setting.Value points to; another type panics at the first start.
func allow[T any](text string, ok func(T) bool) Range {
	return Range{Text: text, Check: func(value any) error {
		if v := *value.(*T); !ok(v) {
			return fmt.Errorf("is %v, must be %s", v, text)
		}
		return nil
	}}
}

// OneOf allows these words, in any case.
func OneOf(words ...string) Range {
	text := strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
	return Range{Text: text, Words: words, Check: func(value any) error {
		s := *value.(*string)
		if !slices.ContainsFunc(words, func(w string) bool { return strings.EqualFold(w, s) }) {
			return fmt.Errorf("%q is not %s", s, text)
		}
		return nil
	}}
}

// Required allows what is not empty.
func Required() Range {
	return Range{Text: "not empty", Check: func(value any) error {
		if *value.(*string) == "" {
			return errors.New("is required")
		}
		return nil
	}}
}

// Address allows a HOST:PORT.
func Address() Range {
	return Range{Text: "HOST:PORT", Check: func(value any) error { return checkAddress(*value.(*string)) }}
}

// AddressOrNone allows a HOST:PORT, and nothing.
func AddressOrNone() Range {
	return Range{Text: "HOST:PORT or empty", Check: func(value any) error {
		if s := *value.(*string); s != "" {
			return checkAddress(s)
		}
		return nil
	}}
}

// checkAddress returns what is wrong with a HOST:PORT, or nil. A name of a service is a
// port, too.
func checkAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%q is not HOST:PORT, like 127.0.0.1:8080", address)
	}
	if _, err := net.LookupPort("tcp", port); err != nil {
		return fmt.Errorf("%q has no port between 0 and 65535", address)
	}
	if strings.ContainsAny(host, " /") {
		return fmt.Errorf("%q has no valid host", address)
	}
	return nil
}

// Bytes allows a Size that is a number of bytes from low to high, and no share of the memory.
func Bytes(low, high Size) Range {
	text := "at least " + low.text
	if high.bytes > 0 {
		text = low.text + " to " + high.text
	}
	return Range{Text: text, Check: func(value any) error {
		s := value.(*Size)
		switch {
		case s.percent > 0:
			return fmt.Errorf("is %v, must be a number of bytes, not a share of the memory", s)
		case s.bytes < low.bytes, high.bytes > 0 && s.bytes > high.bytes:
			return fmt.Errorf("is %v, must be %s", s, text)
		}
		return nil
	}}
}

// Share allows a Size that is a share.
func Share() Range {
	return Range{Text: "above 0% to 100%", Check: func(value any) error {
		if s := value.(*Size); s.percent == 0 {
			return fmt.Errorf("is %v, must be a share like 25%%", s)
		}
		return nil
	}}
}

// Table has the settings of a program, in the order in which they are listed.
type Table []Setting

// ConfigFlag names the settings file; it cannot itself be set in one.
const ConfigFlag = "config"

// Bind declares the flags on a command. Those that do not apply to it are accepted and hidden, so that all commands can
// share a file.
func (t Table) Bind(c *cobra.Command, applies func(*Setting) bool) {
	f := c.Flags()
	f.SortFlags = false
	f.String(ConfigFlag, "", "settings `file`")
	for i := range t {
		t[i].bind(f)
		f.Lookup(t[i].Name).Hidden = !applies(&t[i])
		switch s := &t[i]; {
		case strings.HasPrefix(s.Unit, "file"):
			_ = c.MarkFlagFilename(s.Name)
		case s.Unit == "directory":
			_ = c.MarkFlagDirname(s.Name)
		case s.Allowed.Words != nil:
			_ = c.RegisterFlagCompletionFunc(s.Name,
				cobra.FixedCompletions(s.Allowed.Words, cobra.ShellCompDirectiveNoFileComp))
		}
	}
}

// Others returns the flags of a command that are no settings.
func (t Table) Others(flags *pflag.FlagSet) *pflag.FlagSet {
	var others pflag.FlagSet
	flags.VisitAll(func(f *pflag.Flag) {
		if t.find(f.Name) == nil {
			others.AddFlag(f)
		}
	})
	return &others
}

// bind declares the flag of a setting; what its value holds now is the default.
func (s *Setting) bind(f *pflag.FlagSet) {
	switch v := s.Value.(type) {
	case *string:
		f.StringVar(v, s.Name, *v, s.Help)
	case *bool:
		f.BoolVar(v, s.Name, *v, s.Help)
	case *int:
		f.IntVar(v, s.Name, *v, s.Help)
	case *uint32:
		f.Uint32Var(v, s.Name, *v, s.Help)
	case *float64:
		f.Float64Var(v, s.Name, *v, s.Help)
	case *time.Duration:
		f.DurationVar(v, s.Name, *v, s.Help)
	case *[]string:
		f.StringSliceVar(v, s.Name, *v, s.Help)
	case pflag.Value:
		f.Var(v, s.Name, s.Help)
	default:
		panic(fmt.Sprintf("setting %s: a %T cannot be set", s.Name, v))
	}
}

// kind names the type of a value for people.
func (s *Setting) kind() string {
	switch s.Value.(type) {
	case *bool:
		return "true or false"
	case *int, *uint32:
		return "whole number"
	case *float64:
		return "number"
	case *time.Duration, Period:
		return "duration"
	case *[]string:
		return "list"
	case *Size:
		return "size"
	}
	return "text"
}

// find returns a setting, nil if there is none of that name.
func (t Table) find(name string) *Setting {
	if i := slices.IndexFunc(t, func(s Setting) bool { return s.Name == name }); i >= 0 {
		return &t[i]
	}
	return nil
}

// nearest returns the name that a mistyped one may stand for, "" if none is near: the
// error of a typo names it.
func (t Table) nearest(name string) string {
	names := make([]string, len(t))
	for i := range t {
		names[i] = t[i].Name
	}
	return terminal.Nearest(name, names)
}

// FlagError returns an error of the command line in the words of the table.
func (t Table) FlagError(err error) error {
	var unknown *pflag.NotExistError
	var invalid *pflag.InvalidValueError
	switch {
	case errors.As(err, &unknown):
		if near := t.nearest(unknown.GetSpecifiedName()); near != "" {
			return fmt.Errorf("%w; did you mean --%s?", err, near)
		}
	case errors.As(err, &invalid):
		if s := t.find(invalid.GetFlag().Name); s != nil {
			return fmt.Errorf("--%s: %w", s.Name, s.wrong(invalid.GetValue(), errors.Unwrap(invalid)))
		}
	}
	return err
}

// wrong returns the error about a text that is no value of the setting: what is expected,
// in its words, and not those of package strconv.
func (s *Setting) wrong(text string, err error) error {
	switch s.Value.(type) {
	case *bool, *int, *uint32, *float64, *time.Duration:
		article := "a "
		if s.kind() == "true or false" {
			article = ""
		}
		example := ""
		if s.kind() == "duration" {
			example = " like 500ms or 1m30s"
		}
		if s.Allowed.Text != "" {
			example += ", " + s.Allowed.Text
		}
		return fmt.Errorf("%q is not %s%s%s", text, article, s.kind(), example)
	}
	return err
}
