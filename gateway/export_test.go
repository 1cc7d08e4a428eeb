package gateway

// For tests of what cannot be reached exhaustively through the API.
var (
	Forbidden   = forbidden
	Fingerprint = fingerprint
)
