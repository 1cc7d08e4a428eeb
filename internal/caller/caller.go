// Package caller has who a request acts for, as one process tells it another: a gateway finds out who calls the API,
// and the owner of a customer decides again, and records it.
//
// A caller is in the context of its request. Who puts it there vouches for it: the gateway for its clients, and the
// transport for what a process with a certificate of the cluster sent.
package caller

import "context"

// Caller is who a request acts for.
type Caller struct {
	// Principal is the name of the caller, unique among all issuers of credentials: "ISSUER:SUBJECT".
	Principal string
	// Roles are a set of numbers below 32, those of licensed.v1.Role.
	Roles uint32
	// Customer is the id that a caller with the role customer may act for; empty for none.
	Customer string
	// Reason that the caller states; empty for none.
	Reason string
	// Method is the path of the call of the API, "/licensed.v1.LicenseService/AcquireLicense".
	Method string
	// Token is the caller's own, which the owner verifies itself; empty unless the method is an operator's.
	Token string
}

// Key is the key of a Bearer in a context.
type Key struct{}

// Bearer is what a context has under Key.
type Bearer interface {
	// Caller returns who the request acts for; nil if callers have no identity here.
	Caller() *Caller
}

// Caller implements Bearer.
func (c *Caller) Caller() *Caller { return c }

// NewContext returns a context with a caller.
func NewContext(ctx context.Context, c *Caller) context.Context {
	return context.WithValue(ctx, Key{}, c)
}

// FromContext returns the caller in a context; nil if it has none.
func FromContext(ctx context.Context) *Caller {
	if b, ok := ctx.Value(Key{}).(Bearer); ok {
		return b.Caller()
	}
	return nil
}
