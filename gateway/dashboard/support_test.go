package dashboard

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
)

// silent is an API that never answers.
type silent struct {
	licensedv1connect.HistoryServiceClient
}

func (silent) GetState(
	ctx context.Context, _ *connect.Request[licensedv1.GetStateRequest],
) (*connect.Response[licensedv1.GetStateResponse], error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (silent) ListEvents(
	ctx context.Context, _ *connect.Request[licensedv1.ListEventsRequest],
) (*connect.ServerStreamForClient[licensedv1.ListEventsResponse], error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestOutage: a page about a customer whom no node serves comes soon, and names the nodes that do not respond.
func TestOutage(t *testing.T) {
	node := func(name string, state licensedv1.NodeState) *licensedv1.NodeStatus {
		return &licensedv1.NodeStatus{
			Name: name, State: state, Incarnation: name,
			Roles: []licensedv1.NodeRole{licensedv1.NodeRole_NODE_ROLE_NODE},
		}
	}
	ready, dead := licensedv1.NodeState_NODE_STATE_READY, licensedv1.NodeState_NODE_STATE_DEAD
	for name, test := range map[string]struct {
		status *licensedv1.ClusterStatus
		words  string
	}{
		"all nodes": {&licensedv1.ClusterStatus{
			Nodes: []*licensedv1.NodeStatus{node("n1", dead), node("n2", dead), node("n3", dead)},
		}, "No node serves this customer (n1, n2, n3 not responding)."},
		"one shard": {&licensedv1.ClusterStatus{
			Nodes:    []*licensedv1.NodeStatus{node("n1", ready), node("n2", dead)},
			ShardMap: []*licensedv1.ShardStatus{{Id: 7, State: licensedv1.ShardState_SHARD_STATE_ORPHANED}},
		}, "No node serves this customer (n2 not responding)."},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil, func(c *Config) {
				c.Cluster = clusterFunc(func() *licensedv1.ClusterStatus { return test.status })
				c.History, c.Shard = silent{}, func(string) uint32 { return 7 }
			})
			began := time.Now()
			_, body := r.expect(http.MethodGet, "/dashboard/customer?id=Bayley", nil, nil,
				http.StatusServiceUnavailable)
			if !strings.Contains(body, test.words) || !strings.Contains(body, "Try again") {
				t.Errorf("%s", body)
			}
			if took := time.Since(began); took > servedWait {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// TestOutside: a visitor without a login sees no navigation, no search and nothing to log out of.
func TestOutside(t *testing.T) {
	r := newRig(t, func(c *AccessConfig) { c.Token = "the-secret-token" })
	_, body := r.expect(http.MethodGet, "/dashboard/login", nil, nil, http.StatusOK)
	for _, absent := range []string{"<nav", "Log out", `id="find"`} {
		if strings.Contains(body, absent) {
			t.Errorf("the login page has %s", absent)
		}
	}
	_, body = r.expect(http.MethodGet, "/dashboard/nowhere", nil, func(q *http.Request) {
		q.Header.Set("Authorization", "Bearer the-secret-token")
	}, http.StatusNotFound)
	for _, present := range []string{"<nav", "Log out", `id="find"`} {
		if !strings.Contains(body, present) {
			t.Errorf("a page after the login lacks %s", present)
		}
	}
}

// TestProse: times in sentences become elements, all else is escaped; characters without a glyph are shown in texts and
// kept in the values of forms.
func TestProse(t *testing.T) {
	for text, want := range map[string]string{
		"a <b> & c":                "a &lt;b&gt; &amp; c",
		"from 2026-03-01 20:15 on": `from <time datetime="2026-03-01T20:15:00Z">2026-03-01 20:15 UTC</time> on`,
		"2026-03-01T20:15:09.5Z.":  `<time datetime="2026-03-01T20:15:09Z">2026-03-01 20:15:09 UTC</time>.`,
		"12026-03-01 20:15":        "12026-03-01 20:15",
	} {
		if got := string(prose(text)); got != want {
			t.Errorf("%q:\n%s\nwant\n%s", text, got, want)
		}
	}
	const html = "<input value=\"a\u202eb\"><b>a\u202eb\u200b</b>"
	if got, want := string(visible([]byte(html))), "<input value=\"a\u202eb\"><b>a\\u202eb\\u200b</b>"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestSpoken: what is read to the customer has the reason, what helps and the date.
func TestSpoken(t *testing.T) {
	v := &refusedView{}
	v.now(&licensedv1.Refusal{Message: "2 rules", Violations: []*licensedv1.RuleViolation{
		{Rule: licensedv1.Rule_RULE_STUDIO_LIMIT, Needed: 2, FreedBy: []*licensedv1.Remedy{
			{DeviceId: "a", TitleId: "x"}, {DeviceId: "a", TitleId: "y"}, {DeviceId: "b", TitleId: "z"},
		}},
		{Rule: licensedv1.Rule_RULE_YEARLY_LIMIT},
	}})
	if v.Allowed || len(v.Frees) != 1 || len(v.Blocks) != 2 ||
		v.Frees[0] != "For the studio limit: end the download of 2 of these: x on a, y on a, z on b." ||
		v.Blocks[0] != "Neither time nor a release or a removal ends the yearly limit." ||
		v.Spoken != " Waiting does not change this." {
		t.Errorf("%q %q %q", v.Spoken, v.Frees, v.Blocks)
	}
	for kind := range licensedv1.Rule_name {
		if kind > 0 && reasonOf(&licensedv1.BrokenRule{Rule: licensedv1.Rule(kind), Current: 3, Limit: 2}) == "" {
			t.Errorf("no reason for %v", licensedv1.Rule(kind))
		}
	}
}

// TestStateTellsExceptions: the state has the exceptions that count, what is lent, and why a device is not active.
func TestStateTellsExceptions(t *testing.T) {
	limit := uint32(3)
	v := compare(nil, &licensedv1.CustomerState{
		Devices: []*licensedv1.DeviceState{
			{DeviceId: "old", MergedInto: "new"}, {DeviceId: "reporter", LastUsedAt: timestamppb.New(time.Unix(1, 0))},
			{DeviceId: "sold", ActivatedAt: timestamppb.New(time.Unix(1, 0))},
		},
		Exceptions: []*licensedv1.Exception{{
			Number: 7, Reason: "ticket 4711",
			Kind: &licensedv1.Exception_Limit{Limit: &licensedv1.OtherLimit{
				Kind: licensedv1.LimitKind_LIMIT_KIND_DEVICES, Limit: &limit, PlanId: "standard",
			}},
		}},
		Allowances: []*licensedv1.Allowance{{Number: 2, DeviceId: "new", TitleIds: []string{"a", "b"}}},
	})
	var text strings.Builder
	for _, table := range v.Tables {
		for _, r := range table.Rows {
			for _, c := range r.Cells {
				fmt.Fprintf(&text, "%s=%s;", c.Name, c.Text)
			}
		}
	}
	for _, want := range []string{
		"Status=merged into new;", "Device=reporter;Name=;Type=;Status=never had a licence;",
		"Device=sold;Name=;Type=;Status=removed;",
		"Exception=7;What=3 devices in plan standard", "Reason=ticket 4711;", "Allowance=2;Device=new;Titles=a, b;",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in %s", want, text.String())
		}
	}
}
