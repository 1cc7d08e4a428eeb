package cassandra

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestSplitStatements(t *testing.T) {
	for text, want := range map[string][]string{
		"":                                   nil,
		"-- only a comment":                  nil,
		"-- a; b\n;\n":                       nil,
		"A":                                  {"A"},
		"A;B;":                               {"A", "B"},
		"A -- x; y\n  B\n\tC;--\nD":          {"A B C", "D"},
		"A 'b;--c' D; E":                     {"A 'b;--c' D", "E"},
		"A 'it''s -- one' -- two'\nB;":       {"A 'it''s -- one' B"},
		"A WITH x = {'a': 'b'} AND y = ';';": {"A WITH x = {'a': 'b'} AND y = ';'"},
	} {
		if got := splitStatements([]byte(text)); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func FuzzSplitStatements(f *testing.F) {
	f.Add("A -- x; y\n  B 'c;--' ;D--")
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Count(text, "'")%2 != 0 {
			return
		}
		once := splitStatements([]byte(text))
		for _, s := range once {
			if strings.Contains(s, "'") {
				continue // within quotes anything goes
			}
			if again := splitStatements([]byte(s)); len(again) != 1 || again[0] != s {
				t.Errorf("%q splits to %q, which splits to %q", text, once, again)
			}
		}
	})
}

// TestMigrations holds the files to what makes them safe to apply twice and by two nodes at once.
func TestMigrations(t *testing.T) {
	bootstrap, err := readStatements(bootstrapFile)
	if err != nil {
		t.Fatal(err)
	}
	all := []migration{{name: "bootstrap", statements: bootstrap}}
	for _, which := range []Schema{HotSchema, ArchiveSchema} {
		files, err := migrations(which)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, files...)
	}
	for _, m := range all {
		if len(m.statements) == 0 {
			t.Errorf("%s: no statements", m.name)
		}
		for _, s := range m.statements {
			adds := strings.HasPrefix(s, "ALTER TABLE ") && strings.Contains(s, " ADD IF NOT EXISTS ")
			if !adds && !strings.HasPrefix(s, "CREATE TABLE IF NOT EXISTS ") {
				t.Errorf("%s: %.50s…: cannot be applied twice", m.name, s)
			}
			if !adds && !strings.Contains(s, "read_repair = 'BLOCKING'") {
				t.Errorf("%s: %.50s…: reads would not be monotonic", m.name, s)
			}
		}
	}
	if _, err := migrations("other"); err == nil {
		t.Error("a schema that does not exist has files")
	}
}

// TestMigrationsNeverChange: a file that was released is what keyspaces have.
func TestMigrationsNeverChange(t *testing.T) {
	for which, released := range map[Schema][]string{
		HotSchema: {
			"journal bc97f3cb5d342e7d905fcdd88c96b500a6589828b319ee4a074502ef07b4caf3",
			"ownership fe4e38bc3daf8079dc4d9de521ae507ae7b9a826c06de2602ed8139fa380ba7c",
			"identity 31abecd9c3deff0fcf6ff601a20e5dcb74ebe7dad30001a9df034d8946c66c52",
			"votes 0b0e2bf19d9ac0c88a42e24a311ed0d1a00de0f5beab673105f43b4489b0c535",
			"tombstones c6aab7da37eec71f886f8d6494048503ea291f57d75208e4f9fe7b8ff9bd974b",
		},
		ArchiveSchema: {"segments 9070b6d980ab81ef935ed320d3b782afb0beeee42b03a814ecf1053bd8dba202"},
	} {
		all, err := migrations(which)
		if err != nil {
			t.Fatal(err)
		}
		for i, m := range all {
			if got := m.name + " " + m.checksum; i >= len(released) || got != released[i] {
				t.Errorf("%s version %d is %s; a released file must not change: add another", which, m.version, got)
			}
		}
	}
}

func TestJudgeSchema(t *testing.T) {
	applied := SchemaVersion{Version: 1, Name: "one", Known: true, AppliedAt: time.Now()}
	missing, changed, newer := applied, applied, applied
	missing.AppliedAt, changed.Changed, newer.Known = time.Time{}, true, false
	for says, state := range map[string][]SchemaVersion{
		"":                 {applied},
		"schema apply":     {applied, missing},
		"other statements": {changed, missing},
		"newer":            {applied, newer},
	} {
		err := judgeSchema(state)
		if (err == nil) != (says == "") ||
			err != nil && (!errors.Is(err, ErrSchema) || !strings.Contains(err.Error(), says)) {
			t.Errorf("%+v: %v, want %q", state, err, says)
		}
	}
}
