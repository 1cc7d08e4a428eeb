package policy

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"licensed/messages/licensedv1"
)

func parse(t *testing.T, text string) *Policy {
	t.Helper()
	p, err := Parse("policy.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestDefault(t *testing.T) {
	p := Default()
	if plan, d := p.InForce(""); plan != "standard" || d != 2 {
		t.Errorf("plan %s with %d devices", plan, d)
	}
	if title := p.Title("GlowS01E01"); title.Studio != "netflix" || p.Studio(title.Studio) != 100 {
		t.Errorf("GlowS01E01: %+v", title)
	}
	if got := p.String(); got != "policy default-1: 3 plans, 1 studios, 3 titles" {
		t.Errorf("described as %q", got)
	}
}

func TestParse(t *testing.T) {
	p := parse(t, `
titles:
  a: {studio: s, yearly_limit: 2, available_until: 2027-01-01}
  b: &b {yearly_limit: unlimited, available_until: 2027-01-01T06:00:00.1239+01:00}
  c: *b
  d: {}
defaults: {studio: other, studio_downloads: 7, yearly_limit: 9}
studios: {s: {downloads: 3}, t: {downloads: unlimited}}
plans:
  p: {devices: 1, allowances: {downloads: 4, at_a_time: 2, hours: 72}}
  q: {devices: 0, allowances: {downloads: 3}}
default_plan: q
yearly_counts: both
deactivations_per_year: 0
remembered_licences: 500
provisional_renewals: 0
provisional_hours: 72
licence_days: 2
version: 2026.9
`)
	if p.Remembered() != 500 {
		t.Errorf("%d licences are remembered", p.Remembered())
	}
	if got := p.Provisional(); got != (Provisional{0, 72 * time.Hour}) {
		t.Errorf("provisional: %+v", got)
	}
	if got := p.Allowances("p"); got != (Allowances{4, 2, 72 * time.Hour}) {
		t.Errorf("allowances of p: %+v", got)
	}
	if got := p.Allowances("q"); got != (Allowances{3, 1, 48 * time.Hour}) {
		t.Errorf("allowances of q: %+v", got)
	}
	if got := Default().Allowances("premium"); got != (Allowances{}) {
		t.Errorf("the default policy lends %+v", got)
	}
	if p.Version() != "2026.9" || p.Period() != 48*time.Hour || p.Counts() != Both || p.Deactivations() != 0 {
		t.Errorf("version %q, period %v, counts %v, deactivations %v",
			p.Version(), p.Period(), p.Counts(), p.Deactivations())
	}
	until := time.Date(2027, 1, 1, 5, 0, 0, 123e6, time.UTC)
	for id, want := range map[string]Title{
		"a": {Studio: "s", YearlyLimit: 2, AvailableUntil: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)},
		"b": {Studio: "other", YearlyLimit: Unlimited, AvailableUntil: until},
		"c": {Studio: "other", YearlyLimit: Unlimited, AvailableUntil: until},
		"d": {Studio: "other", YearlyLimit: 9},
		"e": {Studio: "other", YearlyLimit: 9},
	} {
		if got := p.Title(id); got != want {
			t.Errorf("title %s: %+v, want %+v", id, got, want)
		}
	}
	for id, want := range map[string]Limit{"s": 3, "t": Unlimited, "other": 7} {
		if got := p.Studio(id); got != want {
			t.Errorf("studio %s: %v, want %v", id, got, want)
		}
	}
	if plan, d := p.InForce("p"); plan != "p" || d != 1 {
		t.Errorf("plan p is %s with %d devices", plan, d)
	}
	if plan, d := p.InForce("gone"); plan != "q" || d != 0 {
		t.Errorf("plan gone is %s with %d devices", plan, d)
	}
	if _, ok := p.Plan("gone"); ok {
		t.Error("there is a plan that is not listed")
	}
}

// TestParseNewerRules reads the limits that the first policies did not have.
func TestParseNewerRules(t *testing.T) {
	p := parse(t, `
titles:
  a: {studio: s, hours_after_first_play: 48, available_until: 2027-01-01, end_within_days: 2}
  b: {studio: s, available_until: 2027-01-01}
  c: {hours_after_first_play: unlimited, available_until: 2027-01-01, end_within_days: unlimited}
  d: {studio: t, end_within_days: 3}
  e: {studio: u}
studios:
  s: {downloads: 3, hours_after_first_play: 24}
  t: {downloads: 3, hours_after_first_play: unlimited}
  u: {downloads: 3}
defaults: {studio: other, hours_after_first_play: 72, end_within_days: 0}
renew_after_play: true
plans:
  p: {devices: 1, titles_per_device: 10, downloads_per_month: 20, grace_days: 0}
  q: {devices: 2, titles_per_device: unlimited}
default_plan: q
`)
	until := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	for id, want := range map[string]Title{
		"a": {Studio: "s", PlayHours: 48, AvailableUntil: until, End: until.AddDate(0, 0, 2)},
		"b": {Studio: "s", PlayHours: 24, AvailableUntil: until, End: until},
		"c": {Studio: "other", AvailableUntil: until},
		"d": {Studio: "t"},
		"e": {Studio: "u", PlayHours: 72},
		"f": {Studio: "other", PlayHours: 72},
	} {
		if want.YearlyLimit = Unlimited; p.Title(id) != want {
			t.Errorf("title %s: %+v, want %+v", id, p.Title(id), want)
		}
	}
	if got, want := p.PlanLimits("p"), (Plan{1, 10, 20, 0}); got != want {
		t.Errorf("plan p: %+v, want %+v", got, want)
	}
	if got, want := p.PlanLimits("gone"), (Plan{2, Unlimited, Unlimited, Unlimited}); got != want {
		t.Errorf("the default plan: %+v, want %+v", got, want)
	}
	if !p.RenewAfterPlay() || !p.EndsTitles() || p.EndWithin() != 0 || p.StudioPlayHours("s") != 24 {
		t.Errorf("%+v", p)
	}
	if p := Default(); p.RenewAfterPlay() || p.EndsTitles() || p.EndWithin() != Unlimited {
		t.Errorf("the default policy has rules that it does not name: %+v", p)
	}
	// The unlisted titles are of a studio that may be listed.
	p = parse(t, good+"studios: {u: {downloads: 1, hours_after_first_play: 5}}\n"+
		"defaults: {studio: u, hours_after_first_play: 7}\ntitles: {a: {studio: v}}\n")
	if got := [2]uint32{p.Title("x").PlayHours, p.Title("a").PlayHours}; got != [2]uint32{5, 7} {
		t.Errorf("hours of an unlisted title and one of another studio: %v, want 5 and 7", got)
	}
}

func TestParseDefaults(t *testing.T) {
	const text = "plans: {p: {devices: 1}}\ndefault_plan: p\n"
	p := parse(t, text)
	if p.Title("x") != (Title{Studio: "unlisted", YearlyLimit: Unlimited}) || p.Studio("y") != Unlimited ||
		p.Deactivations() != Unlimited ||
		p.Period() != 30*24*time.Hour || p.Counts() != Downloads || p.Remembered() != 10_000 ||
		p.Provisional() != (Provisional{2, 24 * time.Hour}) {
		t.Errorf("defaults: %+v", p)
	}
	if len(p.Version()) != 8 {
		t.Errorf("version %q, want 8 digits", p.Version())
	}
	if q := parse(t, text+"# another file"); q.Version() == p.Version() || q.SameContent(p) {
		t.Error("the version does not tell files apart")
	}
}

const good = "plans: {p: {devices: 1}}\ndefault_plan: p\n"

// mistakes are files with what is wrong about them.
var mistakes = map[string]struct{ text, want string }{
	"empty":   {"", "f: the file is empty"},
	"comment": {"# nothing\n", "f: the file is empty"},
	"scalar": {"abc", "f:1: must be a mapping, not \"abc\"\nf:1: plans: is required\n" +
		"f:1: default_plan: is required"},
	"syntax":    {good + "studios: {", "f:3: did not find expected node content"},
	"documents": {good + "---\n" + good, "f:3: a second document; a policy is one"},
	"duplicate": {good + "licence_days: 1\nlicence_days: 2\n", "f:4: licence_days: is given twice, first in line 3"},
	"merge":     {good + "defaults: {<<: {studio: x}}", "f:3: defaults: a key must be a plain word"},
	"plan limit": {"plans: {p: {devices: unlimited}}\n" +
		"default_plan: p\n", `f:1: plans.p.devices: must be a whole number from 0 to 1000, not "unlimited"`},
	"allowances": {"plans: {p: {devices: 1, allowances: {hours: 0, days: 2}}}\ndefault_plan: p\n",
		"f:1: plans.p.allowances.hours: must be a whole number from 1 to 720, not \"0\"\n" +
			"f:1: plans.p.allowances.days: unknown field, want downloads, at_a_time or hours\n" +
			"f:1: plans.p.allowances.downloads: is required"},
	"no plan": {"plans: {p: {devices: 1}, q: {devices: 1}}\n" +
		"default_plan: r\n", `f:2: default_plan: there is no plan "r", want one of p, q`},
	"required": {"{}", "f:1: plans: is required\nf:1: default_plan: is required"},
	"no history": {
		good + "history_days: 0", `f:3: history_days: must be a whole number from 1 to 36500 or unlimited, not "0"`,
	},
	"newer rules": {
		"plans:\n  p:\n    devices: 1\n    titles_per_device: 10001\n    downloads_per_month: 251\n" +
			"    grace_days: never\ndefault_plan: p\nrenew_after_play: maybe\n" +
			"studios: {s: {downloads: 1, hours_after_first_play: 0}}\ntitles: {t: {hours_after_first_play: 8761}}\n" +
			"defaults: {end_within_days: 3651}\n",
		`f:4: plans.p.titles_per_device: must be a whole number from 0 to 10000 or unlimited, not "10001"
f:5: plans.p.downloads_per_month: must be a whole number from 0 to 250 or unlimited, not "251"
f:6: plans.p.grace_days: must be a whole number from 0 to 3650 or unlimited, not "never"
f:8: renew_after_play: must be true or false, not "maybe"
f:9: studios.s.hours_after_first_play: must be a whole number from 1 to 8760 or unlimited, not "0"
f:10: titles.t.hours_after_first_play: must be a whole number from 1 to 8760 or unlimited, not "8761"
f:11: defaults.end_within_days: must be a whole number from 0 to 3650 or unlimited, not "3651"`,
	},
	"version": {good + "version: a b", `f:3: version: must be 1 to 32 letters, digits, '.', '_' or '-', not "a b"`},
	"many": {`plans:
  p: {devices: -1, colour: red}
  a/b: {devices: 1}
  q: {}
default_plan: p
studios:
  s: 3
  u: {}
licence_days: 0
yearly_counts: all
deactivations_per_year: 251
titles:
  x: {studio: [s], yearly_limit: 2.5, available_until: soon}
  y: {year: 2}
  z:
defaults: {studio: "", studio_downloads: many, yearly_limit: }
colour: red
`, `f:2: plans.p.devices: must be a whole number from 0 to 1000, not "-1"
f:2: plans.p.colour: unknown field, want devices, titles_per_device, downloads_per_month, grace_days or allowances
f:3: plans.a/b: must be an id of 1 to 128 bytes without control characters, ':' or '/', not "a/b"
f:4: plans.q.devices: is required
f:7: studios.s: must be a mapping, not "3"
f:7: studios.s.downloads: is required
f:8: studios.u.downloads: is required
f:9: licence_days: must be a whole number from 1 to 3650, not "0"
f:10: yearly_counts: must be downloads, playbacks or both, not "all"
f:11: deactivations_per_year: must be a whole number from 0 to 250 or unlimited, not "251"
f:13: titles.x.studio: must be an id, not a list
f:13: titles.x.yearly_limit: must be a whole number from 0 to 250 or unlimited, not "2.5"
f:13: titles.x.available_until: must be a date (2027-01-01) or a time (2027-01-01T06:00:00Z), not "soon"
f:14: titles.y.year: unknown field, want studio, yearly_limit, available_until, end_within_days or ` + `hours_after_first_play
f:15: titles.z: must be a mapping, not nothing
f:16: defaults.studio: must be an id of 1 to 128 bytes without control characters, ':' or '/', not ""
f:16: defaults.studio_downloads: must be a whole number from 0 to 1000000 or unlimited, not "many"
f:16: defaults.yearly_limit: must be a whole number from 0 to 250 or unlimited, not nothing
f:17: colour: unknown field, want version, licence_days, yearly_counts, deactivations_per_year, remembered_licences, history_days, provisional_renewals, provisional_hours, renew_after_play, default_plan, plans, studios, titles or defaults`},
}

// TestErrors wants each mistake of a file, by line and field, in one error.
func TestErrors(t *testing.T) {
	for name, c := range mistakes {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("f", []byte(c.text))
			var all Errors
			if !errors.As(err, &all) {
				t.Fatalf("error %v, want Errors", err)
			}
			if err.Error() != c.want {
				t.Errorf("got\n%s\nwant\n%s", err, c.want)
			}
		})
	}
}

func TestHistory(t *testing.T) {
	for text, want := range map[string]struct {
		keep time.Duration
		ok   bool
	}{
		"":                          {0, false},
		"history_days: 2\n":         {48 * time.Hour, true},
		"history_days: 36500\n":     {36500 * 24 * time.Hour, true},
		"history_days: unlimited\n": {0, true},
	} {
		p, err := Parse("f", []byte(good+text))
		if err != nil {
			t.Fatal(err)
		}
		if keep, ok := p.History(); keep != want.keep || ok != want.ok {
			t.Errorf("%q: %v, %t", text, keep, ok)
		}
	}
}

func TestErrorsAreCut(t *testing.T) {
	_, err := Parse("f", []byte("plans: {p: {devices: 1}}\ndefault_plan: p\n"+strings.Repeat("? [a]\n: b\n", 25)))
	if err == nil || !strings.HasSuffix(err.Error(), "\nand 5 more") {
		t.Errorf("got %v", err)
	}
}

func TestLimit(t *testing.T) {
	for _, c := range []struct {
		limit Limit
		count int
		met   bool
	}{{0, 0, true}, {1, 0, false}, {1, 1, true}, {1, 2, true}, {Unlimited, 1 << 40, false}} {
		if c.limit.Met(c.count) != c.met {
			t.Errorf("limit %v met by %d: %v, want %v", c.limit, c.count, !c.met, c.met)
		}
	}
}

// TestCounts keeps the values in step with the stored enumeration.
func TestCounts(t *testing.T) {
	for c, stored := range map[Counts]licensedv1.YearlyCounts{
		Downloads: licensedv1.YearlyCounts_YEARLY_COUNTS_DOWNLOADS,
		Playbacks: licensedv1.YearlyCounts_YEARLY_COUNTS_PLAYBACKS,
		Both:      licensedv1.YearlyCounts_YEARLY_COUNTS_BOTH,
	} {
		if int32(c) != int32(stored) {
			t.Errorf("%v is %d, stored as %d", c, c, stored)
		}
	}
}

type stub struct{}

func (stub) Title(id string) (Title, bool) {
	return Title{Studio: "of " + id, YearlyLimit: 1}, id == "x"
}

func TestWithCatalogue(t *testing.T) {
	p := Default()
	q := p.WithCatalogue(stub{})
	if q.Title("x").Studio != "of x" || q.Title("y").Studio != "unlisted" || p.Title("x").Studio != "unlisted" {
		t.Error("the catalogue was not replaced, or the former policy changed")
	}
}

// manyTitles is a policy file with n titles, like those of a large catalogue.
func manyTitles(n int) []byte {
	var b strings.Builder
	b.WriteString("plans: {p: {devices: 2}}\ndefault_plan: p\ntitles:\n")
	for i := range n {
		fmt.Fprintf(&b,
			"  Title%06dS01E01: {studio: studio-%d, yearly_limit: %d, available_until: 2027-01-01T00:00:00Z}\n",
			i, i%500, i%7)
	}
	return []byte(b.String())
}

func TestManyTitles(t *testing.T) {
	p := parse(t, string(manyTitles(100_000)))
	for _, i := range []int{0, 1, 54321, 99_999} {
		title := p.Title(fmt.Sprintf("Title%06dS01E01", i))
		if title.Studio != fmt.Sprintf("studio-%d", i%500) || title.YearlyLimit != Limit(i%7) {
			t.Errorf("title %d: %+v", i, title)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(defaultFile)
	f.Add([]byte("plans: &a {p: {devices: 1}}\ndefault_plan: p\nstudios: *a\n"))
	f.Add([]byte("? [a, b]\n: {<<: *x}\n--- 1\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse("f", data)
		if (p == nil) == (err == nil) {
			t.Fatal("neither a policy nor an error, or both")
		}
		if err != nil {
			if err.Error() == "" {
				t.Fatal("an empty error")
			}
			return
		}
		if _, ok := p.Plan(p.defaultPlan); !ok || p.Version() == "" || p.Period() <= 0 {
			t.Fatalf("accepted %+v", p)
		}
	})
}

func BenchmarkTitle(b *testing.B) {
	p, err := Parse("f", manyTitles(100_000))
	if err != nil {
		b.Fatal(err)
	}
	ids := make([]string, 1024)
	for i := range ids {
		ids[i] = fmt.Sprintf("Title%06dS01E01", i*97)
	}
	i := 0
	for b.Loop() {
		if p.Title(ids[i&1023]).Studio == "unlisted" {
			b.Fatal("not found")
		}
		i++
	}
}

func BenchmarkParse100kTitles(b *testing.B) {
	data := manyTitles(100_000)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse("f", data); err != nil {
			b.Fatal(err)
		}
	}
}
