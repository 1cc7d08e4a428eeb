package settings

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Size is a setting for an amount of memory: bytes, with a unit (KiB, MiB, GiB, or KB, MB, GB), or
// a share of the memory that the process may use ("25%"). Its zero value is 0 bytes.
type Size struct {
	text    string
	bytes   int64
	percent float64
}

// units of memory, longest names first so that "MiB" is not read as "B".
var units = []struct {
	name  string
	bytes int64
}{
	{"kib", 1 << 10}, {"mib", 1 << 20}, {"gib", 1 << 30}, {"tib", 1 << 40},
	{"kb", 1e3}, {"mb", 1e6}, {"gb", 1e9}, {"tb", 1e12}, {"b", 1}, {"", 1},
}

// ParseSize returns the size that a text says, and panics if it says none: for defaults.
func ParseSize(text string) Size {
	var m Size
	if err := m.Set(text); err != nil {
		panic(err)
	}
	return m
}

// Set implements pflag.Value.
func (m *Size) Set(text string) error {
	if share, ok := strings.CutSuffix(text, "%"); ok {
		p, err := strconv.ParseFloat(strings.TrimSpace(share), 64)
		// Not "p <= 0 || p > 100": NaN must be refused, too.
		if err != nil || !(p > 0 && p <= 100) {
			return fmt.Errorf("%q is not a share between 0%% and 100%%", text)
		}
		*m = Size{text: text, percent: p}
		return nil
	}
	bytes, err := parseBytes(text)
	if err != nil {
		return err
	}
	*m = Size{text: text, bytes: bytes}
	return nil
}

// parseBytes reads a number with a unit. Errors say what is wrong in words for the
// operator.
func parseBytes(text string) (int64, error) {
	lower := strings.ToLower(strings.TrimSpace(text))
	// Units are in the order of their suffixes: B is tried after KiB.
	for _, u := range units {
		number, ok := strings.CutSuffix(lower, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil || n < 0 || math.IsNaN(n) {
			break
		}
		if n*float64(u.bytes) >= math.MaxInt64 {
			return 0, errors.New("is more than can be addressed")
		}
		return int64(n * float64(u.bytes)), nil
	}
	return 0, fmt.Errorf("%q is not an amount of memory like 512MiB or 25%%", text)
}

// String implements pflag.Value.
func (m *Size) String() string { return m.text }

// Type implements pflag.Value.
func (m *Size) Type() string { return "size" }

// Share returns the percentage, 0 for a number of bytes.
func (m *Size) Share() float64 { return m.percent }

// Of returns the amount in bytes, of that much memory in all.
func (m *Size) Of(memory uint64) int64 {
	if m.percent > 0 {
		return int64(float64(memory) * m.percent / 100)
	}
	return m.bytes
}
