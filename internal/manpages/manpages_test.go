package manpages

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// pages runs the command below a program with one verb, and returns the pages by name.
func pages(t *testing.T, epoch string) (map[string]string, error) {
	t.Helper()
	root := &cobra.Command{Use: "tool", Short: "Do things", SilenceErrors: true, SilenceUsage: true}
	verb := &cobra.Command{Use: "paint WALL", Short: "Paint a wall", Run: func(*cobra.Command, []string) {}}
	verb.Flags().String("colour", "white", "`COLOUR` of the wall")
	root.AddCommand(verb, Command("tool", func(string) string { return epoch }))
	dir := filepath.Join(t.TempDir(), "new")
	root.SetArgs([]string{"man", dir})
	if err := root.Execute(); err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.1"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(name)] = string(b)
	}
	return all, nil
}

// TestPages: each command has a page with its flags and the date of the release, the same each time.
func TestPages(t *testing.T) {
	first, err := pages(t, "1700000000")
	if err != nil {
		t.Fatal(err)
	}
	again, err := pages(t, "1700000000")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range first {
		if !bytes.Equal([]byte(text), []byte(again[name])) {
			t.Errorf("%s differs between two runs", name)
		}
	}
	paint := first["tool-paint.1"]
	for _, want := range []string{"Paint a wall", "colour", `"Nov 2023"`, "tool"} {
		if !strings.Contains(paint, want) {
			t.Errorf("tool-paint.1 has no %q:\n%s", want, paint)
		}
	}
	if _, ok := first["tool-man.1"]; ok {
		t.Error("the hidden command has a page")
	}
	if first["tool.1"] == "" || first["tool-completion-bash.1"] == "" {
		t.Errorf("a page is missing: %d pages", len(first))
	}
	if _, err := pages(t, "yesterday"); err == nil || !strings.Contains(err.Error(), "SOURCE_DATE_EPOCH") {
		t.Errorf("a wrong date: %v", err)
	}
}
