package cassandratest

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gocql/gocql"

	"licensed/persistence/cassandra"
)

// Roles are the roles of deploy/cassandra for the keyspace of a test. Their names begin with that of the keyspace.
type Roles struct {
	// Admin is how an administrator reaches the keyspace.
	Admin cassandra.Options
}

// As returns the options of a role: migration, node or gateway.
func (r Roles) As(role string) cassandra.Options {
	o := r.Admin
	o.Username, o.Password = r.Admin.Keyspace+"_"+role, "change-me"
	return o
}

// Execute executes the statements of a file of deploy/cassandra.
func (r Roles) Execute(t testing.TB, s *Session, file string) {
	t.Helper()
	_, here, _, _ := runtime.Caller(0)
	content, err := os.ReadFile(filepath.Join(filepath.Dir(here), "..", "..", "..", "deploy", "cassandra", file))
	if err != nil {
		t.Fatal(err)
	}
	keyspace := r.Admin.Keyspace
	named := strings.NewReplacer("licensed_", keyspace+"_", "licensed.", keyspace+".", "KEYSPACE licensed",
		"KEYSPACE "+keyspace)
	var statements strings.Builder
	for line := range strings.Lines(string(content)) {
		if !strings.HasPrefix(line, "--") {
			statements.WriteString(line)
		}
	}
	for statement := range strings.SplitSeq(named.Replace(statements.String()), ";") {
		if statement = strings.TrimSpace(statement); statement == "" {
			continue
		}
		if err := s.Exec(statement); err != nil {
			t.Fatalf("%s: %s: %v", file, statement, err)
		}
	}
}

// Session executes statements as a test wants them. It keeps the files and the password that it began with.
type Session struct{ session *gocql.Session }

// Connect opens a session, which t.Cleanup closes.
func Connect(t testing.TB, o cassandra.Options) *Session {
	t.Helper()
	c := gocql.NewCluster(o.Hosts...)
	c.Keyspace, c.Timeout, c.ConnectTimeout = o.Keyspace, time.Minute, time.Minute
	c.Authenticator = gocql.PasswordAuthenticator{Username: o.Username, Password: o.Password}
	if o.TLS != nil {
		c.SslOpts = &gocql.SslOptions{Config: o.TLS(), EnableHostVerification: true}
	}
	s, err := c.CreateSession()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return &Session{s}
}

// Close closes the session, once or twice.
func (s *Session) Close() { s.session.Close() }

// Exec executes a statement.
func (s *Session) Exec(statement string) error { return s.session.Query(statement).Exec() }

// Unauthorized reports whether Cassandra refused a statement for lack of a right.
func Unauthorized(err error) bool {
	var answer gocql.RequestError
	return errors.As(err, &answer) && answer.Code() == gocql.ErrCodeUnauthorized
}
