// Package expiry tells by metrics when certificates, authorities, revocation lists and tokens expire, and how many
// certificates the revocation lists refused.
package expiry

import (
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"licensed/internal/tlsfiles"
)

var (
	labels = []string{"port", "kind", "subject", "file"}
	until  = prometheus.NewDesc("licensed_certificate_expiry_timestamp_seconds",
		"Time at which something expires, in seconds since 1970, by port (api, admin, node, store, archive, auth) and "+
			"kind (certificate, ca, crl, token).", labels, nil)
	from = prometheus.NewDesc("licensed_certificate_start_timestamp_seconds",
		"Time since which it is valid, in seconds since 1970; 0 if that is not known.", labels, nil)
	refused = prometheus.NewDesc("licensed_certificate_refusals_total",
		"Connections that were refused by certificate revocation lists, by reason (revoked, no_crl, expired_crl).",
		[]string{"port", "reason"}, nil)
)

// Collector collects from what it was given. It is safe for concurrent use. Files are read at each collection.
type Collector struct {
	mu    sync.Mutex
	ports []port
}

// port is what one port, or one kind of connections, uses.
type port struct {
	name         string
	expiries     func() []tlsfiles.Expiry
	certificates *tlsfiles.Certificates // nil if it has none
}

// Add adds the certificates of a port; nil ones have nothing.
func (c *Collector) Add(name string, certificates *tlsfiles.Certificates) {
	if certificates != nil {
		c.add(port{name, certificates.Expiries, certificates})
	}
}

// AddTokens adds the tokens of an auth file, which returns when each of them expires.
func (c *Collector) AddTokens(file string, expiries func() map[string]time.Time) {
	c.add(port{name: "auth", expiries: func() (all []tlsfiles.Expiry) {
		for token, until := range expiries() {
			all = append(all, tlsfiles.Expiry{Kind: "token", File: file, Subject: "sha256:" + token, Until: until})
		}
		return all
	}})
}

func (c *Collector) add(p port) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ports = append(c.ports, p)
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(to chan<- *prometheus.Desc) {
	to <- until
	to <- from
	to <- refused
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(to chan<- prometheus.Metric) {
	c.mu.Lock()
	ports := c.ports
	c.mu.Unlock()
	for _, p := range ports {
		// Two of one name, as a CA and the one that replaces it, are one: the one that expires first.
		first := make(map[[3]string]tlsfiles.Expiry)
		for _, e := range p.expiries() {
			key := [3]string{e.Kind, strings.ToValidUTF8(e.Subject, "?"), e.File}
			if other, ok := first[key]; !ok || e.Until.Before(other.Until) {
				first[key] = e
			}
		}
		for key, e := range first {
			values := []string{p.name, key[0], key[1], key[2]}
			to <- prometheus.MustNewConstMetric(until, prometheus.GaugeValue, seconds(e.Until), values...)
			to <- prometheus.MustNewConstMetric(from, prometheus.GaugeValue, seconds(e.From), values...)
		}
		if p.certificates != nil {
			for reason, n := range p.certificates.Refusals() {
				to <- prometheus.MustNewConstMetric(refused, prometheus.CounterValue, float64(n), p.name, reason)
			}
		}
	}
}

// seconds returns a time for a metric.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}
