package gateway

import (
	"net"

	"connectrpc.com/connect"
)

// For tests of what cannot be reached exhaustively through the API.
var Fingerprint = fingerprint

// Accept takes a connection as the server would.
func (s *Server) Accept() (net.Conn, error) { return s.listener.Accept() }

// On has a server that was not started serve another listener.
func (s *Server) On(l net.Listener) {
	_ = s.listener.Close()
	s.listener = l
}

// SessionCodecs decode the messages of sessions.
var SessionCodecs = []connect.Codec{binaryCodec{}, jsonCodec("json")}

// Codecs of requests.
var (
	ProtoCodec connect.Codec = boundedProto{}
	JSONCodec  connect.Codec = boundedJSON{"json"}
)
