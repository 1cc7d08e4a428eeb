package cassandra

import (
	"crypto/tls"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"licensed/internal/certs"
)

func TestParseURL(t *testing.T) {
	with := func(change func(*Options)) Options {
		o := DefaultOptions()
		change(&o)
		return o
	}
	for url, want := range map[string]Options{
		"cassandra://127.0.0.1": DefaultOptions(),
		"cassandra://a:1,b,[::1]:9043/licences_1": with(func(o *Options) {
			o.Hosts, o.Keyspace = []string{"a:1", "b", "[::1]:9043"}, "licences_1"
		}),
		"cassandra://me:p%40ss%2F@a/k?consistency=quorum&dc=eu-1&timeout=1500ms&connections=4": with(func(o *Options) {
			o.Hosts, o.Keyspace, o.Username, o.Password = []string{"a"}, "k", "me", "p@ss/"
			o.Consistency, o.DataCenter, o.Timeout, o.Connections = Quorum, "eu-1", 1500*time.Millisecond, 4
		}),
		"cassandra://a/?group_partitions=1&group_bytes=99&batches_in_flight=2&reads_in_flight=3" +
			"&accept_risk=x&accept_risk=y&connect_timeout=1s": with(func(o *Options) {
			o.Hosts, o.GroupPartitions, o.GroupBytes, o.BatchesInFlight, o.ReadsInFlight = []string{"a"}, 1, 99, 2, 3
			o.AcceptRisks, o.ConnectTimeout = []string{"x", "y"}, time.Second
		}),
	} {
		if got, err := ParseURL(url); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v\ngot  %+v\nwant %+v", url, err, got, want)
		}
	}
	if o, err := ParseURL("cassandra://a?tls=true"); err != nil || o.TLS == nil || o.TLS().InsecureSkipVerify {
		t.Errorf("tls=true: %v", err)
	}
}

func TestParseURLErrors(t *testing.T) {
	for url, says := range map[string]string{
		"mysql://a":                        "cassandra://",
		"cassandra://":                     "contact point",
		"cassandra://a,,b":                 "contact point",
		"cassandra://a:0":                  "contact point",
		"cassandra://a:x":                  "contact point",
		"cassandra://a/Upper":              "keyspace",
		"cassandra://a/k;drop":             "keyspace",
		"cassandra://a/" + long(49):        "keyspace",
		"cassandra://a?consistency=ONE":    "overlap",
		"cassandra://a?timeout=soon":       "timeout=soon",
		"cassandra://a?timeout=0s":         "above 0",
		"cassandra://a?connections=0":      "connections",
		"cassandra://a?group_bytes=-1":     "group limits",
		"cassandra://a?batches_in_flight=": "batches_in_flight",
		"cassandra://a?reads_in_flight=0":  "reads in flight 0",
		"cassandra://a?colour=red":         "no such parameter",
		"cassandra://a?tls_ca=/nowhere":    "/nowhere",
		"cassandra://u:secret@a/%zz":       "malformed",
		"cassandra://u:secret@a/K":         "keyspace",
		"cassandra://:secret@a/k":          "without a user",
	} {
		_, err := ParseURL(url)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want an error about %q", url, err, says)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the password is shown: %v", err)
		}
	}
}

// TestClientCertificateIsReadAgain: a certificate that was renewed counts from the next connection on.
func TestClientCertificateIsReadAgain(t *testing.T) {
	authority, dir := certs.New(t), t.TempDir()
	cert, key := filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	write := func(file string, content []byte) {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	old, oldKey := authority.SignPEM(7)
	renewed, renewedKey := authority.SignPEM(8)
	write(cert, old)
	write(key, oldKey)
	o, err := ParseURL("cassandra://a?" + url.Values{"tls_cert": {cert}, "tls_key": {key}}.Encode())
	if err != nil {
		t.Fatal(err)
	}
	shows := func(want int64) {
		t.Helper()
		c, err := o.TLS().GetClientCertificate(&tls.CertificateRequestInfo{})
		if err != nil || c.Leaf.SerialNumber.Int64() != want {
			t.Fatalf("shows %v, %v; want %d", c, err, want)
		}
	}
	shows(7)
	write(cert, renewed) // The key is yet to come.
	shows(7)
	write(key, renewedKey)
	shows(8)
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	shows(8)
}

func long(n int) string { return strings.Repeat("k", n) }

func FuzzParseURL(f *testing.F) {
	f.Add("cassandra://me:pa:ss@a:1,b/k?consistency=QUORUM&accept_risk=all")
	f.Add("cassandra://@")
	f.Add("a@cassandra://?")
	f.Fuzz(func(t *testing.T, s string) {
		if strings.Contains(s, "tls_") {
			return // reads files
		}
		o, err := ParseURL(s)
		if err == nil && o.Validate() != nil {
			t.Errorf("%q parses to invalid options", s)
		}
	})
}
