package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// period is a flag for a long time: days ("90d"), or whatever time.ParseDuration takes.
type period struct{ value *time.Duration }

const day = 24 * time.Hour

// Set implements pflag.Value.
func (p period) Set(text string) error {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil {
			return fmt.Errorf("%q is not a number of days, like 90d", text)
		}
		*p.value = time.Duration(n) * day
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return fmt.Errorf("%q is not a time, like 90d or 36h", text)
	}
	*p.value = d
	return nil
}

// String implements pflag.Value.
func (p period) String() string {
	switch {
	case p.value == nil:
		return ""
	case *p.value%day == 0:
		return strconv.FormatInt(int64(*p.value/day), 10) + "d"
	}
	return p.value.String()
}

// Type implements pflag.Value.
func (period) Type() string { return "duration" }
