package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// envPrefix begins the environment variables that are settings: --snapshot-every is
// LICENSED_SNAPSHOT_EVERY.
const envPrefix = "LICENSED_"

// secretAnnotation marks a flag whose value must not be shown, passwordAnnotation one whose value is a URL
// that may have a password in it.
const (
	secretAnnotation   = "secret"
	passwordAnnotation = "password"
)

// hasPassword marks a flag with passwordAnnotation.
func hasPassword(f *pflag.FlagSet, name string) {
	f.Lookup(name).Annotations = map[string][]string{passwordAnnotation: nil}
}

// masked is shown in place of a secret.
const masked = "********"

// configFlag names the settings file; it cannot itself be set in one.
const configFlag = "config"

// settings are the flags of a command after all that can set one was heard. In rising precedence:
// default, settings file (YAML, keys are the names of flags), environment, command line.
type settings struct {
	flags *pflag.FlagSet
	// source of each value that is not the default, by the name of the flag.
	source map[string]string
}

// loadSettings completes flags, which were parsed already, from the environment and the settings
// file. An error names the variable, or file and line, and what is wrong.
func loadSettings(flags *pflag.FlagSet, getenv func(string) string) (*settings, error) {
	s := &settings{flags: flags, source: make(map[string]string)}
	flags.Visit(func(f *pflag.Flag) { s.source[f.Name] = "flag --" + f.Name })
	if err := s.fromEnvironment(getenv); err != nil {
		return nil, err
	}
	if path := flags.Lookup(configFlag).Value.String(); path != "" {
		if err := s.fromFile(path); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func envName(flag string) string {
	return envPrefix + strings.ToUpper(strings.NewReplacer("-", "_", ".", "_").Replace(flag))
}

// fromEnvironment takes the variables of flags not given on the command line. An empty one counts as
// not set. Variables that name no flag are left alone: orchestrators make such of their own.
func (s *settings) fromEnvironment(getenv func(string) string) error {
	var errs []error
	s.flags.VisitAll(func(f *pflag.Flag) {
		value := getenv(envName(f.Name))
		if value == "" || s.source[f.Name] != "" || f.Name == "help" {
			return
		}
		if err := s.set(f, value, "environment "+envName(f.Name)); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", envName(f.Name), err))
		}
	})
	return errors.Join(errs...)
}

func (s *settings) fromFile(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("settings file: %w", err)
	}
	defer file.Close()
	return s.fromYAML(path, file)
}

// fromYAML takes what neither command line nor environment set. Everything in the file is checked,
// also what is overridden.
func (s *settings) fromYAML(name string, r io.Reader) error {
	var document yaml.Node
	switch err := yaml.NewDecoder(r).Decode(&document); {
	case errors.Is(err, io.EOF):
		return nil // Empty, or comments only.
	case err != nil:
		return fmt.Errorf("%s: %w", name, err)
	}
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
		if err := s.fromNode(key.Value, value, where); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", where, err))
		}
	}
	return errors.Join(errs...)
}

func (s *settings) fromNode(key string, value *yaml.Node, where string) error {
	f := s.flags.Lookup(key)
	if f == nil || key == configFlag || key == "help" {
		return fmt.Errorf("there is no setting %q", key)
	}
	text, err := scalar(value)
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	if s.source[key] != "" {
		return check(f, text)
	}
	if err := s.set(f, text, "file "+where); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

// scalar returns a value as it would be written on the command line; a list is joined by commas.
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

// check reports whether a flag would take a value, and leaves the flag as it is.
func check(f *pflag.Flag, text string) error {
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
		return fmt.Errorf("%s: %w", f.Name, err)
	}
	return nil
}

// set gives a flag its value from a source, and leaves it as it is if the value does not fit.
func (s *settings) set(f *pflag.Flag, text, source string) error {
	if err := f.Value.Set(text); err != nil {
		return err
	}
	f.Changed = true
	s.source[f.Name] = source
	return nil
}

// print writes the effective settings as a settings file, each with its source as a comment.
func (s *settings) print(w io.Writer) error {
	type line struct{ setting, source string }
	var lines []line
	width := 0
	s.flags.VisitAll(func(f *pflag.Flag) {
		if f.Name == "help" || f.Name == configFlag {
			return
		}
		source := s.source[f.Name]
		if source == "" {
			source = "default"
		}
		l := line{f.Name + ": " + shown(f), source}
		width = max(width, len(l.setting))
		lines = append(lines, l)
	})
	for _, l := range lines {
		if _, err := fmt.Fprintf(w, "%-*s  # %s\n", width, l.setting, l.source); err != nil {
			return err
		}
	}
	return nil
}

// shown returns the value of a flag in YAML, secrets masked.
func shown(f *pflag.Flag) string {
	value := f.Value.String()
	if _, secret := f.Annotations[secretAnnotation]; secret && value != "" {
		return `"` + masked + `"`
	}
	if _, url := f.Annotations[passwordAnnotation]; url {
		value = maskPassword(value)
	}
	if list, ok := f.Value.(pflag.SliceValue); ok {
		value = strings.Join(list.GetSlice(), ",")
	}
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
