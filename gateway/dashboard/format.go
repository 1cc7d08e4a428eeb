package dashboard

import (
	"bytes"
	"cmp"
	"fmt"
	"html/template"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/internal/clusterrates"
	"licensed/messages/licensedv1"
)

// functions of the templates: numbers and times for people, all with their units.
var functions = template.FuncMap{
	"number": number[uint64], "number32": number[uint32], "count": count[uint64], "count32": count[uint32],
	"bytes": size, "rate": rateOf, "millis": millis, "duration": duration, "lasting": lasting,
	"clock": clock, "stamp": stamp, "day": day, "short": short, "prose": prose,
	"rule":  clusterrates.RuleWords,
	"tier":  tierName,
	"add":   func(a uint64, b int) uint64 { return uint64(int64(a) + int64(b)) },
	"cores": func(f float64) string { return strconv.FormatFloat(f, 'f', 2, 64) },
}

// number groups the digits of a number.
func number[N uint32 | uint64 | int](n N) string {
	digits := strconv.FormatUint(uint64(n), 10)
	var b strings.Builder
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(d)
	}
	return b.String()
}

// count describes the number of something.
func count[N uint32 | uint64](n N, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return number(n) + " " + many
}

// size in bytes, for people.
func size(n uint64) string {
	units, f := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}, float64(n)
	i := 0
	for ; f >= 1024 && i < len(units)-1; i++ {
		f /= 1024
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return three(f) + " " + units[i]
}

// three returns a number with three digits that count.
func three(f float64) string {
	switch {
	case f >= 100:
		return number(uint64(math.Round(f)))
	case f >= 10:
		return strconv.FormatFloat(f, 'f', 1, 64)
	default:
		return strconv.FormatFloat(f, 'f', 2, 64)
	}
}

// rateOf returns a rate per second without its unit.
func rateOf(f float64) string {
	if f >= 100 {
		return number(uint64(math.Round(f)))
	}
	return strconv.FormatFloat(f, 'f', 1, 64)
}

// millis returns a time in milliseconds without its unit; nil is a dash.
func millis(ms *float64) string {
	if ms == nil {
		return "–"
	}
	return three(*ms)
}

// duration returns a time span in its two largest units.
func duration(d time.Duration) string {
	switch {
	case d < 0:
		return "−" + duration(-max(d, -math.MaxInt64)) // The least has no opposite.
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	default:
		return fmt.Sprintf("%d d %d h", int(d.Hours())/24, int(d.Hours())%24)
	}
}

// lasting is duration for messages.
func lasting(d *durationpb.Duration) string { return duration(d.AsDuration()) }

// clock returns a time of the day with its date, in UTC.
func clock(t *timestamppb.Timestamp) string {
	if t == nil {
		return "–"
	}
	return t.AsTime().UTC().Format("2006-01-02 15:04:05")
}

// day returns a time to the minute, in UTC.
func day(t *timestamppb.Timestamp) string {
	if t == nil {
		return "–"
	}
	return t.AsTime().UTC().Format("2006-01-02 15:04")
}

// stamp returns a time for machines.
func stamp(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().UTC().Format(time.RFC3339Nano)
}

// short returns the beginning of an id of machines.
func short(id string) string {
	if len(id) > 8 {
		return id[:8]
	}
	return id
}

// written matches a time as it stands in sentences, in UTC: with or without seconds, and as protobuf writes it.
var written = regexp.MustCompile(`\b(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d)(:\d\d)?(?:\.\d+)?(?:Z| UTC)?`)

// prose returns a sentence with its times as elements, which a script shows in the viewer's zone.
func prose(text string) template.HTML {
	var b strings.Builder
	at := 0
	for _, m := range written.FindAllStringSubmatchIndex(text, -1) {
		date, minute, second := text[m[2]:m[3]], text[m[4]:m[5]], ""
		if m[6] >= 0 {
			second = text[m[6]:m[7]]
		}
		b.WriteString(template.HTMLEscapeString(text[at:m[0]]))
		fmt.Fprintf(&b, `<time datetime="%sT%s%sZ">%s %s%s UTC</time>`,
			date, minute, cmp.Or(second, ":00"), date, minute, second)
		at = m[1]
	}
	b.WriteString(template.HTMLEscapeString(text[at:]))
	return template.HTML(b.String()) //nolint:gosec // All of the text was escaped, and what matches has digits only.
}

// hidden are the characters without a glyph of their own, which would move others or make two ids look the same.
func hidden(r rune) bool { return unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029' }

// visible returns HTML whose text shows those characters by their numbers; what stands in tags, as the values of
// forms, is kept. Templates escape < and > in both, so that tags are told by these alone.
func visible(html []byte) []byte {
	if bytes.IndexFunc(html, hidden) < 0 {
		return html
	}
	out, tag := make([]byte, 0, len(html)+64), false
	for _, r := range string(html) {
		switch {
		case r == '<' || r == '>':
			tag = r == '<'
		case hidden(r) && !tag:
			out = fmt.Appendf(out, `\u%04x`, r)
			continue
		}
		out = utf8.AppendRune(out, r)
	}
	return out
}

// tierName names a tier: "archive".
func tierName(t licensedv1.Tier) string { return words(t.String(), "TIER_") }

// words returns the name of an enumeration's value for people.
func words(name, prefix string) string {
	return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, prefix), "_", " "))
}
