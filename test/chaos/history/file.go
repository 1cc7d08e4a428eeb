package history

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
)

// line is what the file has: a call, or a return.
type line struct {
	Call    uint64  `json:"c,omitempty"` // id of the op that is called
	Return  uint64  `json:"r,omitempty"` // id of the op that returns
	At      int64   `json:"at"`
	Client  int     `json:"cl,omitempty"`
	Gateway int     `json:"g,omitempty"`
	Input   *Input  `json:"i,omitempty"`
	Output  *Output `json:"out,omitempty"`
}

// Recorder notes what clients do, in memory and in a stream. It is safe for concurrent use. Close it.
type Recorder struct {
	start time.Time

	mu     sync.Mutex
	ops    []*Op
	zip    *zstd.Encoder
	json   *json.Encoder
	err    error
	closed bool
}

// NewRecorder starts a history whose time begins now. The stream is flushed by Flush and Close only.
func NewRecorder(w io.Writer) (*Recorder, error) {
	z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	return &Recorder{start: time.Now(), zip: z, json: json.NewEncoder(z)}, nil
}

// Start is the moment from which the history counts.
func (r *Recorder) Start() time.Time { return r.start }

// Now returns nanoseconds since the start, never twice the same within the lock's order.
func (r *Recorder) Now() int64 { return int64(time.Since(r.start)) }

// Call notes that a client is about to send a request.
func (r *Recorder) Call(client, gateway int, in Input) *Op {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := &Op{ID: uint64(len(r.ops)) + 1, Client: client, Gateway: gateway, Call: r.Now(), Input: in}
	r.ops = append(r.ops, o)
	r.write(line{Call: o.ID, At: o.Call, Client: client, Gateway: gateway, Input: &in})
	return o
}

// Return notes the answer. An op returns once.
func (r *Recorder) Return(o *Op, out Output) {
	at := r.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	o.Return, o.Output = at, out
	r.write(line{Return: o.ID, At: at, Output: &out})
}

// write keeps the first error for Close: a run is not worth stopping for it, a verdict is.
func (r *Recorder) write(l line) {
	if r.err == nil && !r.closed {
		r.err = r.json.Encode(l)
	}
}

// Flush hands everything to the stream below, and returns the first error there was.
func (r *Recorder) Flush() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil && !r.closed {
		r.err = r.zip.Flush()
	}
	return r.err
}

// Close ends the stream and returns the first error there was. The ops stay.
func (r *Recorder) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return r.err
	}
	r.closed = true
	return errors.Join(r.err, r.zip.Close())
}

// Ops returns the ops so far, in the order of their calls. Those without an answer may still get one.
func (r *Recorder) Ops() []*Op {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ops[:len(r.ops):len(r.ops)]
}

// Read reads a history. One that was cut off is read up to there, without an error.
func Read(r io.Reader) ([]*Op, error) {
	z, err := zstd.NewReader(r)
	if err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	defer z.Close()
	lines := bufio.NewReaderSize(z, 1<<16)
	var ops []*Op
	for n := 1; ; n++ {
		text, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return ops, nil
		}
		if err != nil {
			return nil, fmt.Errorf("history line %d: %w", n, err)
		}
		var l line
		if err := json.Unmarshal(text, &l); err != nil {
			return nil, fmt.Errorf("history line %d: %w", n, err)
		}
		if ops, err = add(ops, &l); err != nil {
			return nil, fmt.Errorf("history line %d: %w", n, err)
		}
	}
}

func add(ops []*Op, l *line) ([]*Op, error) {
	switch {
	case l.Call == uint64(len(ops))+1 && l.Input != nil && l.Return == 0:
		return append(ops, &Op{ID: l.Call, Client: l.Client, Gateway: l.Gateway, Call: l.At, Input: *l.Input}), nil
	case l.Call == 0 && l.Return > 0 && l.Return <= uint64(len(ops)) && l.Output != nil:
		o := ops[l.Return-1]
		if o.Return != 0 || l.At < o.Call {
			return nil, fmt.Errorf("op %d returns twice, or before its call", l.Return)
		}
		o.Return, o.Output = l.At, *l.Output
		return ops, nil
	}
	return nil, fmt.Errorf("neither a call of op %d nor a return of one before", len(ops)+1)
}
