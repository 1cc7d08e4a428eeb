package gateway

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"licensed/actors"
	"licensed/gateway/auth"
	"licensed/internal/caller"
	"licensed/messages/licensedv1"
	"licensed/persistence"
)

// notAsked is an Authenticator, and the aggregates of a node, neither of which is asked.
type notAsked struct{ auth.Authenticator }

func (notAsked) Execute(context.Context, string, actors.Command) (actors.Reply, error) {
	panic("a question is no command")
}

func (notAsked) Query(context.Context, string, any) (actors.Answer, error) {
	return actors.Answer{}, actors.ErrUnavailable
}

// TestStaleAnswersAskWho: a process that answers a question without its owner denies what the owner denies, by the
// message and not by the method that the caller says.
func TestStaleAnswersAskWho(t *testing.T) {
	g := &Gateway{
		config: Config{Authenticator: notAsked{}, Authorizer: auth.NewTable(), StoredHead: func(
			context.Context, string) (persistence.Head, error) {
			t.Error("the store was asked")
			return persistence.Head{}, nil
		}},
		aggregates: notAsked{},
		metrics:    &metrics{denied: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "x"}, []string{"reason"})},
	}
	q := &licensedv1.Query{Query: &licensedv1.Query_ListDevices{ListDevices: &licensedv1.ListDevices{}}}
	list := "/licensed.v1.LicenseService/ListDevices"
	of := func(roles ...licensedv1.Role) uint32 { return uint32(auth.RolesOf(roles...)) }
	for name, test := range map[string]struct {
		by     *caller.Caller
		denied bool
	}{
		"nobody":       {nil, true},
		"no principal": {&caller.Caller{Roles: of(licensedv1.Role_ROLE_SERVICE), Method: list}, true},
		"no role":      {&caller.Caller{Principal: "tokens:x", Method: list}, true},
		"another customer": {&caller.Caller{
			Principal: "tokens:x", Roles: of(licensedv1.Role_ROLE_CUSTOMER), Customer: "Robin", Method: list,
		}, true},
		"another method": {&caller.Caller{
			Principal: "tokens:x", Roles: of(licensedv1.Role_ROLE_METRICS),
			Method: "/licensed.v1.AdminService/GetCluster",
		}, true},
		"a service": {&caller.Caller{Principal: "tokens:x", Roles: of(licensedv1.Role_ROLE_SERVICE)}, false},
		"the customer": {&caller.Caller{
			Principal: "tokens:x", Roles: of(licensedv1.Role_ROLE_CUSTOMER), Customer: "Bayley",
		}, false},
	} {
		ctx := t.Context()
		if test.by != nil {
			ctx = caller.NewContext(ctx, test.by)
		}
		_, _, err := g.read(ctx, "Bayley", q, time.Hour)
		var denied *actors.DeniedError
		if errors.As(err, &denied) != test.denied || !test.denied && !errors.Is(err, actors.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
