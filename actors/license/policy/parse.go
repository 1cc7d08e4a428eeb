package policy

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"go.yaml.in/yaml/v3"

	"licensed/actors/license/ids"
)

// Bounds of the file's numbers and words, beside MaxYearlyLimit.
const (
	maxDevices     = 1000
	maxStudioLimit = 1_000_000
	maxDays        = 3650
	maxHistoryDays = 36500
	// A state with this many licences, each of a device and a title with the longest ids, stays below what a store
	// takes, 8 MiB.
	maxRemembered     = 20_000
	defaultRemembered = 10_000
	maxVersion        = 32
	maxProvisional    = 100
	maxProvisionalHrs = 30 * 24
	maxDeviceTitles   = 10_000
	maxPlayHours      = 365 * 24
	maxLent           = 50
	maxAllowances     = 16
	maxAllowanceHours = 30 * 24
)

// Error is one mistake in a policy file.
type Error struct {
	// File as it was named to Parse.
	File string
	// Line from 1; 0 if the mistake is at no particular line.
	Line int
	// Field, "titles.GlowS01E01.yearly_limit"; empty if the mistake is in no particular field.
	Field string
	// Message says what is wrong.
	Message string
}

// Error has the place in the way of compilers, FILE:LINE: FIELD: MESSAGE, without the
// parts that are not known.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
	}
	b.WriteString(": ")
	if e.Field != "" {
		b.WriteString(e.Field + ": ")
	}
	b.WriteString(e.Message)
	return b.String()
}

// Errors are all mistakes in a policy file, in the order of their lines.
type Errors []*Error

// maxShown is the number of errors Errors.Error spells out.
const maxShown = 20

// Error returns the mistakes, one a line, at most 20 of them.
func (e Errors) Error() string {
	var b strings.Builder
	for i, err := range e {
		if i == maxShown {
			fmt.Fprintf(&b, "\nand %d more", len(e)-i)
			break
		}
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(err.Error())
	}
	return b.String()
}

// Unwrap returns the mistakes.
func (e Errors) Unwrap() []error {
	errs := make([]error, len(e))
	for i, err := range e {
		errs[i] = err
	}
	return errs
}

// Parse reads a policy from the content of a YAML file (deploy/policy.example.yaml describes it). The
// name of the file is for errors only. An error is of type Errors and names every mistake; after a
// mistake in the YAML syntax nothing further is looked at.
func Parse(name string, data []byte) (*Policy, error) {
	f := &file{name: name}
	sum := sha256.Sum256(data)
	p := &Policy{
		// What the file leaves out keeps the values of this literal; plans and the
		// default plan are required.
		version:       hex.EncodeToString(sum[:4]),
		sum:           sum,
		plans:         map[string]Plan{},
		studios:       map[string]Studio{},
		allowances:    map[string]Allowances{},
		studioDefault: Unlimited,
		unlisted:      Title{Studio: "unlisted", YearlyLimit: Unlimited},
		endWithin:     Unlimited,
		deactivations: Unlimited,
		period:        30 * 24 * time.Hour,
		counts:        Downloads,
		remembered:    defaultRemembered,
		provisional:   Provisional{Renewals: 2, For: 24 * time.Hour},
	}
	if root := f.document(data); root != nil {
		f.policy(p, root)
	}
	if len(f.errs) > 0 {
		// In the order of the file: the parser reads the titles last.
		slices.SortStableFunc(f.errs, func(a, b *Error) int { return cmp.Compare(a.Line, b.Line) })
		return nil, f.errs
	}
	return p, nil
}

// file is a policy file being read. Its methods report mistakes to errs and continue.
type file struct {
	name string
	errs Errors
}

// fail reports a mistake at a node; the path is the field's, from the top.
func (f *file) fail(n *yaml.Node, message string, path ...string) {
	e := &Error{File: f.name, Field: strings.Join(path, "."), Message: message}
	if n != nil {
		e.Line = n.Line
	}
	f.errs = append(f.errs, e)
}

// syntaxError takes the line out of an error of package yaml, which has it in its text.
var syntaxError = regexp.MustCompile(`(?s)^yaml: (?:line (\d+): )?(.*)$`)

// document returns the root of the one document of the file, or nil.
func (f *file) document(data []byte) *yaml.Node {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	err := dec.Decode(&doc)
	if errors.Is(err, io.EOF) {
		f.fail(nil, "the file is empty")
		return nil
	}
	// The decoder would pass over a second document in silence.
	if err == nil {
		if err = dec.Decode(&second); err == nil {
			f.fail(&second, "a second document; a policy is one")
			return nil
		}
	}
	if !errors.Is(err, io.EOF) {
		e := &Error{File: f.name, Message: err.Error()}
		if m := syntaxError.FindStringSubmatch(err.Error()); m != nil {
			e.Line, _ = strconv.Atoi(m[1]) // no line: 0
			e.Message = m[2]
		}
		f.errs = append(f.errs, e)
		return nil
	}
	return doc.Content[0]
}

// policy reads the top of the file.
func (f *file) policy(p *Policy, root *yaml.Node) {
	var titles, defaultPlan *yaml.Node
	plans := false
	f.each(root, func(key string, k, v *yaml.Node) {
		switch key {
		case "version":
			f.version(&p.version, v)
		case "licence_days":
			if n, ok := f.number(v, 1, maxDays, key); ok {
				p.period = time.Duration(n) * 24 * time.Hour
			}
		case "yearly_counts":
			f.counts(&p.counts, v)
		case "deactivations_per_year":
			f.limit(&p.deactivations, v, MaxYearlyLimit, key)
		case "remembered_licences":
			if n, ok := f.number(v, 1, maxRemembered, key); ok {
				p.remembered = uint32(n)
			}
		case "history_days":
			f.positive(&p.history, v, maxHistoryDays, key)
		case "provisional_renewals":
			if n, ok := f.number(v, 0, maxProvisional, key); ok {
				p.provisional.Renewals = int(n)
			}
		case "provisional_hours":
			if n, ok := f.number(v, 1, maxProvisionalHrs, key); ok {
				p.provisional.For = time.Duration(n) * time.Hour
			}
		case "renew_after_play":
			f.boolean(&p.renewPlayed, v, key)
		case "default_plan":
			defaultPlan = v
			f.id(&p.defaultPlan, v, key)
		case "plans":
			plans = true
			f.plans(p, v)
		case "studios":
			f.studios(p, v)
		case "titles":
			titles = v
		case "defaults":
			f.defaults(p, v)
		default:
			f.unknown(k, "version, licence_days, yearly_counts, deactivations_per_year, remembered_licences, "+
				"history_days, provisional_renewals, provisional_hours, renew_after_play, default_plan, plans, "+
				"studios, titles or defaults", key)
		}
	})
	f.checkDefaultPlan(p, root, defaultPlan, plans)
	// The titles come last, wherever they stand: they refer to the defaults.
	f.titles(p, titles)
}

// checkDefaultPlan checks what the plans say together: each is checked where it stands.
func (f *file) checkDefaultPlan(p *Policy, root, n *yaml.Node, plans bool) {
	if !plans {
		f.fail(root, "is required", "plans")
	}
	if n == nil {
		f.fail(root, "is required", "default_plan")
		return
	}
	if _, ok := p.plans[p.defaultPlan]; plans && p.defaultPlan != "" && !ok {
		f.fail(n, fmt.Sprintf("there is no plan %q, want one of %s", p.defaultPlan,
			strings.Join(slices.Sorted(maps.Keys(p.plans)), ", ")), "default_plan")
	}
}

// plans reads the plans: an id each, with the number of devices and what the plan limits besides.
func (f *file) plans(p *Policy, n *yaml.Node) {
	f.each(n, func(id string, k, v *yaml.Node) {
		f.checkID(k, id, "plans", id)
		plan, found := Plan{TitlesPerDevice: Unlimited, MonthlyDownloads: Unlimited, GraceDays: Unlimited}, false
		f.each(v, func(key string, k, v *yaml.Node) {
			switch key {
			case "devices":
				found = true
				if d, ok := f.number(v, 0, maxDevices, "plans", id, key); ok {
					plan.Devices = uint32(d)
				}
			case "titles_per_device":
				f.limit(&plan.TitlesPerDevice, v, maxDeviceTitles, "plans", id, key)
			case "downloads_per_month":
				f.limit(&plan.MonthlyDownloads, v, MaxYearlyLimit, "plans", id, key)
			case "grace_days":
				f.limit(&plan.GraceDays, v, maxDays, "plans", id, key)
			case "allowances":
				p.allowances[id] = f.allowances(v, "plans", id, key)
			default:
				f.unknown(k, "devices, titles_per_device, downloads_per_month, grace_days or allowances",
					"plans", id, key)
			}
		}, "plans", id)
		if !found {
			f.fail(k, "is required", "plans", id, "devices")
		}
		p.plans[id] = plan // also a faulty one, so that the default plan is not reported missing as well
	}, "plans")
}

// allowances reads what may be lent.
func (f *file) allowances(n *yaml.Node, path ...string) Allowances {
	a := Allowances{Allowances: 1, For: 48 * time.Hour}
	found := false
	f.each(n, func(key string, k, v *yaml.Node) {
		path := append(slices.Clone(path), key)
		switch key {
		case "downloads":
			found = true
			if n, ok := f.number(v, 0, maxLent, path...); ok {
				a.Downloads = uint32(n)
			}
		case "at_a_time":
			if n, ok := f.number(v, 1, maxAllowances, path...); ok {
				a.Allowances = uint32(n)
			}
		case "hours":
			if n, ok := f.number(v, 1, maxAllowanceHours, path...); ok {
				a.For = time.Duration(n) * time.Hour
			}
		default:
			f.unknown(k, "downloads, at_a_time or hours", path...)
		}
	}, path...)
	if !found {
		f.fail(n, "is required", append(slices.Clone(path), "downloads")...)
	}
	return a
}

// studios reads the limits of studios.
func (f *file) studios(p *Policy, n *yaml.Node) {
	f.each(n, func(id string, k, v *yaml.Node) {
		f.checkID(k, id, "studios", id)
		studio, found := Studio{Licenses: Unlimited}, false
		f.each(v, func(key string, k, v *yaml.Node) {
			switch key {
			case "downloads":
				found = true
				f.limit(&studio.Licenses, v, maxStudioLimit, "studios", id, key)
			case "hours_after_first_play":
				f.positive(&studio.PlayHours, v, maxPlayHours, "studios", id, key)
			default:
				f.unknown(k, "downloads or hours_after_first_play", "studios", id, key)
			}
		}, "studios", id)
		if !found {
			f.fail(k, "is required", "studios", id, "downloads")
		}
		p.studios[id] = studio
	}, "studios")
}

// defaults reads what applies to titles and studios that are not listed.
func (f *file) defaults(p *Policy, n *yaml.Node) {
	f.each(n, func(key string, k, v *yaml.Node) {
		switch key {
		case "studio":
			f.id(&p.unlisted.Studio, v, "defaults", key)
		case "studio_downloads":
			f.limit(&p.studioDefault, v, maxStudioLimit, "defaults", key)
		case "yearly_limit":
			f.limit(&p.unlisted.YearlyLimit, v, MaxYearlyLimit, "defaults", key)
		case "hours_after_first_play":
			hours := Unlimited
			f.positive(&hours, v, maxPlayHours, "defaults", key)
			p.playHours = hours.hours()
		case "end_within_days":
			f.limit(&p.endWithin, v, maxDays, "defaults", key)
		default:
			f.unknown(k, "studio, studio_downloads, yearly_limit, hours_after_first_play or end_within_days",
				"defaults", key)
		}
	}, "defaults")
}

// hours returns a number of hours, 0 if they do not end.
func (l Limit) hours() uint32 {
	if l == Unlimited {
		return 0
	}
	return uint32(l)
}

// hoursOf returns the hours of a title: its own, those of its studio, or the default.
func (p *Policy) hoursOf(own Limit, studio string) uint32 {
	for _, hours := range []Limit{own, p.StudioPlayHours(studio)} {
		if hours != 0 {
			return hours.hours()
		}
	}
	return p.playHours
}

// titles reads the catalogue, with the defaults for what a title leaves out.
func (f *file) titles(p *Policy, n *yaml.Node) {
	titles := Titles{}
	p.catalogue = titles
	p.unlisted.PlayHours = p.hoursOf(0, p.unlisted.Studio)
	if n == nil {
		return
	}
	titles = make(Titles, len(resolve(n).Content)/2)
	p.catalogue = titles
	studios := map[string]string{} // one string for the titles of a studio
	f.each(n, func(id string, k, v *yaml.Node) {
		f.checkID(k, id, "titles", id)
		title, hours, within := p.unlisted, Limit(0), p.endWithin
		f.each(v, func(key string, k, v *yaml.Node) {
			switch key {
			case "studio":
				f.id(&title.Studio, v, "titles", id, key)
			case "yearly_limit":
				f.limit(&title.YearlyLimit, v, MaxYearlyLimit, "titles", id, key)
			case "available_until":
				f.time(&title.AvailableUntil, v, "titles", id, key)
			case "end_within_days":
				f.limit(&within, v, maxDays, "titles", id, key)
			case "hours_after_first_play":
				f.positive(&hours, v, maxPlayHours, "titles", id, key)
			default:
				f.unknown(k, "studio, yearly_limit, available_until, end_within_days or hours_after_first_play",
					"titles", id, key)
			}
		}, "titles", id)
		title.PlayHours = p.hoursOf(hours, title.Studio)
		if !title.AvailableUntil.IsZero() && within != Unlimited {
			title.End, p.ends = title.AvailableUntil.AddDate(0, 0, int(within)), true
		}
		if s, ok := studios[title.Studio]; ok {
			title.Studio = s
		} else {
			studios[title.Studio] = title.Studio
		}
		titles[id] = title
	}, "titles")
}

// resolve follows an alias to its anchor. YAML allows no alias of an alias.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// each calls fn for the entries of a mapping; keys given twice are mistakes.
func (f *file) each(n *yaml.Node, fn func(key string, k, v *yaml.Node), path ...string) {
	n = resolve(n)
	if n.Kind != yaml.MappingNode {
		f.fail(n, "must be a mapping, not "+describe(n), path...)
		return
	}
	var lines map[string]int // a few keys are compared, many are looked up
	if len(n.Content) > 16 {
		lines = make(map[string]int, len(n.Content)/2)
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		if k.Kind != yaml.ScalarNode || k.ShortTag() == "!!merge" {
			f.fail(k, "a key must be a plain word", path...)
			continue
		}
		if line := firstLine(n, lines, i); line > 0 {
			// A YAML library that keeps the last of two values would hide the mistake.
			f.fail(k, fmt.Sprintf("is given twice, first in line %d", line), append(slices.Clone(path), k.Value)...)
			continue
		}
		fn(k.Value, k, n.Content[i+1])
	}
}

// firstLine returns the line of an earlier key equal to that at i, or 0, and notes the key in lines.
func firstLine(n *yaml.Node, lines map[string]int, i int) int {
	key := n.Content[i]
	if lines != nil {
		line := lines[key.Value]
		if line == 0 {
			lines[key.Value] = key.Line
		}
		return line
	}
	for j := 0; j < i; j += 2 {
		if n.Content[j].Kind == yaml.ScalarNode && n.Content[j].Value == key.Value {
			return n.Content[j].Line
		}
	}
	return 0
}

// unknown notes a field that does not exist, with those that do.
func (f *file) unknown(k *yaml.Node, known string, path ...string) {
	f.fail(k, "unknown field, want "+known, path...)
}

// scalar returns the text of a plain value.
func (f *file) scalar(n *yaml.Node, want string, path []string) (string, bool) {
	n = resolve(n)
	if n.Kind != yaml.ScalarNode || n.ShortTag() == "!!null" {
		f.fail(n, "must be "+want+", not "+describe(n), path...)
		return "", false
	}
	return n.Value, true
}

// number reads a whole number between two bounds; false if it is none, which is noted.
func (f *file) number(n *yaml.Node, low, high uint64, path ...string) (uint64, bool) {
	want := fmt.Sprintf("a whole number from %d to %d", low, high)
	s, ok := f.scalar(n, want, path)
	if !ok {
		return 0, false
	}
	v, err := strconv.ParseUint(s, 10, 32)
	if err != nil || v < low || v > high {
		f.fail(n, fmt.Sprintf("must be %s, not %q", want, s), path...)
		return 0, false
	}
	return v, true
}

// limit reads a limit: a number, or the word for none.
func (f *file) limit(to *Limit, n *yaml.Node, high uint64, path ...string) {
	s, ok := f.scalar(n, fmt.Sprintf("a whole number from 0 to %d or unlimited", high), path)
	if !ok {
		return
	}
	v, err := strconv.ParseUint(s, 10, 32)
	switch {
	case s == Unlimited.String():
		*to = Unlimited
	case err != nil || v > high:
		f.fail(n, fmt.Sprintf("must be a whole number from 0 to %d or unlimited, not %q", high, s), path...)
	default:
		*to = Limit(v)
	}
}

// id reads an id, as the API takes it.
func (f *file) id(to *string, n *yaml.Node, path ...string) {
	if s, ok := f.scalar(n, "an id", path); ok && f.checkID(n, s, path...) {
		*to = s
	}
}

// checkID reports an id that a request could not carry.
func (f *file) checkID(n *yaml.Node, id string, path ...string) bool {
	if ids.Fault(id, ids.MaxBytes) != "" {
		f.fail(n, fmt.Sprintf("must be an id of 1 to %d bytes without control characters, ':' or '/', not %q",
			ids.MaxBytes, id), path...)
		return false
	}
	return true
}

// version reads the name of the policy, which is stored with each event.
func (f *file) version(to *string, n *yaml.Node) {
	s, ok := f.scalar(n, "a word", []string{"version"})
	if !ok {
		return
	}
	bad := func(r rune) bool {
		return !(r < unicode.MaxASCII && (unicode.IsLetter(r) || unicode.IsDigit(r))) && !strings.ContainsRune("._-", r)
	}
	if s == "" || len(s) > maxVersion || strings.ContainsFunc(s, bad) {
		f.fail(n, fmt.Sprintf("must be 1 to %d letters, digits, '.', '_' or '-', not %q", maxVersion, s), "version")
		return
	}
	*to = s
}

// positive reads how long something is, in days or hours: a number from 1 on, or the word for no end.
func (f *file) positive(to *Limit, n *yaml.Node, high uint64, path ...string) {
	want := fmt.Sprintf("a whole number from 1 to %d or unlimited", high)
	s, ok := f.scalar(n, want, path)
	if !ok {
		return
	}
	v, err := strconv.ParseUint(s, 10, 32)
	switch {
	case s == Unlimited.String():
		*to = Unlimited
	case err != nil || v == 0 || v > high:
		f.fail(n, fmt.Sprintf("must be %s, not %q", want, s), path...)
	default:
		*to = Limit(v)
	}
}

// boolean reads true or false.
func (f *file) boolean(to *bool, n *yaml.Node, path ...string) {
	if s, ok := f.scalar(n, "true or false", path); ok {
		if *to = s == "true"; !*to && s != "false" {
			f.fail(n, fmt.Sprintf("must be true or false, not %q", s), path...)
		}
	}
}

// counts reads what counts against yearly limits.
func (f *file) counts(to *Counts, n *yaml.Node) {
	s, ok := f.scalar(n, "downloads, playbacks or both", []string{"yearly_counts"})
	if !ok {
		return
	}
	for _, c := range []Counts{Downloads, Playbacks, Both} {
		if s == c.String() {
			*to = c
			return
		}
	}
	f.fail(n, fmt.Sprintf("must be downloads, playbacks or both, not %q", s), "yearly_counts")
}

// time reads the moment until which a title is available. Dates begin at midnight UTC.
func (f *file) time(to *time.Time, n *yaml.Node, path ...string) {
	const want = "a date (2027-01-01) or a time (2027-01-01T06:00:00Z)"
	s, ok := f.scalar(n, want, path)
	if !ok {
		return
	}
	t, err := time.Parse(time.DateOnly, s)
	if err != nil {
		t, err = time.Parse(time.RFC3339, s)
	}
	if err != nil || t.Year() < 1970 || t.Year() > 9999 {
		f.fail(n, fmt.Sprintf("must be %s, not %q", want, s), path...)
		return
	}
	// Events have milliseconds: a finer time could lie between two of them.
	*to = t.UTC().Truncate(time.Millisecond)
}

// describe names what a node is, for errors.
func describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.ShortTag() == "!!null":
		return "nothing"
	default:
		return strconv.Quote(n.Value)
	}
}
