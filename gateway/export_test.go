package gateway

import (
	"net"

	"connectrpc.com/connect"
)

// MaxMessageCalls is the number of calls in one message of a session.
const MaxMessageCalls = maxMessageCalls

// For tests of what cannot be reached exhaustively through the API.
var Fingerprint = fingerprint

// Accept takes a connection as the server would.
func (s *Server) Accept() (net.Conn, error) { return s.listener.Accept() }

// On has a server that was not started serve another listener.
func (s *Server) On(l net.Listener) {
	_ = s.listener.Close()
	s.listener = l
}

// Codecs of requests.
var (
	ProtoCodec connect.Codec = protoCodec
	JSONCodec  connect.Codec = jsonCodec("json")
)
