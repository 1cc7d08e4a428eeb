package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

// sample are flags of every kind that settings meet.
type sample struct {
	flags    *pflag.FlagSet
	name     string
	count    int
	wait     time.Duration
	on       bool
	peers    []string
	password string
	memory   memorySize
}

func newSample() *sample {
	s := &sample{flags: pflag.NewFlagSet("sample", pflag.ContinueOnError), memory: memorySize{text: "25%", percent: 25}}
	f := s.flags
	f.SortFlags = false
	f.String(configFlag, "", "")
	f.StringVar(&s.name, "name", "nobody", "")
	f.IntVar(&s.count, "some-count", 1, "")
	f.DurationVar(&s.wait, "wait", time.Second, "")
	f.BoolVar(&s.on, "on", false, "")
	f.StringSliceVar(&s.peers, "peers", nil, "")
	f.StringVar(&s.password, "password", "", "")
	f.Var(&s.memory, "memory", "")
	if err := f.SetAnnotation("password", secretAnnotation, nil); err != nil {
		panic(err)
	}
	return s
}

// load parses arguments and completes them from an environment and a file of that content.
func (s *sample) load(t *testing.T, arguments []string, environment map[string]string, file string) (*settings, error) {
	t.Helper()
	if file != "" {
		path := filepath.Join(t.TempDir(), "sample.yaml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		arguments = append([]string{"--config", path}, arguments...)
	}
	if err := s.flags.Parse(arguments); err != nil {
		return nil, err
	}
	return loadSettings(s.flags, func(k string) string { return environment[k] })
}

func TestPrecedence(t *testing.T) {
	const file = "name: file\nsome-count: 10\nwait: 10s\non: true\n"
	for name, test := range map[string]struct {
		arguments   []string
		environment map[string]string
		file        string
		name        string
		source      string
	}{
		"default":                   {nil, nil, "", "nobody", ""},
		"file":                      {nil, nil, file, "file", "file "},
		"environment over file":     {nil, map[string]string{"LICENSED_NAME": "env"}, file, "env", "environment LICENSED_NAME"},
		"flag over all":             {[]string{"--name", "flag"}, map[string]string{"LICENSED_NAME": "env"}, file, "flag", "flag --name"},
		"empty environment":         {nil, map[string]string{"LICENSED_NAME": ""}, file, "file", "file "},
		"environment without file":  {nil, map[string]string{"LICENSED_NAME": "env"}, "", "env", "environment LICENSED_NAME"},
		"somebody else's variables": {nil, map[string]string{"LICENSED_PORT": "tcp://10.0.0.1:80", "NAME": "x"}, "", "nobody", ""},
		"a flag set to its default": {[]string{"--name", "nobody"}, nil, file, "nobody", "flag --name"},
	} {
		s := newSample()
		loaded, err := s.load(t, test.arguments, test.environment, test.file)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if s.name != test.name || !strings.HasPrefix(loaded.source["name"], test.source) || (test.source == "") != (loaded.source["name"] == "") {
			t.Errorf("%s: name is %q from %q, want %q from %q", name, s.name, loaded.source["name"], test.name, test.source)
		}
		if test.file != "" && (s.count != 10 || s.wait != 10*time.Second || !s.on) {
			t.Errorf("%s: the rest of the file is %d, %v, %v", name, s.count, s.wait, s.on)
		}
	}
}

// TestListPrecedence: a list that stands in several places is that of the first, whole.
func TestListPrecedence(t *testing.T) {
	s := newSample()
	if _, err := s.load(t, []string{"--peers", "a,b"}, map[string]string{"LICENSED_PEERS": "c"}, "peers: [d, e]\n"); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(s.peers, []string{"a", "b"}) {
		t.Errorf("peers are %q", s.peers)
	}
}

func TestFileNamedByEnvironment(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.yaml")
	if err := os.WriteFile(path, []byte("name: file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newSample()
	if _, err := s.load(t, nil, map[string]string{"LICENSED_CONFIG": path}, ""); err != nil || s.name != "file" {
		t.Errorf("name %q, %v", s.name, err)
	}
}

func TestSettingsErrorsNameTheirPlace(t *testing.T) {
	for file, says := range map[string][]string{
		"name: x\nnaem: y\n":                 {"sample.yaml:2", `no setting "naem"`},
		"some-count: many\n":                 {"sample.yaml:1", "some-count", "many"},
		"# c\n\nwait: 5\n":                   {"sample.yaml:3", "wait", "5"},
		"name: {a: b}\n":                     {"sample.yaml:1", "name", "value"},
		"peers: [[a]]\n":                     {"sample.yaml:1", "peers", "list"},
		"name: x\nname: y\n":                 {"sample.yaml:2", "set already in line 1"},
		"config: other.yaml\n":               {"sample.yaml:1", `no setting "config"`},
		"help: true\n":                       {"sample.yaml:1", `no setting "help"`},
		"- name\n":                           {"sample.yaml:1", "NAME: VALUE"},
		"name: 'x\n":                         {"sample.yaml", "line"},
		"naem: y\nsome-count: many\n":        {"sample.yaml:1", "naem", "sample.yaml:2", "many"},
		"memory: 110%\n":                     {"sample.yaml:1", "memory", "110%"},
		"# only a comment\nno-such-thing: 1": {"sample.yaml:2"},
	} {
		_, err := newSample().load(t, nil, nil, file)
		if err == nil {
			t.Errorf("%q is accepted", file)
			continue
		}
		for _, words := range says {
			if !strings.Contains(err.Error(), words) {
				t.Errorf("%q: %v does not say %q", file, err, words)
			}
		}
	}
	if _, err := newSample().load(t, nil, map[string]string{"LICENSED_SOME_COUNT": "x"}, ""); err == nil || !strings.Contains(err.Error(), "LICENSED_SOME_COUNT") {
		t.Errorf("a bad variable: %v", err)
	}
	if _, err := newSample().load(t, []string{"--config", "/no/such/file.yaml"}, nil, ""); err == nil || !strings.Contains(err.Error(), "/no/such/file.yaml") {
		t.Errorf("a missing file: %v", err)
	}
	// What is overridden is checked all the same, and stays overridden.
	s := newSample()
	if _, err := s.load(t, []string{"--some-count", "3"}, nil, "some-count: many\n"); err == nil || s.count != 3 {
		t.Errorf("an overridden mistake: %v, count %d", err, s.count)
	}
}

func TestEmptyFiles(t *testing.T) {
	for _, file := range []string{"\n", "# nothing\n", "---\n", "{}\n"} {
		if _, err := newSample().load(t, nil, nil, file); err != nil {
			t.Errorf("%q: %v", file, err)
		}
	}
}

// TestPrintedSettingsAreAFile loads what was printed, and gets the same.
func TestPrintedSettingsAreAFile(t *testing.T) {
	s := newSample()
	loaded, err := s.load(t, []string{"--name", "yes: #1", "--memory", "1GiB", "--password", "hunter2"},
		map[string]string{"LICENSED_PEERS": "a,b", "LICENSED_WAIT": "90s"}, "some-count: 7\non: true\n")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := loaded.print(&out); err != nil {
		t.Fatal(err)
	}
	for _, words := range []string{"# flag --name", "# environment LICENSED_PEERS", "sample.yaml:1\n", `password: "********"`} {
		if !strings.Contains(out.String(), words) {
			t.Errorf("does not say %q:\n%s", words, &out)
		}
	}
	if strings.Contains(out.String(), "hunter2") {
		t.Errorf("shows a secret:\n%s", &out)
	}
	again := newSample()
	if _, err := again.load(t, nil, nil, out.String()); err != nil {
		t.Fatalf("%v:\n%s", err, &out)
	}
	if again.name != s.name || again.count != s.count || again.wait != s.wait || again.on != s.on ||
		strings.Join(again.peers, " ") != "a b" || again.memory != s.memory {
		t.Errorf("printed %+v, loaded %+v", s, again)
	}
}

func FuzzSettingsFile(f *testing.F) {
	for _, file := range []string{"name: x\n", "peers: [a, b]\n", "on: true\nwait: 1s\n", "a: &a [*a]\n", "? {}\n", "\xff", "name: !!binary aGk=\n"} {
		f.Add(file)
	}
	f.Fuzz(func(t *testing.T, file string) {
		s := newSample()
		loaded, err := loadSettings(s.flags, func(string) string { return "" })
		if err != nil {
			t.Fatal(err)
		}
		if err := loaded.fromYAML("sample.yaml", strings.NewReader(file)); err != nil {
			return
		}
		var out bytes.Buffer
		if err := loaded.print(&out); err != nil {
			t.Fatal(err)
		}
		again := newSample()
		reloaded := &settings{flags: again.flags, source: make(map[string]string)}
		if err := reloaded.fromYAML("printed", bytes.NewReader(out.Bytes())); err != nil {
			t.Fatalf("%q is printed as\n%s\nwhich is not a file: %v", file, &out, err)
		}
		if again.name != s.name || again.count != s.count || again.wait != s.wait || again.on != s.on {
			t.Errorf("%q: printed\n%s\nloaded %+v, want %+v", file, &out, again, s)
		}
	})
}
