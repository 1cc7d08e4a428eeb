package siege

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"licensed/test/hostile"
)

// bomb is a body that is refused, and takes no memory.
func bomb(name string, body func() ([]byte, error), header http.Header) Attack {
	return Attack{"bombs", name, "refused; little memory", func(ctx context.Context, s *siege) (o Outcome, err error) {
		content, err := body()
		if err != nil {
			return o, err
		}
		token, err := s.secrets.token("service")
		if err != nil {
			return o, err
		}
		var all sync.WaitGroup
		const together = 8
		outcomes, errs := make([]Outcome, together), make([]error, together)
		for i := range together {
			all.Go(func() {
				status, answer, err := s.call(ctx, s.gateways()[i%len(s.gateways())],
					apiCall{path: listLicenses, body: string(content), token: token, header: header.Clone()})
				switch {
				case err != nil && errors.Is(err, context.DeadlineExceeded):
					errs[i] = err
				case err != nil: // The server ended the connection before it had all of it.
					outcomes[i] = held("connection ended: %s", short(err.Error()))
				case status < 400:
					outcomes[i] = breached("answered %d", status)
				default:
					outcomes[i] = held("%d %s", status, short(answer))
				}
			})
		}
		all.Wait()
		if i := slices.IndexFunc(outcomes, func(o Outcome) bool { return o.Breached }); i >= 0 {
			return outcomes[i], nil
		}
		return outcomes[0], errors.Join(errs...)
	}}
}

// zipped returns 1 GiB of zeros, compressed. It takes seconds to make.
var zipped = sync.OnceValues(func() ([]byte, error) {
	const size = 1 << 30
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := io.CopyN(w, zeros{}, size); err != nil {
		return nil, err
	}
	err = w.Close()
	return b.Bytes(), err
})

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// enveloped returns a message of gRPC, compressed or not.
func enveloped(compressed byte, message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{compressed}, uint32(len(message))), message...)
}

func repeated(text string, n int) func() ([]byte, error) {
	return func() ([]byte, error) { return bytes.Repeat([]byte(text), n), nil }
}

// bombAttacks are those with requests that take more to read than to send.
func bombAttacks() []Attack {
	proto := http.Header{"Content-Type": {"application/proto"}}
	return []Attack{
		bomb("gzip of 1 GiB, JSON", zipped,
			http.Header{"Content-Encoding": {"gzip"}}),
		bomb("gzip of 1 GiB, protobuf", zipped,
			http.Header{"Content-Encoding": {"gzip"}, "Content-Type": {"application/proto"}}),
		bomb("64 MiB message", repeated("\x00", 64<<20), proto),
		bomb("JSON of 60,000 open brackets", repeated("[", 60_000), nil),
		bomb("JSON with 12,000 nested objects", repeated(`{"a":`, 12_000), nil),
		bomb("protobuf with 60,000 nested groups", repeated("\x0b", 60_000), proto),
		bomb("protobuf with 20,000 unknown fields and no end", repeated("\x7a\x01a\x7a", 16_000), proto),
		{"bombs", "gzip of 1 GiB in a stream of gRPC", "refused; little memory", func(ctx context.Context, s *siege) (
			o Outcome, err error,
		) {
			return s.zippedStream(ctx)
		}},
		{"bombs", "headers of 8 MiB, HTTP/1.1", "refused", func(ctx context.Context, s *siege) (o Outcome, err error) {
			m := s.gateways()[0]
			statuses, err := s.raw(ctx, m, apiPort, "POST "+listLicenses+" HTTP/1.1\r\nHost: "+m.host+"\r\n"+
				strings.Repeat("X-Flood: "+strings.Repeat("x", 1000)+"\r\n", 8<<10)+"\r\n")
			if err == nil && len(statuses) > 0 && statuses[0] < 400 {
				return breached("answered %v", statuses), nil
			}
			return held("answers: %v", statuses), err
		}},
		framesAttack("headers of 16 MiB that never end (CONTINUATION flood)", continuations),
		framesAttack("requests that are cancelled at once (rapid reset)", resets),
		framesAttack("settings and pings that are never read", pings),
	}
}

// zippedStream sends a compressed message as gRPC does.
func (s *siege) zippedStream(ctx context.Context) (o Outcome, err error) {
	content, err := zipped()
	if err != nil {
		return o, err
	}
	token, err := s.secrets.token("service")
	if err != nil {
		return o, err
	}
	client := s.client(s.attacker())
	defer client.CloseIdleConnections()
	m := s.gateways()[0]
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url(m, apiPort)+listLicenses,
		bytes.NewReader(enveloped(1, content)))
	if err != nil {
		return o, err
	}
	r.Header = http.Header{
		"Content-Type": {"application/grpc+proto"}, "Grpc-Encoding": {"gzip"}, "Te": {"trailers"},
		"Authorization": {"Bearer " + token},
	}
	res, err := client.Do(r)
	if err != nil {
		return held("connection ended: %s", short(err.Error())), nil
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, maxAnswer)) // Trailers come after the body.
	code := res.Trailer.Get("Grpc-Status") + res.Header.Get("Grpc-Status")
	if code == "0" {
		return breached("answered OK"), nil
	}
	return held("grpc-status %s", code), nil
}

// framesAttack writes frames of HTTP/2 as fast as the server takes them, on several connections, for a while.
func framesAttack(name string, write func(f *http2.Framer, block []byte, n uint32) error) Attack {
	return Attack{"bombs", name, "connection ended, or little memory; others are served", func(
		ctx context.Context, s *siege,
	) (Outcome, error) {
		ctx, cancel := context.WithTimeout(ctx, s.options.Hold)
		defer cancel()
		m := s.gateways()[0]
		var mu sync.Mutex
		var connections, ended, frames int
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				for ctx.Err() == nil {
					n, err := s.frames(ctx, m, write)
					mu.Lock()
					connections, frames = connections+1, frames+n
					if err != nil && ctx.Err() == nil {
						ended++
					}
					mu.Unlock()
				}
			})
		}
		all.Wait()
		if frames == 0 {
			return Outcome{}, errors.New("no frame was sent")
		}
		return held("%d frames on %d connections, of which the server ended %d", frames, connections, ended), nil
	}}
}

// frames writes until the server ends the connection, or ctx ends.
func (s *siege) frames(ctx context.Context, m *member, write func(*http2.Framer, []byte, uint32) error) (int, error) {
	conn, err := s.secure(ctx, m, apiPort, http2.NextProtoTLS)
	if err != nil {
		hostile.Wait(ctx, 10*time.Millisecond)
		return 0, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	go func() { _, _ = io.Copy(io.Discard, conn) }() // It ends with the connection.
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return 0, err
	}
	f := http2.NewFramer(conn, nil)
	f.AllowIllegalWrites = true
	if err := f.WriteSettings(); err != nil {
		return 0, err
	}
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, h := range [][2]string{
		{":method", "POST"}, {":scheme", "https"}, {":authority", m.host}, {":path", listLicenses},
		{"content-type", "application/json"},
	} {
		if err := encoder.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}); err != nil {
			return 0, err
		}
	}
	for n := uint32(0); ; n++ {
		if err := conn.SetWriteDeadline(time.Now().Add(silence)); err != nil {
			return int(n), err
		}
		if err := write(f, block.Bytes(), n); err != nil {
			return int(n), err
		}
	}
}

// continuations begin one header, and never end it.
func continuations(f *http2.Framer, block []byte, n uint32) error {
	if n == 0 {
		return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block})
	}
	// A literal field that is not indexed, of a name and a value that fill a frame.
	field := append([]byte{0, 3, 'x', '-', 'y', 0x7f, 0x81, 0x7c}, bytes.Repeat([]byte("x"), 16<<10-512)...)
	return f.WriteContinuation(1, false, field[:min(len(field), 16000)])
}

// resets begin a request and cancel it.
func resets(f *http2.Framer, block []byte, n uint32) error {
	stream := 2*n + 1
	if stream > 1<<30 {
		return io.EOF
	}
	return errors.Join(
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block, EndHeaders: true}),
		f.WriteRSTStream(stream, http2.ErrCodeCancel),
	)
}

// pings ask for answers.
func pings(f *http2.Framer, _ []byte, n uint32) error {
	if n%2 == 0 {
		return f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: n})
	}
	return f.WritePing(false, [8]byte{byte(n)})
}

// flood runs hostile clients against each gateway, with a token of that role, or none.
func flood(attack hostile.Attack, role string) Attack {
	name, expect := attack.Name, "others are served; little memory"
	if role != "" {
		name += ", with the " + role + "'s token"
	} else {
		name += ", without credentials"
	}
	return Attack{"floods", name, expect, func(ctx context.Context, s *siege) (o Outcome, err error) {
		token := ""
		if role != "" {
			if token, err = s.secrets.token(role); err != nil {
				return o, err
			}
		}
		ctx, cancel := context.WithTimeout(ctx, s.options.Hold)
		defer cancel()
		var sum hostile.Counts
		for _, m := range s.gateways() {
			to := hostile.Target{Address: m.at(apiPort), From: s.attacker(), Token: token}
			if s.encrypted(apiPort) {
				to.TLS = &tls.Config{RootCAs: s.secrets.ca.pool()}
				if attack.HTTP1 {
					to.TLS.NextProtos = []string{"http/1.1"}
				}
			}
			sum = attack.Run(ctx, to, s.options.Hold)
		}
		if sum.Connections == 0 {
			// The share of the address is used up. The good client has its own.
			return held("no connection was accepted"), nil
		}
		return held("%d connections, %d closed; %d requests, %d refused", sum.Connections, sum.Closed, sum.Streams,
			sum.Refused), nil
	}}
}

// floodAttacks are those with more of everything than there is room for.
func floodAttacks() (all []Attack) {
	customer := canaryCustomer + "0"
	for _, attack := range hostile.All(customer) {
		all = append(all, flood(attack, ""))
	}
	return append(all,
		flood(hostile.UnreadLists(), "auditor"), flood(hostile.UnreadLicenses(customer), "service"),
		flood(hostile.UnfinishedImports(), "importer"), flood(hostile.UnfinishedCommands(), "service"),
		flood(hostile.AllStreams(customer), "auditor"),
		connections("half-open connections: no handshake", apiPort, ""),
		connections("half-open connections: no handshake, admin port", adminPort, ""),
		connections("half-open connections: no handshake, node port", nodePort, ""),
		connections("half-open connections: no greeting, gossip port", gossipPort, ""),
		connections("headers of one byte a second (slowloris)", apiPort, "POST "+listLicenses+" HTTP/1.1\r\nHost: "),
		newCustomers())
}

// connections opens as many connections as the server takes. Without a beginning nothing is sent; with one, that is
// sent encrypted, and then a byte a second.
func connections(name, port, beginning string) Attack {
	return Attack{"floods", name, "others are served; little memory", func(ctx context.Context, s *siege) (
		o Outcome, err error,
	) {
		ctx, cancel := context.WithTimeout(ctx, s.options.Hold)
		defer cancel()
		m := s.members[0] // a node
		if port == apiPort {
			m = s.gateways()[0]
		}
		var open []net.Conn
		defer func() {
			for _, c := range open {
				_ = c.Close() // The server may have ended it.
			}
		}()
		const many = 1500
		for range many {
			var c net.Conn
			if beginning == "" {
				c, err = s.dial(ctx, s.attacker(), m.at(port))
			} else if c, err = s.secure(ctx, m, port, "http/1.1"); err == nil {
				_, err = io.WriteString(c, beginning)
			}
			if err != nil {
				break // It takes no more.
			}
			open = append(open, c)
		}
		if len(open) == 0 {
			return o, fmt.Errorf("no connection was made: %w", err)
		}
		for ctx.Err() == nil {
			for _, c := range open {
				if beginning != "" {
					_, _ = c.Write([]byte("x")) // The server may have ended it.
				}
			}
			hostile.Wait(ctx, time.Second)
		}
		return held("%d connections", len(open)), nil
	}}
}

// newCustomers begins more histories than one address may.
func newCustomers() Attack {
	return Attack{"floods", "new customers, more than an address may begin", "refused beyond the limit", func(
		ctx context.Context, s *siege,
	) (o Outcome, err error) {
		token, err := s.secrets.token("service")
		if err != nil {
			return o, err
		}
		m := s.gateways()[0]
		var mu sync.Mutex
		var begun, refused int
		var errs []error
		var all sync.WaitGroup
		for worker := range 8 {
			all.Go(func() {
				for i := range 125 {
					status, answer, err := s.call(ctx, m, apiCall{path: acquire, token: token, body: fmt.Sprintf(
						`{"customerId":"flood-%d-%d","deviceId":"d","titleId":"T","commandId":"c"}`, worker, i)})
					mu.Lock()
					switch {
					case err != nil:
						errs = append(errs, err)
					case status == http.StatusOK:
						begun++
					case status == http.StatusTooManyRequests:
						refused++
					default:
						errs = append(errs, fmt.Errorf("%d %s", status, short(answer)))
					}
					mu.Unlock()
				}
			})
		}
		all.Wait()
		if len(errs) > 0 {
			return o, errs[0]
		}
		if refused == 0 {
			return breached("all of %d were begun", begun), nil
		}
		return held("%d begun, %d refused", begun, refused), nil
	}}
}
