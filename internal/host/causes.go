package host

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// causes names errors, for the label of a metric.
type causes []struct {
	err  error
	name string
}

// otherCause is the label of errors that no cause names: labels must not come from texts.
const otherCause = "other"

// of returns the name of the first that err is.
func (c causes) of(err error) string {
	for _, known := range c {
		if errors.Is(err, known.err) {
			return known.name
		}
	}
	return otherCause
}

// counter returns a counter by cause.
func (c causes) counter(name, help string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"cause"})
	for _, known := range c {
		fromZero(v, known.name)
	}
	fromZero(v, otherCause)
	return v
}

// fromZero has a series be present before there is anything to count: one that begins with its first event has not
// increased to who watches, and an alert would miss that event.
func fromZero(v *prometheus.CounterVec, label string) { v.WithLabelValues(label) }
