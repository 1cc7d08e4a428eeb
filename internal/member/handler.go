package member

import (
	"context"
	"fmt"

	"licensed/actors"
	"licensed/actors/license"
	"licensed/cluster"
	"licensed/cluster/transport"
	"licensed/gateway/auth"
	"licensed/internal/caller"
	"licensed/messages/licensedv1/licensedv1connect"
	"licensed/messages/nodev1"
)

// handler answers the requests of other processes. Whether the caller of a request may do what it asks for is decided
// again here, by the function that the gateway decides by: a gateway that has a bug, or is somebody else's, acts for
// nobody without saying for whom. It implements transport.Handler.
type handler struct{ *Self }

// errNoNode is the answer to requests for customers at a process that holds none.
var errNoNode = fmt.Errorf("%w: this process is a gateway", actors.ErrNotOwner)

// Execute implements transport.Handler.
func (h handler) Execute(ctx context.Context, kind, id string, c actors.Command) (actors.Reply, error) {
	node, err := h.of(kind)
	if err != nil {
		return actors.Reply{}, err
	}
	by, err := h.check(ctx, methodOf(c.Payload), id)
	if err != nil {
		return actors.Reply{}, err
	}
	if by != nil {
		c.Principal, c.Reason = by.Principal, by.Reason
	}
	return node.Execute(ctx, id, c)
}

// Query implements transport.Handler.
func (h handler) Query(ctx context.Context, kind, id string, query any) (actors.Answer, error) {
	node, err := h.of(kind)
	if err != nil {
		return actors.Answer{}, err
	}
	if _, err := h.check(ctx, methodOf(query), id); err != nil {
		return actors.Answer{}, err
	}
	return node.Query(ctx, id, query)
}

// Operate implements transport.Handler.
func (h handler) Operate(ctx context.Context, kind, id string, request any) (actors.Answer, error) {
	node, err := h.of(kind)
	if err != nil {
		return actors.Answer{}, err
	}
	if err := h.operator(ctx, methodOf(request)); err != nil {
		return actors.Answer{}, err
	}
	return node.Operate(ctx, id, request)
}

// Drain implements transport.Handler.
func (h handler) Drain(ctx context.Context) error {
	if err := h.operator(ctx, licensedv1connect.AdminServiceDrainNodeProcedure); err != nil {
		return err
	}
	return h.Self.Drain(ctx)
}

// Undrain implements transport.Handler.
func (h handler) Undrain(ctx context.Context) error {
	if err := h.operator(ctx, licensedv1connect.AdminServiceUndrainNodeProcedure); err != nil {
		return err
	}
	return h.Self.Undrain(ctx)
}

// of returns the node that holds aggregates of a kind.
func (h handler) of(kind string) (*cluster.Node, error) {
	if kind != license.Name {
		return nil, fmt.Errorf("%w: aggregates of kind %q", actors.ErrNotSupported, kind)
	}
	if node, ok := h.config.Node.Get(); ok {
		return node, nil
	}
	return nil, errNoNode
}

// methodOf returns the method that a request comes of. Empty: several methods ask so, and the caller says which one.
func methodOf(request any) string {
	switch request.(type) {
	case *nodev1.PassivateRequest:
		return licensedv1connect.AdminServicePassivateCustomerProcedure
	case *nodev1.ArchiveRequest:
		return licensedv1connect.AdminServiceArchiveCustomerProcedure
	case *nodev1.ImportRequest:
		return licensedv1connect.AdminServiceImportCustomerProcedure
	case *nodev1.ForgetRequest:
		return licensedv1connect.AdminServiceForgetCustomerProcedure
	}
	return auth.MethodOf(request)
}

// check decides whether the caller of a request about a customer may call a method, and returns the caller; nil where
// callers have no identity. An empty method is the one that the caller says. Errors: *actors.DeniedError.
func (h handler) check(ctx context.Context, method, customer string) (*caller.Caller, error) {
	by := caller.FromContext(ctx)
	if h.config.Authorizer == nil {
		return by, nil
	}
	d := auth.AuthorizeCaller(h.config.Authorizer, by, method, customer)
	if !d.Allowed {
		return nil, h.denied(by, method, string(d.Denial), d.Text)
	}
	return by, nil
}

// operator decides whether an operator may call a method, by the operator's own token: what the gateway says is not
// enough. Errors: *actors.DeniedError.
func (h handler) operator(ctx context.Context, method string) error {
	by := caller.FromContext(ctx)
	switch {
	case h.config.Authorizer == nil && transport.ProcessOf(ctx) == transport.Gateway:
		return h.denied(by, method, "gateway",
			"a gateway may not do this by itself; start the node with --auth-file, so that it knows operators")
	case h.config.Authorizer == nil:
		return nil
	case by == nil || by.Token == "":
		return h.denied(by, method, "no_token",
			"this call needs the operator's token, which the node verifies; a client certificate proves nothing to it")
	}
	claims, err := h.config.Authenticator.Authenticate(ctx, auth.Credentials{Token: by.Token})
	if err != nil {
		return h.denied(by, method, "bad_token", "the node does not accept the operator's token: "+err.Error())
	}
	d := h.config.Authorizer.Authorize(claims, auth.Action{Method: method, Read: true, Reason: by.Reason})
	if !d.Allowed {
		return h.denied(by, method, string(d.Denial), d.Text)
	}
	h.config.Log.Info("operator's request accepted", "method", method, "principal", claims.Principal(), "audit", true)
	return nil
}

// denied records that a request of another process was denied. A gateway denies it before it gets here, unless it has
// other rules or is not what it seems.
func (h handler) denied(by *caller.Caller, method, kind, text string) error {
	principal := ""
	if by != nil {
		principal = by.Principal
	}
	h.config.Metrics.denied.WithLabelValues(kind).Inc()
	h.config.Log.Warn("request of another process denied", "method", method, "principal", principal, "reason", kind,
		"audit", true)
	return &actors.DeniedError{Text: text}
}
