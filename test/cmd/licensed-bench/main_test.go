package main

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"

	"licensed/test/bench/path"
)

func TestCalledWrongly(t *testing.T) {
	for args, says := range map[string]string{
		"path --nonsense":                     "--nonsense",
		"path --store tape":                   `"tape" is neither`,
		"path --nodes 0":                      "--nodes",
		"path --turn 0s":                      "durations",
		"path --in-flight 0":                  "--in-flight: 0",
		"path --in-flight 9 --customers 8":    "--in-flight: 9",
		"path --store pebble --base ?group=1": "--base",
		"idle --for 0s":                       "durations",
	} {
		var out, problems bytes.Buffer
		code := execute(context.Background(), strings.Fields(args), &out, &problems)
		if code != exitUsage || !strings.Contains(problems.String(), says) {
			t.Errorf("%s: code %d, %s", args, code, problems.String())
		}
	}
}

// TestTimeout: a run that takes too long ends with an error that names the flag.
func TestTimeout(t *testing.T) {
	var out, problems bytes.Buffer
	code := execute(context.Background(), []string{
		"path", "--store", "pebble", "--binary", "/bin/sleep", "--timeout", "1ms", "--dir", t.TempDir(),
	}, &out, &problems)
	if code != exitFailed || !strings.Contains(problems.String(), "longer than --timeout 1ms") {
		t.Errorf("code %d, %s", code, problems.String())
	}
}

// TestVariants: a commit, parameters, or both.
func TestVariants(t *testing.T) {
	o := options{Config: path.Config{Tree: "/head"}, base: []string{"98a20e2", "?group_bytes=1", "98a20e2?a=1&b=2"}}
	want := []path.Variant{
		{Name: "today", Tree: "/head"},
		{Name: "98a20e2", Tree: "98a20e2"},
		{Name: "?group_bytes=1", Tree: "/head", Parameters: "group_bytes=1"},
		{Name: "98a20e2?a=1&b=2", Tree: "98a20e2", Parameters: "a=1&b=2"},
	}
	if got := o.variants(); !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
}
