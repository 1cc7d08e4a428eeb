package cassandra

import (
	"context"
	"errors"
	"testing"

	"github.com/gocql/gocql"

	"licensed/persistence"
)

// answered is an error that a node of Cassandra answered with.
type answered struct {
	code    int
	message string
}

func (a answered) Code() int       { return a.code }
func (a answered) Message() string { return a.message }
func (a answered) Error() string   { return a.message }

// attempted is a request that was tried this many times.
type attempted struct {
	gocql.RetryableQuery
	n   int
	ctx context.Context
}

func (a attempted) Attempts() int            { return a.n }
func (a attempted) Context() context.Context { return a.ctx }

// TestRefusals: a node whose schema lags behind calls a sound request invalid. That is not the request's fault, and
// another node may know better.
func TestRefusals(t *testing.T) {
	const invalid = gocql.ErrCodeInvalid
	for _, c := range []struct {
		answer answered
		want   error // of a write
	}{
		{answered{invalid, "unconfigured table events"}, persistence.ErrUnknownOutcome},
		{answered{invalid, "table votes does not exist"}, persistence.ErrUnknownOutcome},
		{answered{invalid, "Keyspace 'licensed' does not exist"}, persistence.ErrUnknownOutcome},
		{
			answered{invalid, "Undefined column name cluster_id in table licensed.cluster"},
			persistence.ErrUnknownOutcome,
		},
		{answered{invalid, "Undefined name address in where clause ('address = ?')"}, persistence.ErrUnknownOutcome},
		{answered{invalid, "Unknown identifier address"}, persistence.ErrUnknownOutcome},
		{answered{gocql.ErrCodeUnprepared, "Prepared query with ID 1 not found"}, persistence.ErrUnknownOutcome},
		{answered{gocql.ErrCodeUnavailable, "Cannot achieve consistency level QUORUM"}, persistence.ErrUnknownOutcome},
		{answered{gocql.ErrCodeWriteTimeout, "Operation timed out"}, persistence.ErrUnknownOutcome},
		{answered{invalid, "Batch too large"}, persistence.ErrRejected},
		{
			answered{invalid, "Encountered an oversized mutation (17825792/16777216) for keyspace: licensed"},
			persistence.ErrRejected,
		},
		{answered{invalid, "Key length of 70000 is longer than maximum of 65535"}, persistence.ErrRejected},
	} {
		if err := writeError(c.answer); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.answer.message, err, c.want)
		}
		wantRetry := gocql.Rethrow
		if c.answer.code == invalid {
			wantRetry = gocql.RetryNextHost
		}
		if got := (refusedRetry{}).GetRetryType(c.answer); got != wantRetry {
			t.Errorf("%s: retry of a write %v, want %v", c.answer.message, got, wantRetry)
		}
		if got := (readRetry{}).GetRetryType(c.answer); got != gocql.RetryNextHost {
			t.Errorf("%s: retry of a read %v", c.answer.message, got)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		query attempted
		want  bool
	}{{attempted{n: 1, ctx: t.Context()}, true}, {attempted{n: 2, ctx: t.Context()}, false},
		{attempted{n: 1, ctx: ended}, false}} {
		if got := (refusedRetry{}).Attempt(c.query); got != c.want {
			t.Errorf("after %d attempts, %v: another one %t", c.query.n, c.query.ctx.Err(), got)
		}
	}
}
