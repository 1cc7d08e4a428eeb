package hostile

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// use begins the requests of one connection.
func (r *Running) use(ctx context.Context, conn net.Conn) {
	if !r.attack.Deaf {
		r.readers.Go(func() { r.read(conn) })
	}
	switch w := (&patientWriter{conn}); {
	case r.attack.Path == "":
	case r.attack.HTTP1:
		if r.request(w) == nil {
			r.streams.Add(1)
		}
	default:
		r.requests(ctx, w)
	}
}

// request writes a request of HTTP/1.1, as far as it goes.
func (r *Running) request(w io.Writer) error {
	a := &r.attack
	authorization := ""
	if r.to.Token != "" {
		authorization = "Authorization: Bearer " + r.to.Token + "\r\n"
	}
	if _, err := fmt.Fprintf(w, "POST %s HTTP/1.1\r\nHost: %s\r\n%sContent-Type: %s\r\nContent-Length: %d\r\n\r\n",
		a.Path, r.to.host(), authorization, a.ContentType, a.Declared); err != nil {
		return err
	}
	for rest := a.Body; len(rest) > 0; {
		n, err := w.Write(rest[:min(len(rest), piece)])
		if err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// requests writes the requests of a connection of HTTP/2.
func (r *Running) requests(ctx context.Context, w io.Writer) {
	f := http2.NewFramer(w, nil)
	if _, err := io.WriteString(w, http2.ClientPreface); err != nil {
		return
	}
	if err := f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window}); err != nil {
		return
	}
	for i := range r.attack.Streams {
		if ctx.Err() != nil || r.begin(f, uint32(2*i+1)) != nil {
			return
		}
		r.streams.Add(1)
	}
}

// begin writes a request of HTTP/2, whose body fits into the server's window.
func (r *Running) begin(f *http2.Framer, stream uint32) error {
	a := &r.attack
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	encoder.SetMaxDynamicTableSize(0)
	fields := [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":authority", r.to.host()}, {":path", a.Path},
		{"content-type", a.ContentType}, {"content-length", strconv.Itoa(a.Declared)},
	}
	if r.to.TLS != nil {
		fields[1][1] = "https"
	}
	if r.to.Token != "" {
		fields = append(fields, [2]string{"authorization", "Bearer " + r.to.Token})
	}
	for _, h := range fields {
		if err := encoder.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}); err != nil {
			return err
		}
	}
	if err := f.WriteHeaders(
		http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true},
	); err != nil {
		return err
	}
	return f.WriteData(stream, len(a.Body) == a.Declared, a.Body)
}

// patientWriter gives up when the server takes nothing for a while.
type patientWriter struct{ net.Conn }

// Write implements io.Writer.
func (w *patientWriter) Write(p []byte) (int, error) {
	if err := w.SetWriteDeadline(time.Now().Add(stalled)); err != nil {
		return 0, err
	}
	return w.Conn.Write(p)
}

// read counts what comes of the requests of a connection, until that is closed.
func (r *Running) read(conn net.Conn) {
	defer r.closed.Add(1)
	if r.attack.HTTP1 || r.attack.Path == "" {
		r.readReply(conn)
		return
	}
	refused := make(map[uint32]bool)
	refuse := func(stream uint32) {
		if !refused[stream] {
			refused[stream] = true
			r.refused.Add(1)
		}
	}
	f := http2.NewFramer(conn, conn) // A frame is one write, whichever goroutine writes.
	f.ReadMetaHeaders = hpack.NewDecoder(4<<10, nil)
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				_ = f.WriteSettingsAck() // If it fails, so does the next read.
			}
		case *http2.PingFrame:
			_ = f.WritePing(true, frame.Data)
		case *http2.RSTStreamFrame:
			refuse(frame.StreamID)
		case *http2.DataFrame:
			if bytes.Contains(frame.Data(), []byte("resource_exhausted")) {
				refuse(frame.StreamID)
			}
		case *http2.MetaHeadersFrame:
			if frame.PseudoValue("status") == strconv.Itoa(http.StatusTooManyRequests) {
				refuse(frame.StreamID)
			} else if !frame.StreamEnded() {
				r.accepts.Add(1)
			}
		}
	}
}

// readReply counts the reply to the request of a connection of HTTP/1.1.
func (r *Running) readReply(conn net.Conn) {
	in := bufio.NewReaderSize(conn, 1<<10)
	if res, err := http.ReadResponse(in, nil); err == nil {
		defer res.Body.Close()
		if res.StatusCode == http.StatusTooManyRequests {
			r.refused.Add(1)
		} else {
			r.accepts.Add(1)
		}
	}
	_, _ = io.Copy(io.Discard, in) // Until the server closes it.
}
