package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"licensed/messages/licensedv1"
)

// verbArguments are arguments for each verb that takes any, by its path; $CUSTOMER, $DEVICE and $TITLE stand for ids.
// export and import are last: they write, and read what was written.
var verbArguments = map[string]string{
	"acquire":                  "$CUSTOMER $DEVICE $TITLE",
	"renew":                    "$CUSTOMER $DEVICE $TITLE",
	"release":                  "$CUSTOMER $DEVICE $TITLE",
	"play":                     "$CUSTOMER $DEVICE $TITLE",
	"sync":                     "$CUSTOMER $DEVICE --fact 1,played,$TITLE,2016-03-01T19:00:00Z",
	"deactivate":               "$CUSTOMER $DEVICE",
	"plan":                     "$CUSTOMER premium",
	"select":                   "$CUSTOMER $DEVICE",
	"exception list":           "$CUSTOMER",
	"exception grant devices":  "$CUSTOMER 3 --until 2099-01-01 --reason ticket",
	"exception grant titles":   "$CUSTOMER 30 --until 2099-01-01 --reason ticket",
	"exception grant monthly":  "$CUSTOMER 60 --until 2099-01-01 --reason ticket",
	"exception grant studio":   "$CUSTOMER unlisted 3 --until 2099-01-01 --reason ticket",
	"exception grant yearly":   "$CUSTOMER unlimited --title $TITLE --until 2099-01-01 --reason ticket",
	"exception grant removals": "$CUSTOMER 3 --until 2099-01-01 --reason ticket",
	"exception grant removal":  "$CUSTOMER --reason ticket",
	"exception grant download": "$CUSTOMER $TITLE --reason ticket",
	"exception grant play":     "$CUSTOMER $TITLE --reason ticket",
	"exception grant merge":    "$CUSTOMER $DEVICE new-device --reason ticket",
	"exception withdraw":       "$CUSTOMER 1 --reason ticket",
	"customer":                 "$CUSTOMER",
	"licenses":                 "$CUSTOMER",
	"devices":                  "$CUSTOMER",
	"downloads":                "$CUSTOMER $TITLE",
	"events":                   "$CUSTOMER",
	"state":                    "$CUSTOMER",
	"diff":                     "$CUSTOMER 1",
	"why":                      "$CUSTOMER $DEVICE $TITLE",
	"try":                      "$CUSTOMER acquire $DEVICE $TITLE",
	"verify":                   "$CUSTOMER",
	"archive":                  "$CUSTOMER",
	"passivate":                "$CUSTOMER",
	"forget":                   "nobody --even-if-unknown --reason why",
	"audit verify":             "$DIR/audit.log",
	"cluster drain":            "$NODE --wait 0s",
	"cluster undrain":          "$NODE --wait 0s",
	"bench":                    "--duration 10ms --warmup 0s --concurrency 1 --customers 1",
	"top":                      "--interval 100ms",
	"export":                   "$CUSTOMER --out -",
	"import":                   "$DIR/$FORM.jsonl",
	"policy reload":            "",
	"man":                      "$DIR/man",
}

// runnable calls f with all verbs of the program, their paths without the program's name. Those that cobra makes for
// shells are not among them.
func runnable(f func(path string, c *cobra.Command)) {
	p := &program{stdout: io.Discard, stderr: io.Discard, width: func() int { return 0 }}
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			if sub.Name() != "help" && sub.Name() != "completion" && sub.Runnable() {
				f(strings.TrimPrefix(sub.CommandPath(), "licensectl "), sub)
			}
			walk(sub)
		}
	}
	walk(p.rootCommand())
}

// ids replaces the words of verbArguments that stand for ids. They are put in after the line was split.
type ids map[string]string

// of returns the arguments of a verb.
func (x ids) of(path string) []string {
	args := strings.Fields(path + " " + verbArguments[path])
	for i := range args {
		for _, word := range slices.Sorted(maps.Keys(x)) {
			args[i] = strings.ReplaceAll(args[i], word, x[word])
		}
	}
	return args
}

// call runs a command line and returns what it wrote to each stream.
func (s *session) call(args ...string) (stdout, stderr string, code int) {
	s.t.Helper()
	var out, failed bytes.Buffer
	p := &program{
		stdout: &out, stderr: &failed, now: s.now, width: func() int { return 0 }, completion: time.Minute,
		newID: func() string { return "id-" + time.Now().Format("150405.000000000") },
		getenv: func(name string) string {
			return map[string]string{"LICENSED_SERVER": s.node.API().String()}[name]
		},
	}
	code = p.run(s.t.Context(), args)
	return out.String(), failed.String(), code
}

// verbSession returns a session with a customer, ids for verbArguments, and the files that they name.
func verbSession(t *testing.T, customer, device, title string) (*session, ids) {
	s := newSession(t)
	s.write("audit.log", "")
	s.write("policy.yaml", "version: second\ndefault_plan: standard\n"+
		"plans: {standard: {devices: 2}, premium: {devices: 4, allowances: {downloads: 3}}}\n"+
		"studios: {netflix: {downloads: 100}}\n")
	s.call("policy", "reload")
	if out, failed, code := s.call("acquire", customer, device, title); code != 0 {
		t.Fatalf("acquire: exit %d: %s%s", code, out, failed)
	}
	exported, failed, code := s.call("export", customer)
	if code != 0 {
		t.Fatalf("export: exit %d: %s", code, failed)
	}
	s.write("table.jsonl", exported)
	s.write("json.jsonl", exported)
	described, _, _ := s.call("node", "--output", "json")
	var process struct{ Name string }
	if err := json.Unmarshal([]byte(described), &process); err != nil {
		t.Fatal(err)
	}
	return s, ids{
		"$CUSTOMER": customer, "$DEVICE": device, "$TITLE": title, "$NODE": process.Name, "$DIR": s.dir,
		"$FORM": "table",
	}
}

// values decodes a stream of JSON values and returns their number.
func values(text string) (n int, err error) {
	d := json.NewDecoder(strings.NewReader(text))
	for {
		var v any
		err := d.Decode(&v)
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		n++
	}
}

// TestVerbsHaveArguments: the tests below call every verb in its normal form.
func TestVerbsHaveArguments(t *testing.T) {
	runnable(func(path string, c *cobra.Command) {
		_, listed := verbArguments[path]
		if takes := len(strings.Fields(c.Use)) > 1; takes && !listed {
			t.Errorf("verbArguments lacks %s", path)
		}
	})
}

// TestVerbsJSON: with --output json each verb prints JSON and nothing else, or fails with exit code 2 and reports it in
// JSON. So do the verbs that cobra adds.
func TestVerbsJSON(t *testing.T) {
	s, x := verbSession(t, "Bayley", "iphone", "GlowS01E01")
	check := func(path string, args []string) {
		out, failed, code := s.call(append(args, "--output", "json")...)
		n, err := values(out)
		if err != nil {
			t.Errorf("%s writes other things than JSON to stdout: %v\n%s", path, err, out)
		}
		var failure struct {
			ExitCode      int
			Reason, Error string
		}
		lines := strings.Split(strings.TrimSpace(failed), "\n")
		last := json.Unmarshal([]byte(lines[len(lines)-1]), &failure)
		switch {
		case code == 0 && n == 0:
			t.Errorf("%s prints no JSON: %s", path, failed)
		case code != 0 && (last != nil || failure.ExitCode != code || failure.Error == ""):
			t.Errorf("%s: exit %d without an error in JSON: %s", path, code, failed)
		case code != 0 && code != exitUsage && code != exitRefused && failure.Reason != licensedv1.ReasonUnsupported:
			t.Errorf("%s: exit %d: %s", path, code, failed)
		}
	}
	runnable(func(path string, _ *cobra.Command) { check(path, x.of(path)) })
	for _, line := range []string{"", "help", "help events", "completion bash", "completion fish", "audit"} {
		check(line, strings.Fields(line))
	}
	if out, _, _ := s.call("top", "--output", "json"); out != "" {
		t.Errorf("top: %s", out)
	}
}

// TestVerbsUnknownCustomer: each verb about a customer exits with 4 for one without a history, in both forms, and
// prints nothing but the error. Commands of a customer are no such verbs: the first one makes the customer known.
func TestVerbsUnknownCustomer(t *testing.T) {
	s, x := verbSession(t, "Bayley", "iphone", "GlowS01E01")
	x["$CUSTOMER"] = "Nobody"
	checked := 0
	runnable(func(path string, c *cobra.Command) {
		if !strings.Contains(verbArguments[path], "$CUSTOMER") || c.Flags().Lookup("validate-only") != nil {
			return
		}
		checked++
		for _, form := range []string{"table", "json"} {
			out, failed, code := s.call(append(x.of(path), "--output", form)...)
			if code != exitNotFound || !strings.Contains(failed, "customer Nobody has no history") {
				t.Errorf("%s as %s: exit %d, want 4: %s%s", path, form, code, out, failed)
			}
			if out != "" && path != "export" { // The file's first line is written before anybody is asked.
				t.Errorf("%s as %s prints %s", path, form, out)
			}
		}
	})
	if checked < 13 {
		t.Errorf("%d verbs", checked)
	}
}

// Characters without a glyph: one that reverses the line, one of no width, and one that ends a line.
const hidden = "\u202e\u200b\u2028"

// TestVerbsEscape: no verb writes a character of an id that has no glyph as it is, in either form, also in errors.
func TestVerbsEscape(t *testing.T) {
	s, x := verbSession(t, "B\u202eay", "ip\u200bhone", "Glow\u2028S01")
	for _, form := range []string{"table", "json"} {
		x["$FORM"] = form
		runnable(func(path string, _ *cobra.Command) {
			for _, args := range [][]string{
				x.of(path),
				append(strings.Fields(path), "x\u202ey", "\u200bz", "\u2028", "v", "w"), // wrong, so an error
				append(x.of(path), "--no\u202esuch"),
			} {
				out, failed, code := s.call(append(args, "--output", form)...)
				if strings.ContainsAny(out+failed, hidden) {
					t.Errorf("%s as %s, exit %d: %q%q", path, form, code, out, failed)
				}
			}
		})
	}
}

// TestVerbsComplete: each argument and flag that names something the server knows is completed.
func TestVerbsComplete(t *testing.T) {
	s, x := verbSession(t, "Bayley", "iphone", "GlowS01E01")
	s.call("acquire", "Bayley", "ipad", "GlowS01E02")
	known := map[string]string{
		"CUSTOMER": "Bayley", "DEVICE": "iphone", "TITLE": "GlowS01E01", "PLAN": "premium", "NODE": x["$NODE"],
		"VERB": "deactivate", "STUDIO": "netflix", "EXCEPTION": "1",
	}
	s.call("exception", "grant", "devices", "Bayley", "3", "--until", "2100-01-01", "--reason", "test")
	completes := func(want string, args ...string) {
		t.Helper()
		out, _, code := s.call(append([]string{"__complete"}, args...)...)
		if code != 0 || !slices.ContainsFunc(strings.Split(out, "\n"), func(line string) bool {
			value, _, _ := strings.Cut(line, "\t") // A description follows the value.
			return value == want
		}) {
			t.Errorf("%q: exit %d, no %s in\n%s", args, code, want, out)
		}
	}
	arguments := map[string]int{}
	runnable(func(path string, c *cobra.Command) {
		args := strings.Fields(path)
		for {
			name := argumentAt(c, args[len(strings.Fields(path)):])
			if name == "" || arguments[path] > 5 {
				break
			}
			if want := known[name]; want != "" {
				completes(want, append(args, want[:1])...)
				arguments[name]++
			}
			arguments[path]++
			args = append(args, known[name])
		}
		for _, flag := range []string{"device", "title", "studio"} {
			if c.Flags().Lookup(flag) != nil {
				completes(known[strings.ToUpper(flag)], append(strings.Fields(path), "Bayley", "--"+flag, "")...)
			}
		}
	})
	for name := range known {
		if arguments[name] == 0 {
			t.Errorf("no verb has an argument %s: %v", name, arguments)
		}
	}
}

// TestVerbsNearest: a mistyped or shortened verb is answered with the one that was meant, on each level.
func TestVerbsNearest(t *testing.T) {
	s, _ := verbSession(t, "Bayley", "iphone", "GlowS01E01")
	runnable(func(path string, c *cobra.Command) {
		words := strings.Fields(path)
		last := words[len(words)-1]
		mistyped := last[:1] + last[2:3] + last[1:2] + last[3:]
		for _, wrong := range []string{mistyped, last + "x"} {
			_, failed, code := s.call(append(words[:len(words)-1:len(words)-1], wrong)...)
			if code != exitUsage || !strings.Contains(failed, "; did you mean "+c.CommandPath()+"?") {
				t.Errorf("%s: exit %d: %s", wrong, code, failed)
			}
		}
	})
	for _, line := range []string{"try Bayley relese iphone GlowS01E01", "help evnets", "completion bsh"} {
		_, failed, code := s.call(strings.Fields(line)...)
		if code != exitUsage || !strings.Contains(failed, "did you mean") {
			t.Errorf("%s: exit %d: %s", line, code, failed)
		}
	}
}

// TestServerClock: what is active, expired or released is told by the service's clock and not by that of the caller.
func TestServerClock(t *testing.T) {
	s, _ := verbSession(t, "Bayley", "iphone", "GlowS01E01")
	for _, verb := range []string{"licenses", "devices", "customer"} {
		var at [2]string
		for i, skew := range []time.Duration{0, year} {
			var out bytes.Buffer
			p := &program{
				stdout: &out, stderr: &out, now: func() time.Time { return s.now().Add(skew) },
				width: func() int { return 0 }, getenv: environment(s.node.API().String()),
			}
			p.run(t.Context(), []string{verb, "Bayley"})
			at[i] = out.String()
		}
		if at[0] != at[1] || !strings.Contains(at[0], "active") {
			t.Errorf("%s: %s\nand a year ahead\n%s", verb, at[0], at[1])
		}
	}
}

// TestValidateOnly: a command that was only validated is not told as one that was executed.
func TestValidateOnly(t *testing.T) {
	s, x := verbSession(t, "Bayley", "iphone", "GlowS01E01")
	runnable(func(path string, c *cobra.Command) {
		if c.Flags().Lookup("validate-only") == nil {
			return
		}
		out, failed, code := s.call(append(x.of(path), "--validate-only")...)
		switch path {
		case "exception grant removal", "exception grant play", "exception withdraw": // There is none.
			if code != exitRefused || out != "" {
				t.Errorf("%s: exit %d: %s%s", path, code, out, failed)
			}
			return
		}
		if code != 0 || !strings.Contains(out, "would be allowed; nothing was recorded") {
			t.Errorf("%s: exit %d: %s%s", path, code, out, failed)
		}
		for _, executed := range []string{
			"acquired:", "renewed:", "released:", "played:", "synced:", "recorded;", "deactivated", "plan of",
			"granted:", "withdrawn:",
		} {
			if strings.HasPrefix(out, executed) || executed == "deactivated" && strings.Contains(out, executed) {
				t.Errorf("%s: %s", path, out)
			}
		}
	})
}
