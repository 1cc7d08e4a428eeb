package settings

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// envPrefix begins the environment variables that are settings.
const envPrefix = "LICENSED_"

// masked is shown in place of a password.
const masked = "********"

// Loaded are the settings of a command after all that can set one was read.
type Loaded struct {
	table Table
	flags *pflag.FlagSet
	// source of each value that is not the default, by the name of the setting.
	source map[string]source
}

// source is a place that sets a value.
type source struct {
	text  string // "file licensed.yaml:3"
	place string // "licensed.yaml:3: lease-ttl", how errors begin
}

// Load completes the flags of a command, which were parsed already, from the environment and the settings file, and
// checks all values. An error names each place that has a wrong value, and what is allowed there.
func (t Table) Load(flags *pflag.FlagSet, getenv func(string) string) (*Loaded, error) {
	l := &Loaded{table: t, flags: flags, source: make(map[string]source)}
	// In this order flags, variables and the file are taken: set leaves alone what has a
	// source already.
	flags.Visit(func(f *pflag.Flag) { l.source[f.Name] = source{"flag --" + f.Name, "--" + f.Name} })
	if err := l.fromEnvironment(getenv); err != nil {
		return nil, err
	}
	path := flags.Lookup(ConfigFlag).Value.String()
	if path == "" {
		path = getenv(envName(ConfigFlag))
	}
	if path != "" {
		if err := l.fromFile(path); err != nil {
			return nil, err
		}
	}
	return l, l.check()
}

// check returns which values are not allowed.
func (l *Loaded) check() error {
	var errs []error
	for i := range l.table {
		s := &l.table[i]
		if url, ok := s.Value.(*string); ok && s.Password && l.source[s.Name].text == "flag --"+s.Name &&
			maskPassword(*url) != *url {
			errs = append(errs, fmt.Errorf("%s: has a password, which every user of this machine can read in the "+
				"list of processes; use a password file, the variable %s, or the settings file",
				l.place(s.Name), envName(s.Name)))
		}
		if s.Allowed.Check == nil {
			continue
		}
		if err := s.Allowed.Check(s.Value); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", l.place(s.Name), err))
		}
	}
	return errors.Join(errs...)
}

// Changed reports whether a value was set somewhere.
func (l *Loaded) Changed(name string) bool { return l.source[name].text != "" }

// Derived records that the value of a setting that nobody set comes from another one.
func (l *Loaded) Derived(name, from string) {
	l.source[name] = source{from, l.place(from)}
}

// place returns how an error about a setting begins.
func (l *Loaded) place(name string) string { return cmp.Or(l.source[name].place, name) }

// At returns an error whose text begins with the name of a setting and a colon, with the place that set it in place of
// the name.
func (l *Loaded) At(err error) error {
	if err == nil {
		return nil
	}
	// Errors of other packages begin with the name of the setting that they are about.
	name, rest, _ := strings.Cut(err.Error(), ": ")
	switch s := l.table.find(name); {
	case s == nil:
		return err
	case l.source[name].place == "":
		return placed{
			fmt.Sprintf("%s: %s (set --%s, %s, or %s in the settings file)", name, rest, name, envName(name), name),
			err,
		}
	default:
		return placed{l.place(name) + ": " + rest, err}
	}
}

// placed is an error with another text.
type placed struct {
	text string
	err  error
}

// Error implements error.
func (p placed) Error() string { return p.text }
func (p placed) Unwrap() error { return p.err }

// envName returns the variable of a flag.
func envName(flag string) string {
	return envPrefix + strings.ToUpper(strings.NewReplacer("-", "_", ".", "_").Replace(flag))
}

// fromEnvironment takes the variables of settings not given on the command line. An empty one counts as not set.
// Variables that name no setting are left alone: orchestrators make such of their own.
func (l *Loaded) fromEnvironment(getenv func(string) string) error {
	var errs []error
	for i := range l.table {
		s := &l.table[i]
		name := envName(s.Name)
		value := getenv(name)
		if value == "" || l.Changed(s.Name) {
			continue
		}
		if err := l.set(s, value, source{"environment " + name, name}); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// fromFile reads the settings file.
func (l *Loaded) fromFile(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("settings file: %w", err)
	}
	defer file.Close()
	return l.fromYAML(path, file)
}

// fromYAML takes what neither command line nor environment set. Everything in the file is checked,
// also what is overridden.
func (l *Loaded) fromYAML(name string, r io.Reader) error {
	var document yaml.Node
	switch err := yaml.NewDecoder(r).Decode(&document); {
	case errors.Is(err, io.EOF):
		return nil // Empty, or comments only.
	case err != nil:
		return fmt.Errorf("%s: %w", name, err)
	}
	// The root is the document's only child.
	root := document.Content[0]
	if root.Tag == "!!null" {
		return nil
	}
	if root.Kind != yaml.MappingNode {
		return fmt.Errorf("%s:%d: settings must be lines of NAME: VALUE", name, root.Line)
	}
	var errs []error
	seen := make(map[string]int)
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		where := fmt.Sprintf("%s:%d", name, key.Line)
		if line, ok := seen[key.Value]; ok {
			errs = append(errs, fmt.Errorf("%s: %q is set already in line %d", where, key.Value, line))
			continue
		}
		seen[key.Value] = key.Line
		if err := l.fromNode(key.Value, value, where); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", where, err))
		}
	}
	return errors.Join(errs...)
}

// fromNode sets one key of the file, or only checks its value if something above it has
// set it already.
func (l *Loaded) fromNode(key string, value *yaml.Node, where string) error {
	s := l.table.find(key)
	if s == nil {
		if near := l.table.nearest(key); near != "" {
			return fmt.Errorf("there is no setting %q; did you mean %q?", key, near)
		}
		return fmt.Errorf("there is no setting %q", key)
	}
	text, err := scalar(value)
	if err == nil && l.Changed(key) {
		err = l.wouldSet(s, text)
	} else if err == nil {
		err = l.set(s, text, source{"file " + where, where + ": " + key})
	}
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

// scalar returns a value as it would be written on the command line; a list is joined by
// commas. Errors: for mappings, and lists within lists.
func scalar(n *yaml.Node) (string, error) {
	switch n.Kind {
	case yaml.ScalarNode:
		if n.Tag == "!!null" {
			return "", nil
		}
		return n.Value, nil
	case yaml.SequenceNode:
		parts := make([]string, len(n.Content))
		for i, c := range n.Content {
			if c.Kind != yaml.ScalarNode {
				return "", errors.New("must be a list of plain values")
			}
			parts[i] = c.Value
		}
		return strings.Join(parts, ","), nil
	default:
		return "", errors.New("must be a value or a list of values")
	}
}

// wouldSet returns why a setting does not take a value, and leaves it as it is. There is
// no way to check a pflag.Value but to set it, so the former value is set again.
func (l *Loaded) wouldSet(s *Setting, text string) error {
	f := l.flags.Lookup(s.Name)
	before := f.Value.String()
	restore := func() error { return f.Value.Set(before) }
	if list, ok := f.Value.(pflag.SliceValue); ok { // whose Set adds
		before := list.GetSlice()
		restore = func() error { return list.Replace(before) }
	}
	err := f.Value.Set(text)
	if err := restore(); err != nil {
		return err
	}
	if err != nil {
		return s.wrong(text, err)
	}
	return nil
}

// set gives a setting its value from a source, and leaves it as it is if the value does not fit.
func (l *Loaded) set(s *Setting, text string, from source) error {
	f := l.flags.Lookup(s.Name)
	if err := f.Value.Set(text); err != nil {
		return s.wrong(text, err)
	}
	f.Changed = true
	l.source[s.Name] = from
	return nil
}
