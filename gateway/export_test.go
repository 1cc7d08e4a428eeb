package gateway

// MaxMessageCalls is the number of calls in one message of a session.
const MaxMessageCalls = maxMessageCalls

// For tests of what cannot be reached exhaustively through the API.
var Fingerprint = fingerprint
