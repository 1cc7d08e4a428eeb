package settings

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Period is a setting for a long time: days ("90d"), or whatever time.ParseDuration takes.
type Period struct{ Value *time.Duration }

// day is the length of a day; a day of daylight saving does not matter to a retention.
const day = 24 * time.Hour

// Set implements pflag.Value.
func (p Period) Set(text string) error {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		// 16 bits: 65,535 days are 179 years, and fit into a time.Duration.
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil {
			return fmt.Errorf("%q is not a number of days, like 90d", text)
		}
		*p.Value = time.Duration(n) * day
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return fmt.Errorf("%q is not a time, like 90d or 36h", text)
	}
	*p.Value = d
	return nil
}

// String implements pflag.Value.
func (p Period) String() string {
	switch {
	case p.Value == nil:
		return ""
	case *p.Value%day == 0:
		return strconv.FormatInt(int64(*p.Value/day), 10) + "d"
	}
	return p.Value.String()
}

// Type implements pflag.Value.
func (Period) Type() string { return "duration" }
