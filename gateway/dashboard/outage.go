package dashboard

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	"licensed/messages/licensedv1"
)

// How long a page about a customer waits for an answer: while the status says that the customer's node serves, and
// while it says that none does. Nobody looks at a blank page for as long as the API may take.
const (
	servedWait   = 5 * time.Second
	unservedWait = time.Second
)

// served bounds the time of a page about a customer, and says which nodes do not respond if there is no answer.
func (d *Dashboard) served(
	h func(http.ResponseWriter, *http.Request) error,
) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		customer, wait := r.FormValue("id"), servedWait
		if d.outage(customer) != "" {
			wait = unservedWait
		}
		ctx, cancel := context.WithTimeout(r.Context(), wait)
		defer cancel()
		err := h(w, r.WithContext(ctx))
		code := connect.CodeOf(err)
		if err == nil || r.Context().Err() != nil ||
			ctx.Err() == nil && code != connect.CodeUnavailable && code != connect.CodeDeadlineExceeded {
			return err
		}
		page := &pageError{
			status: http.StatusServiceUnavailable, title: "The customer cannot be read now", customer: customer,
			retry: true,
			text:  fmt.Sprintf("The node that serves this customer did not answer in %s.", duration(wait)),
		}
		if code == connect.CodeUnavailable && ctx.Err() == nil {
			_, words := pageText(err)
			page.text = words
		}
		if outage := d.outage(customer); outage != "" {
			page.text = outage + " Its requests wait until a node takes over; nothing is lost."
		}
		return page
	}
}

// pageText returns what an error of the API says, as a sentence.
func pageText(err error) (ok bool, words string) {
	words, other := problem(err)
	return other == nil, words
}

// outage says that no node serves a customer, and which nodes do not respond; "" if one serves, or nothing is known.
func (d *Dashboard) outage(customer string) string {
	s := d.sampler.read().Status
	if s == nil {
		return ""
	}
	var silent []string
	serving := false
	for _, n := range s.Nodes {
		if !slices.Contains(n.Roles, licensedv1.NodeRole_NODE_ROLE_NODE) {
			continue
		}
		switch n.State {
		case licensedv1.NodeState_NODE_STATE_SUSPECT, licensedv1.NodeState_NODE_STATE_DEAD,
			licensedv1.NodeState_NODE_STATE_FAILED:
			silent = append(silent, n.Name)
		default:
			serving = true
		}
	}
	if d.config.Shard != nil && serving {
		shard := d.config.Shard(customer)
		i := slices.IndexFunc(s.ShardMap, func(x *licensedv1.ShardStatus) bool { return x.Id == shard })
		serving = i < 0 || s.ShardMap[i].State != licensedv1.ShardState_SHARD_STATE_ORPHANED &&
			s.ShardMap[i].State != licensedv1.ShardState_SHARD_STATE_UNCONFIRMED
	}
	switch {
	case serving, len(s.Nodes) == 0:
		return ""
	case len(silent) == 0:
		return "No node serves this customer."
	}
	return fmt.Sprintf("No node serves this customer (%s not responding).", strings.Join(silent, ", "))
}
