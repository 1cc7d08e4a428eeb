package history

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// Event is one event of a customer's history, as the service lists it after the run.
type Event struct {
	Sequence  uint64 `json:"s"`
	Epoch     uint64 `json:"e"`
	Row       string `json:"row"`
	Aggregate string `json:"a"`
	Name      string `json:"n"`
	// Time is in unix milliseconds.
	Time     int64  `json:"t"`
	Order    uint64 `json:"o,omitempty"`
	Command  string `json:"c"`
	Index    uint32 `json:"i,omitempty"`
	Count    uint32 `json:"of"`
	Archived bool   `json:"ar,omitempty"`
	Problem  string `json:"bad,omitempty"`
	// What it says, as far as it says such a thing.
	License *License `json:"li,omitempty"`
	Refusal *Refusal `json:"no,omitempty"`
	Device  string   `json:"d,omitempty"`
	Title   string   `json:"ti,omitempty"`
	Plan    string   `json:"p,omitempty"`
	Limit   uint32   `json:"dl,omitempty"`
	Counted bool     `json:"cn,omitempty"`
}

// View is what one member of the service answers about a customer after the run.
type View struct {
	Member string `json:"m"`
	Input  Input  `json:"i"`
	Output Output `json:"o"`
}

// Customer is all that is known of a customer after the run.
type Customer struct {
	ID     string  `json:"id"`
	Events []Event `json:"events"`
	// Head is where the service says that the history ends.
	Head uint64 `json:"head"`
	// Gaps are ranges that could not be read, in words.
	Gaps []string `json:"gaps,omitempty"`
	// Findings are errors that the service's own verification reports.
	Findings []string `json:"findings,omitempty"`
	Views    []View   `json:"views,omitempty"`
}

// CustomersWriter writes customers, one line each, compressed. It is safe for concurrent use. Close it.
type CustomersWriter struct {
	mu   sync.Mutex
	zip  *zstd.Encoder
	json *json.Encoder
}

// NewCustomersWriter writes to a stream.
func NewCustomersWriter(w io.Writer) (*CustomersWriter, error) {
	z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, fmt.Errorf("customers: %w", err)
	}
	return &CustomersWriter{zip: z, json: json.NewEncoder(z)}, nil
}

// Write writes one customer.
func (w *CustomersWriter) Write(c *Customer) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.json.Encode(c)
}

// Close ends the stream.
func (w *CustomersWriter) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.zip.Close()
}

// ReadCustomers calls fn for each customer.
func ReadCustomers(r io.Reader, fn func(*Customer) error) error {
	z, err := zstd.NewReader(r)
	if err != nil {
		return fmt.Errorf("customers: %w", err)
	}
	defer z.Close()
	d := json.NewDecoder(z)
	for n := 1; ; n++ {
		var c Customer
		switch err := d.Decode(&c); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("customer %d: %w", n, err)
		}
		if err := fn(&c); err != nil {
			return err
		}
	}
}
