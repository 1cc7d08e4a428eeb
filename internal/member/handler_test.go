package member

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/reflect/protoreflect"

	"licensed/actors"
	"licensed/cluster"
	"licensed/gateway/auth"
	"licensed/internal/caller"
	"licensed/internal/optional"
	"licensed/messages/licensedv1"
	"licensed/messages/nodev1"
)

// tokensOf accepts the name of a role as the token of somebody with that role.
type tokensOf struct{}

func (tokensOf) Authenticate(_ context.Context, c auth.Credentials) (*auth.Claims, error) {
	roles, err := auth.ParseRoles([]string{c.Token})
	if err != nil {
		return nil, &auth.Error{Kind: auth.Unknown, Text: "unknown token"}
	}
	return &auth.Claims{Subject: c.Token, Issuer: "tokens", Roles: roles}, nil
}

// owner returns the handler of a node that decides about callers.
func owner() handler {
	node := new(optional.Value[cluster.Node])
	return handler{&Self{config: Config{
		Authorizer: auth.NewTable(), Authenticator: tokensOf{}, Log: slog.New(slog.DiscardHandler), Node: node,
		Metrics: NewMetrics(prometheus.NewRegistry(), node, false),
	}}}
}

// empties returns a message of each kind in a oneof.
func empties[M protoreflect.ProtoMessage](oneof protoreflect.Name) (all []any) {
	var m M
	fields := m.ProtoReflect().Descriptor().Oneofs().ByName(oneof).Fields()
	for i := range fields.Len() {
		each := m.ProtoReflect().New()
		each.Mutable(fields.Get(i))
		all = append(all, each.Interface())
	}
	return all
}

// TestOwnerRoles: for each request that a gateway sends to an owner, and each role, the owner decides as the gateway.
func TestOwnerRoles(t *testing.T) {
	h := owner()
	rules := make(map[string]auth.Rule)
	for _, r := range auth.Rules() {
		rules[r.Method] = r
	}
	var asked []string
	for _, request := range append(empties[*licensedv1.Command]("command"), empties[*licensedv1.Query]("query")...) {
		method := methodOf(request)
		if method == "" {
			continue // The caller says which; see below.
		}
		asked = append(asked, method) // Nobody may give a command that no method sends.
	}
	for method := range rules { // As the caller says, for questions that several methods ask.
		asked = append(asked, "says "+method)
	}
	for _, method := range asked {
		said, says := method, ""
		if len(method) > 5 && method[:5] == "says " {
			said, says = "", method[5:]
		}
		rule := rules[max(said, says)]
		for _, role := range auth.AllRoles() {
			for _, about := range []string{"Bayley", "Robin"} {
				for _, reason := range []string{"", "lost phone"} {
					by := &caller.Caller{
						Principal: "tokens:x", Roles: uint32(auth.RolesOf(role)), Reason: reason, Method: says,
					}
					own := role == licensedv1.Role_ROLE_CUSTOMER
					if own {
						by.Customer = "Bayley"
					}
					want := rule.Roles.Has(role) && (!own || about == "Bayley") ||
						rule.WithReason.Has(role) && reason != ""
					got, err := h.check(caller.NewContext(t.Context(), by), said, about)
					if (err == nil) != want || want && got != by {
						t.Errorf("%s about %s by %s, reason %q: %v", method, about, auth.RoleName(role), reason, err)
					}
				}
			}
		}
	}
}

// TestEveryRequestHasAMethod: each command and query that a gateway can send to an owner is that of a method which some
// role may call, so that the owner does not deny it to everybody. Another reason than that of a method of its own needs
// a line in auth.MethodOf.
func TestEveryRequestHasAMethod(t *testing.T) {
	rules := make(map[string]auth.Rule)
	for _, r := range auth.Rules() {
		rules[r.Method] = r
	}
	for _, request := range append(empties[*licensedv1.Command]("command"), empties[*licensedv1.Query]("query")...) {
		q, _ := request.(*licensedv1.Query)
		if method := methodOf(request); method == "" && q.GetDescribeState() == nil ||
			method != "" && rules[method].Roles|rules[method].WithReason == 0 {
			t.Errorf("%v is of the method %q, which nobody may call", request, method)
		}
	}
	// One of a later release is denied.
	for _, request := range []any{&licensedv1.Command{}, &licensedv1.Query{}} {
		if method := methodOf(request); method == "" || rules[method].Roles != 0 {
			t.Errorf("%T without content is of the method %q", request, method)
		}
	}
}

// TestOwnerDeniesNobody: a request that says nobody, or a method that does not exist, is denied.
func TestOwnerDeniesNobody(t *testing.T) {
	h := owner()
	command := &licensedv1.Command{Command: &licensedv1.Command_AcquireLicense{}}
	service := uint32(auth.RolesOf(licensedv1.Role_ROLE_SERVICE))
	for name, by := range map[string]*caller.Caller{
		"nobody":       nil,
		"a reason":     {Reason: "lost phone"},
		"no principal": {Roles: service, Method: "/licensed.v1.LicenseService/AcquireLicense"},
		"no role":      {Principal: "tokens:x", Method: "/licensed.v1.LicenseService/AcquireLicense"},
		// What the request is decides, and not what the gateway says that it is.
		"another method": {
			Principal: "tokens:x", Roles: uint32(auth.RolesOf(licensedv1.Role_ROLE_AUDITOR)),
			Method: "/licensed.v1.LicenseService/ListDevices",
		},
	} {
		ctx := t.Context()
		if by != nil {
			ctx = caller.NewContext(ctx, by)
		}
		var denied *actors.DeniedError
		if _, err := h.check(ctx, methodOf(command), "Bayley"); !errors.As(err, &denied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	by := &caller.Caller{Principal: "tokens:x", Roles: service, Method: "/licensed.v1.LicenseService/Unheard"}
	if _, err := h.check(caller.NewContext(t.Context(), by), methodOf(actors.HeadQuery{}), "Bayley"); err == nil {
		t.Error("a method that does not exist is allowed")
	}
}

// TestOwnerAsksOperators: what operators ask for needs their own token, whatever the gateway says of them.
func TestOwnerAsksOperators(t *testing.T) {
	h := owner()
	calls := map[string]func(context.Context) error{
		"passivate": func(ctx context.Context) error { return h.operator(ctx, methodOf(&nodev1.PassivateRequest{})) },
		"archive":   func(ctx context.Context) error { return h.operator(ctx, methodOf(&nodev1.ArchiveRequest{})) },
		"import":    func(ctx context.Context) error { return h.operator(ctx, methodOf(&nodev1.ImportRequest{})) },
		"forget":    func(ctx context.Context) error { return h.operator(ctx, methodOf(&nodev1.ForgetRequest{})) },
		"drain":     h.Drain,
		"undrain":   h.Undrain,
	}
	for name, call := range calls {
		may := []string{"operator"}
		if name == "import" {
			may = []string{"importer"}
		}
		tokens := []string{"", "forged"}
		for _, role := range auth.AllRoles() {
			tokens = append(tokens, auth.RoleName(role))
		}
		for _, token := range tokens {
			all := uint32(auth.RolesOf(auth.AllRoles()...))
			everything := &caller.Caller{Principal: "tokens:x", Roles: all, Token: token, Reason: "why"}
			var denied *actors.DeniedError
			err := call(caller.NewContext(t.Context(), everything))
			if errors.As(err, &denied) == slices.Contains(may, token) {
				t.Errorf("%s with token %q: %v", name, token, err)
			}
		}
		if err := call(t.Context()); err == nil || errors.Is(err, errNoNode) {
			t.Errorf("%s by nobody: %v", name, err)
		}
	}
}
