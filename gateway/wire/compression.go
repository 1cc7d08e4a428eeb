package wire

import (
	"compress/gzip"
	"errors"
	"io"

	"connectrpc.com/connect"
)

// Largest bounds a message of a client, in bytes, as it arrives and decompressed.
func Largest(size int) connect.HandlerOption {
	return connect.WithHandlerOptions(connect.WithReadMaxBytes(size), connect.WithCompression("gzip",
		// Of a message that is too large, package connect needs one byte more.
		func() connect.Decompressor { return &boundedGzip{most: size + 1} },
		func() connect.Compressor { return gzip.NewWriter(io.Discard) }))
}

// boundedGzip implements connect.Decompressor. That of package connect decompresses a message that is too large to its
// end, to name its size: a message of 4 MiB takes a processor for ten seconds.
type boundedGzip struct {
	gzip.Reader
	most, left int // bytes of a message
}

var errDecompressed = errors.New("decompression was stopped")

// Reset implements connect.Decompressor.
func (z *boundedGzip) Reset(r io.Reader) error {
	z.left = z.most
	return z.Reader.Reset(r)
}

// Read implements io.Reader.
func (z *boundedGzip) Read(p []byte) (int, error) {
	if z.left == 0 && len(p) > 0 {
		return 0, errDecompressed
	}
	n, err := z.Reader.Read(p[:min(len(p), z.left)])
	z.left -= n
	return n, err
}
