package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
)

func TestCalledWrongly(t *testing.T) {
	for args, says := range map[string]string{
		"path --nonsense":                       "--nonsense",
		"path --store tape":                     `"tape" is neither`,
		"path --nodes 0":                        "--nodes",
		"path --turn 0s":                        "durations",
		"path --in-flight 0":                    "--in-flight: 0",
		"path --in-flight 9 --customers 8":      "--in-flight: 9",
		"path --store pebble --compare group=1": "--compare",
		"idle --for 0s":                         "durations",
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

// TestVariants: names are those of keyspaces.
func TestVariants(t *testing.T) {
	o := options{base: "98a20e2", compare: []string{"batches_in_flight=2"}}
	var names []string
	for _, v := range o.variants() {
		names = append(names, v.Name)
	}
	if got := strings.Join(names, " "); got != "today base batchesinflight2" {
		t.Error(got)
	}
}
