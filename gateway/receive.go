package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"licensed/messages/licensedv1"

	"connectrpc.com/connect"
)

// body is a request's, read as a whole. It implements io.ReadCloser.
type body struct {
	bytes.Reader
	// decoded is the size in bytes that the message has at most when it is decompressed.
	decoded int64
}

// Close implements io.Closer.
func (*body) Close() error { return nil }

// envelopeBytes is how much longer than its message a body may be; package connect checks the message.
const envelopeBytes = 1 << 10

// firstRead is the memory that a body gets at first. It is doubled when that much has arrived.
const firstRead = 4 << 10

// receive reads the body of a request. Its memory is taken before it is allocated, and
// given back when receive returns: what is admitted then counts as a request. Reading in
// advance lets the gateway refuse a request before it holds a place, and bounds a body by
// what has arrived and not by what was announced. Errors: ExceededError, connect.Error,
// and what a reader returns.
func (c *call) receive(deadline time.Time, w http.ResponseWriter, r *http.Request) (*body, error) {
	b := &body{}
	most := c.route.body + envelopeBytes
	switch {
	case r.ContentLength > most:
		return nil, tooLong(c.route.body)
	case r.Body == nil || r.ContentLength == 0:
		b.decoded = c.decodedSize(r, 0) // The message of a GET is in its URL.
		return b, nil
	case r.ContentLength > 0:
		most = r.ContentLength
	}
	length := min(firstRead, most) // A client that only announces a long body takes no more than this.
	grant, err := c.budgets.receiving.Take(receivingBytes+length, c.holders...)
	if err != nil {
		return nil, err
	}
	defer grant.Release()
	content := make([]byte, 0, length+1) // One more shows the end.
	for {
		n, err := r.Body.Read(content[len(content):cap(content)])
		content = content[:len(content)+n]
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, cutOff(deadline, err)
		}
		if len(content) < cap(content) {
			continue
		}
		if int64(len(content)) > most {
			return nil, tooLong(c.route.body)
		}
		length = min(2*length, most)
		if err := grant.Resize(receivingBytes + length); err != nil {
			return nil, err
		}
		content = append(make([]byte, 0, length+1), content...)
	}
	if r.ProtoMajor == 1 {
		// The server waits for the next request meanwhile, or for the client to go; the deadline was for this one.
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // Where limits cannot be set there are none.
	}
	b.Reset(content)
	b.decoded = c.decodedSize(r, len(content))
	return b, nil
}

// cutOff returns what it means that a body could not be read: the client's deadline, zero for none, or the error
// itself.
func cutOff(deadline time.Time, err error) error {
	switch {
	case !deadline.IsZero() && !time.Now().Before(deadline):
		return expired()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return apiError(connect.CodeDeadlineExceeded, licensedv1.ReasonNotExecuted,
			"the request did not arrive in time; not executed")
	}
	return err
}

// tooLong returns the error for a message above the limit of its method, in bytes.
func tooLong(limit int64) *connect.Error {
	return connect.NewError(connect.CodeResourceExhausted,
		fmt.Errorf("the message is larger than %d bytes; not executed", limit))
}

// decodedSize returns the size in bytes that the message of a request with a body of a length has at most when it is
// decompressed. The message of a GET request of the Connect protocol is in the URL.
func (c *call) decodedSize(r *http.Request, length int) int64 {
	if compressed(r) {
		return c.route.body
	}
	return int64(length + len(r.URL.RawQuery))
}

// compressed reports whether a message may be longer than it looks, in any of the protocols.
func compressed(r *http.Request) bool {
	for _, name := range []string{"Content-Encoding", "Connect-Content-Encoding", "Grpc-Encoding"} {
		if named(r.Header[name]) {
			return true
		}
	}
	return r.URL.RawQuery != "" && named(r.URL.Query()["compression"])
}

// named reports whether the values name a compressor.
func named(values []string) bool { return first(values) != "" && first(values) != "identity" }

// takeDeadline returns the deadline that a client set, counted from when the headers were here: the time until the body
// is here counts, too. Zero is none. It takes the header away, or package connect would make a context of it again.
func takeDeadline(h http.Header, start time.Time) time.Time {
	timeout, ok := clientTimeout(h)
	if !ok {
		return time.Time{}
	}
	delete(h, "Connect-Timeout-Ms")
	delete(h, "Grpc-Timeout")
	return start.Add(timeout)
}

// grpcUnits are the last letters of a Grpc-Timeout.
var grpcUnits = map[byte]time.Duration{
	'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond,
	'n': time.Nanosecond,
}

// clientTimeout returns the time that a client gave a request; false if it gave none, or
// what package connect refuses. It is read here, since connect looks at it only after the
// body was read.
func clientTimeout(h http.Header) (time.Duration, bool) {
	// The name of the header, and the most digits that the protocol allows:
	// https://connectrpc.com/docs/protocol for Connect;
	// https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md for gRPC.
	unit, digits, most := time.Millisecond, first(h["Connect-Timeout-Ms"]), 10
	if strings.HasPrefix(first(h["Content-Type"]), "application/grpc") {
		digits, most = first(h["Grpc-Timeout"]), 8
		if digits != "" {
			unit, digits = grpcUnits[digits[len(digits)-1]], digits[:len(digits)-1]
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || len(digits) > most || unit == 0 || n > math.MaxInt64/int64(unit) {
		return 0, false
	}
	return time.Duration(n) * unit, true
}

// first returns the first value of a header, or "".
func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}
