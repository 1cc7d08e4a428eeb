package settings

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// sample is a program with settings of every kind.
type sample struct {
	table   Table
	command cobra.Command
	name    string
	count   int
	wait    time.Duration
	on      bool
	peers   []string
	store   string
	level   string
	memory  Size
}

func newSample() *sample {
	s := &sample{name: "nobody", count: 1, wait: time.Second, level: "info", memory: ParseSize("25%")}
	s.table = Table{
		{Name: "name", Value: &s.name, Unit: "name", Help: "name of the process", Group: "First", Roles: All},
		{Name: "some-count", Value: &s.count, Unit: "events", Help: "events to read", Allowed: Between(1, 100),
			Group: "First", For: Tuning, Roles: Node},
		{Name: "wait", Value: &s.wait, Unit: "duration", Help: "time to wait", Allowed: AtLeast(time.Duration(0)),
			Group: "First", For: Operator, Roles: All},
		{Name: "on", Value: &s.on, Help: "switch it on", Group: "Second", Roles: Embedded},
		{Name: "peers", Value: &s.peers, Unit: "members", Help: "members", Group: "Second", Roles: Node | Gateway},
		{Name: "store", Value: &s.store, Unit: "URL", Help: "the store", Unset: "the embedded one", Group: "Second",
			Roles: All, Password: true},
		{
			Name: "level", Value: &s.level, Unit: "level", Help: "lowest level that is logged",
			Allowed: OneOf("info", "warn"), Group: "Second", Roles: All,
		},
		{Name: "memory", Value: &s.memory, Unit: "size", Help: "memory", Group: "Second", Roles: All},
	}
	s.command.Use = "sample"
	s.table.Bind(&s.command, func(*Setting) bool { return true })
	return s
}

// load parses arguments and completes them from an environment and a file of that content.
func (s *sample) load(t *testing.T, arguments []string, environment map[string]string, file string) (*Loaded, error) {
	t.Helper()
	if file != "" {
		path := filepath.Join(t.TempDir(), "sample.yaml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		arguments = append([]string{"--config", path}, arguments...)
	}
	if err := s.command.Flags().Parse(arguments); err != nil {
		return nil, s.table.FlagError(err)
	}
	return s.table.Load(s.command.Flags(), func(k string) string { return environment[k] })
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
		"default": {nil, nil, "", "nobody", ""},
		"file":    {nil, nil, file, "file", "file "},
		"environment over file": {
			nil, map[string]string{"LICENSED_NAME": "env"}, file, "env", "environment LICENSED_NAME",
		},
		"flag over all": {
			[]string{"--name", "flag"}, map[string]string{"LICENSED_NAME": "env"}, file, "flag", "flag --name",
		},
		"empty environment": {nil, map[string]string{"LICENSED_NAME": ""}, file, "file", "file "},
		"environment without file": {
			nil, map[string]string{"LICENSED_NAME": "env"}, "", "env", "environment LICENSED_NAME",
		},
		"somebody else's variables": {
			nil, map[string]string{"LICENSED_PORT": "tcp://10.0.0.1:80", "NAME": "x"}, "", "nobody", "",
		},
		"a flag set to its default": {[]string{"--name", "nobody"}, nil, file, "nobody", "flag --name"},
	} {
		s := newSample()
		loaded, err := s.load(t, test.arguments, test.environment, test.file)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if s.name != test.name || !strings.HasPrefix(loaded.source["name"].text, test.source) ||
			(test.source == "") != (loaded.source["name"].text == "") {
			t.Errorf("%s: name is %q from %q, want %q from %q",
				name, s.name, loaded.source["name"].text, test.name, test.source)
		}
		if test.file != "" && (s.count != 10 || s.wait != 10*time.Second || !s.on) {
			t.Errorf("%s: the rest of the file is %d, %v, %v", name, s.count, s.wait, s.on)
		}
	}
}

// TestListPrecedence: a list that stands in several places is that of the first, whole.
func TestListPrecedence(t *testing.T) {
	s := newSample()
	if _, err := s.load(t, []string{"--peers", "a,b"}, map[string]string{"LICENSED_PEERS": "c"},
		"peers: [d, e]\n"); err != nil {
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
		"name: x\nnaem: y\n":                 {"sample.yaml:2", `no setting "naem"; did you mean "name"?`},
		"some-count: many\n":                 {`sample.yaml:1: some-count: "many" is not a whole number, 1 to 100`},
		"name: x\nsome-count: 101\n":         {"sample.yaml:2: some-count: is 101, must be 1 to 100"},
		"level: loud\n":                      {`sample.yaml:1: level: "loud" is not info or warn`},
		"on: perhaps\n":                      {`sample.yaml:1: on: "perhaps" is not true or false`},
		"# c\n\nwait: 5\n":                   {`sample.yaml:3: wait: "5" is not a duration like 500ms or 1m30s`},
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
	if _, err := newSample().load(t, nil, map[string]string{"LICENSED_SOME_COUNT": "x"}, ""); err == nil ||
		!strings.Contains(err.Error(), "LICENSED_SOME_COUNT") {
		t.Errorf("a bad variable: %v", err)
	}
	if _, err := newSample().load(t, []string{"--config", "/no/such/file.yaml"}, nil, ""); err == nil ||
		!strings.Contains(err.Error(), "/no/such/file.yaml") {
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

// TestPasswordInFlag: the list of processes would show it to every user of the machine; other places do not.
func TestPasswordInFlag(t *testing.T) {
	const url = "cassandra://u:hunter2@h/k"
	_, err := newSample().load(t, []string{"--store", url}, nil, "")
	if err == nil || !strings.Contains(err.Error(), "--store: has a password") ||
		strings.Contains(err.Error(), "hunter2") {
		t.Errorf("in a flag: %v", err)
	}
	for _, s := range []struct {
		arguments   []string
		environment map[string]string
		file        string
	}{
		{[]string{"--store", "cassandra://u@h/k"}, nil, ""},
		{nil, map[string]string{"LICENSED_STORE": url}, ""},
		{nil, nil, "store: " + url + "\n"},
	} {
		if _, err := newSample().load(t, s.arguments, s.environment, s.file); err != nil {
			t.Errorf("%+v: %v", s, err)
		}
	}
}

// TestPrintedSettingsAreAFile loads what was printed, and gets the same.
func TestPrintedSettingsAreAFile(t *testing.T) {
	s := newSample()
	loaded, err := s.load(t, []string{"--name", "yes: #1", "--memory", "1GiB"}, map[string]string{
		"LICENSED_PEERS": "a,b", "LICENSED_WAIT": "90s", "LICENSED_STORE": "cassandra://u:hunter2@h/k",
	}, "some-count: 7\non: true\n")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := loaded.Print(&out); err != nil {
		t.Fatal(err)
	}
	for _, words := range []string{
		"# flag --name", "# environment LICENSED_PEERS", "sample.yaml:1\n", "cassandra://u:********@h/k",
	} {
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
	for _, file := range []string{"name: x\n", "peers: [a, b]\n", "on: true\nwait: 1s\n", "a: &a [*a]\n", "? {}\n",
		"\xff", "name: !!binary aGk=\n"} {
		f.Add(file)
	}
	f.Fuzz(func(t *testing.T, file string) {
		s := newSample()
		loaded, err := s.table.Load(s.command.Flags(), func(string) string { return "" })
		if err != nil {
			t.Fatal(err)
		}
		if err := loaded.fromYAML("sample.yaml", strings.NewReader(file)); err != nil {
			return
		}
		var out bytes.Buffer
		if err := loaded.Print(&out); err != nil {
			t.Fatal(err)
		}
		again := newSample()
		reloaded := &Loaded{table: again.table, flags: again.command.Flags(), source: make(map[string]source)}
		if err := reloaded.fromYAML("printed", bytes.NewReader(out.Bytes())); err != nil {
			t.Fatalf("%q is printed as\n%s\nwhich is not a file: %v", file, &out, err)
		}
		if again.name != s.name || again.count != s.count || again.wait != s.wait || again.on != s.on {
			t.Errorf("%q: printed\n%s\nloaded %+v, want %+v", file, &out, again, s)
		}
	})
}

// TestErrorsNameTheSource: the reader of an error knows which of the places to correct, and what to write there.
func TestErrorsNameTheSource(t *testing.T) {
	for _, test := range []struct {
		arguments   []string
		environment map[string]string
		says        string
	}{
		{[]string{"--some-count", "0"}, nil, "--some-count: is 0, must be 1 to 100"},
		{[]string{"--some-count", "x"}, nil, `--some-count: "x" is not a whole number, 1 to 100`},
		{[]string{"--level", "loud"}, nil, `--level: "loud" is not info or warn`},
		{[]string{"--memory", "x"}, nil, `--memory: "x" is not an amount of memory`},
		{[]string{"--some-cuont", "1"}, nil, "unknown flag: --some-cuont; did you mean --some-count?"},
		{nil, map[string]string{"LICENSED_SOME_COUNT": "0"}, "LICENSED_SOME_COUNT: is 0, must be 1 to 100"},
		{
			nil,
			map[string]string{"LICENSED_WAIT": "5"},
			`LICENSED_WAIT: "5" is not a duration like 500ms or 1m30s, at least 0s`,
		},
	} {
		if _, err := newSample().load(t, test.arguments, test.environment, ""); err == nil ||
			!strings.Contains(err.Error(), test.says) {
			t.Errorf("%v, want %q", err, test.says)
		}
	}
	// What the program finds wrong is placed alike.
	for _, test := range []struct {
		arguments []string
		file      string
		says      string
	}{
		{[]string{"--store", "x"}, "", "--store: is no URL"},
		{nil, "\nstore: x\n", "sample.yaml:2: store: is no URL"},
		{nil, "", "store: is no URL (set --store, LICENSED_STORE, or store in the settings file)"},
	} {
		loaded, err := newSample().load(t, test.arguments, nil, test.file)
		if err != nil {
			t.Fatal(err)
		}
		wrong := errors.New("store: is no URL")
		if err := loaded.At(wrong); !strings.HasSuffix(err.Error(), test.says) || !errors.Is(err, wrong) {
			t.Errorf("%v, want %q", err, test.says)
		}
	}
}

func TestHelp(t *testing.T) {
	s := newSample()
	var out bytes.Buffer
	s.table.Help(&out, s.command.Flags(), 0, func(s *Setting) bool { return s.For != Tuning })
	const want = `
First:
      --name name                         name of the process (default nobody)
      --wait duration                     time to wait (default 1s)

Second:
      --on                                switch it on (default false)
      --peers members                     members
      --store URL                         the store (default: the embedded one)
      --level level                       lowest level that is logged: info or warn (default info)
      --memory size                       memory (default 25%)
`
	if out.String() != want {
		t.Errorf("%s", out.String())
	}
}

func TestMarkdown(t *testing.T) {
	s := newSample()
	var out bytes.Buffer
	s.table.Markdown(&out, s.command.Flags())
	for _, line := range []string{
		"## First", "| `some-count` | whole number, events | `1` | 1 to 100 | events to read | tuning | node |",
		"| `store` | text, URL | the embedded one | any | the store | everyone | all |",
	} {
		if !strings.Contains(out.String(), "\n"+line+"\n") {
			t.Errorf("no line %q in %s", line, out.String())
		}
	}
}

func TestMaskPassword(t *testing.T) {
	for url, want := range map[string]string{
		"cassandra://user:p:a@ss@h1,h2/ks?x=1": "cassandra://user:" + masked + "@h1,h2/ks?x=1",
		"cassandra://user@h/ks":                "cassandra://user@h/ks",
		"cassandra://h/ks":                     "cassandra://h/ks",
		"/a/directory":                         "/a/directory",
		"":                                     "",
	} {
		if got := maskPassword(url); got != want {
			t.Errorf("%q is shown as %q, want %q", url, got, want)
		}
	}
}
