package cassandra

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gocql/gocql"

	"licensed/persistence"
)

//go:embed schema/*.cql schema/*/*.cql
var schemaFiles embed.FS

// Schema names one of the two sets of tables. They may share a keyspace.
type Schema string

// The sets: of the store, and of the archive.
const (
	HotSchema     Schema = "hot"
	ArchiveSchema Schema = "archive"
)

// The lock of the migrations expires after 60 s (TTL), so that a process which died
// holding it blocks others no longer. renew extends it before each statement.
const (
	bootstrapFile = "schema/migrations.cql"

	selectVersions = `SELECT version, name, checksum, applied_at, applied_by FROM schema_migrations WHERE scope = ?`
	insertVersion  = `INSERT INTO schema_migrations (scope, version, name, checksum, applied_at, applied_by)
		VALUES (?, ?, ?, ?, ?, ?) IF NOT EXISTS`
	takeLock    = `UPDATE schema_migrations USING TTL 60 SET lock = ? WHERE scope = ? IF lock = null`
	renewLock   = `UPDATE schema_migrations USING TTL 60 SET lock = ? WHERE scope = ? IF lock = ?`
	releaseLock = `DELETE lock FROM schema_migrations WHERE scope = ? IF lock = ?`

	// A change of the schema waits for all nodes, longer than a read or write does.
	schemaTimeout = 30 * time.Second
	lockPoll      = 300 * time.Millisecond
)

// SchemaVersion is one numbered file of the schema, and what the keyspace says of it.
type SchemaVersion struct {
	Version int
	Name    string
	// AppliedAt is zero if it was not applied; AppliedBy is the host that did.
	AppliedAt time.Time
	AppliedBy string
	// Known says that this program has the file, Changed that it was applied with other statements.
	Known, Changed bool
}

// ApplyOptions say how ApplySchema makes what is missing.
type ApplyOptions struct {
	// CreateKeyspace makes the keyspace if it is missing, with that many copies in each data centre;
	// 0 leaves it to the operator, who knows where copies belong.
	CreateKeyspace int
	// Progress is called before each file is applied; may be nil.
	Progress func(SchemaVersion)
}

// ApplySchema brings the keyspace's schema to the version that this program needs and returns what it
// then is. Any number of processes may do so at once: one works and the others wait. It needs the right
// to create tables, and all Cassandra nodes up. What failed half-way is done again by the next call.
// Errors: as Open; ErrSchema if the keyspace is newer than this program, or missing.
func ApplySchema(ctx context.Context, o Options, which Schema, a ApplyOptions) ([]SchemaVersion, error) {
	m := migrator{schema: which, apply: a, lock: gocql.UUID(persistence.NewIncarnation())}
	err := m.connect(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("cassandra schema: %w", err)
	}
	defer m.session.Close()
	state, err := m.run(ctx)
	if err != nil {
		return nil, fmt.Errorf("cassandra schema: keyspace %s: %w", o.Keyspace, err)
	}
	return state, nil
}

// SchemaStatus returns all versions, of the keyspace and of this program, in order. Errors: as Open;
// a keyspace without a schema is no error.
func SchemaStatus(ctx context.Context, o Options, which Schema) ([]SchemaVersion, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("cassandra schema: %w", err)
	}
	s, err := connectKeyspace(ctx, &o)
	if err != nil {
		return nil, fmt.Errorf("cassandra schema: %w", err)
	}
	defer s.Close()
	state, err := readSchema(ctx, s, which)
	if err != nil {
		return nil, fmt.Errorf("cassandra schema: keyspace %s: %w", o.Keyspace, err)
	}
	return state, nil
}

// connectKeyspace is connect, with the reason if it is the keyspace that is missing.
func connectKeyspace(ctx context.Context, o *Options) (*session, error) {
	s, err := connect(ctx, o, o.Keyspace)
	if err == nil || errors.Is(err, ErrCredentials) {
		return s, err
	}
	// The driver reports a missing keyspace like any other failure to connect. A session
	// without a keyspace finds out.
	bare, bareErr := connect(ctx, o, "")
	if bareErr != nil {
		return nil, err
	}
	defer bare.Close()
	there, bareErr := bare.keyspaceExists(ctx, o.Keyspace)
	if bareErr != nil || there {
		return nil, err
	}
	return nil, fmt.Errorf("%w: keyspace %s does not exist; create it with the replication that the cluster "+
		"needs, or with `licensed schema apply --create-keyspace 3`", ErrSchema, o.Keyspace)
}

// keyspaceExists reports whether the keyspace exists, as the node that is asked knows.
func (s *session) keyspaceExists(ctx context.Context, keyspace string) (bool, error) {
	var name string
	err := s.read(ctx, `SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = ?`, keyspace).
		Consistency(gocql.LocalOne).Scan(&name)
	if errors.Is(err, gocql.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// migration is one numbered file of schema/hot or schema/archive. A file that was
// released never changes: the checksum of its statements is compared with that recorded
// when it was applied.
type migration struct {
	version    int
	name       string
	checksum   string // of the statements, without comments
	statements []string
}

// migrations returns the files of a schema in order. Errors mean that the program was
// built wrong.
func migrations(which Schema) ([]migration, error) {
	files, err := fs.Glob(schemaFiles, "schema/"+string(which)+"/*.cql")
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("no schema %q: %w", which, err)
	}
	slices.Sort(files)
	// The number in a file's name is its version: a gap or a duplicate would be applied
	// in another order on other clusters.
	var all []migration
	for i, file := range files {
		number, name, _ := strings.Cut(strings.TrimSuffix(path.Base(file), ".cql"), "_")
		version, err := strconv.Atoi(number)
		if err != nil || version != i+1 {
			return nil, fmt.Errorf("%s: not the file number %d", file, i+1)
		}
		statements, err := readStatements(file)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256([]byte(strings.Join(statements, ";\n")))
		all = append(all, migration{version, name, hex.EncodeToString(sum[:]), statements})
	}
	return all, nil
}

// readStatements returns the statements of an embedded file.
func readStatements(file string) ([]string, error) {
	text, err := schemaFiles.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return splitStatements(text), nil
}

// splitStatements returns the statements of a file without comments and with single
// spaces, so that a checksum of them does not depend on layout. Quotes are respected; a
// quote within a quoted text is doubled in CQL, which the toggle gets right.
func splitStatements(text []byte) []string {
	var statements []string
	var current bytes.Buffer
	end := func() {
		if s := strings.Join(strings.Fields(current.String()), " "); s != "" {
			statements = append(statements, s)
		}
		current.Reset()
	}
	for quoted := false; len(text) > 0; text = text[1:] {
		switch {
		case text[0] == '\'':
			quoted = !quoted
		case quoted:
		case bytes.HasPrefix(text, []byte("--")):
			line, _, _ := bytes.Cut(text, []byte("\n"))
			text = text[len(line)-1:] // the loop continues at the end of the line
			continue
		case text[0] == ';':
			end()
			continue
		}
		current.WriteByte(text[0])
	}
	end()
	return statements
}

// readSchema compares the keyspace's versions with this program's. The result has all
// versions of this program, in order, and after them those of the keyspace that it does
// not know. Errors: ErrUnavailable.
func readSchema(ctx context.Context, s *session, which Schema) ([]SchemaVersion, error) {
	known, err := migrations(which)
	if err != nil {
		return nil, err
	}
	state := make([]SchemaVersion, 0, len(known))
	for _, m := range known {
		state = append(state, SchemaVersion{Version: m.version, Name: m.name, Known: true})
	}
	iter := s.readSerial(ctx, selectVersions, string(which)).Iter()
	var v SchemaVersion
	var checksum string
	for iter.Scan(&v.Version, &v.Name, &checksum, &v.AppliedAt, &v.AppliedBy) {
		switch {
		// The lock is in a row of version 0.
		case v.Version == 0: // only the lock exists
		case v.Version <= len(known):
			v.Known, v.Changed = true, checksum != known[v.Version-1].checksum
			state[v.Version-1] = v
		default:
			state = append(state, v)
		}
		v, checksum = SchemaVersion{}, ""
	}
	if err := iter.Close(); err != nil {
		if isInvalid(err) {
			return state, nil // there is no such table yet
		}
		return nil, readError(err)
	}
	return state, nil
}

// judgeSchema returns ErrSchema if the versions are not what this program needs, with the
// next step for the operator.
func judgeSchema(state []SchemaVersion) error {
	var missing []string
	for _, v := range state {
		switch {
		case !v.Known:
			return fmt.Errorf("%w: it has version %d (%s), newer than this program knows: run a newer one",
				ErrSchema, v.Version, v.Name)
		case v.Changed:
			return fmt.Errorf("%w: version %d (%s) was applied with other statements than this program has",
				ErrSchema, v.Version, v.Name)
		case v.AppliedAt.IsZero():
			missing = append(missing, fmt.Sprintf("%d (%s)", v.Version, v.Name))
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%w: version %s is missing: apply it with `licensed schema apply`",
			ErrSchema, strings.Join(missing, ", "))
	}
	return nil
}

// checkSchema returns ErrSchema unless the keyspace has exactly the versions of this
// program.
func checkSchema(ctx context.Context, s *session, which Schema) error {
	state, err := readSchema(ctx, s, which)
	if err != nil {
		return err
	}
	return judgeSchema(state)
}

// migrator applies the schema. Its lock is a random id, so that a lock of unknown outcome
// can be told from another process's.
type migrator struct {
	schema  Schema
	session *session
	apply   ApplyOptions
	lock    gocql.UUID
}

// connect opens a session with a timeout that suits changes of the schema, and makes the
// keyspace if the options ask for that.
func (m *migrator) connect(ctx context.Context, o Options) error {
	o.Timeout = max(o.Timeout, schemaTimeout)
	err := o.Validate()
	if err == nil && m.apply.CreateKeyspace > 0 {
		err = createKeyspace(ctx, &o, m.apply.CreateKeyspace)
	}
	if err == nil {
		m.session, err = connectKeyspace(ctx, &o)
	}
	return err
}

// createKeyspace makes the keyspace, with that many copies in each data centre. Two
// processes may do so at once.
func createKeyspace(ctx context.Context, o *Options, copies int) error {
	s, err := connect(ctx, o, "")
	if err != nil {
		return err
	}
	defer s.Close()
	if there, err := s.keyspaceExists(ctx, o.Keyspace); err != nil || there {
		return err
	}
	return s.change(ctx, fmt.Sprintf(`CREATE KEYSPACE IF NOT EXISTS %s WITH replication = `+
		`{'class': 'NetworkTopologyStrategy', 'replication_factor': %d}`, o.Keyspace, copies))
}

// TestKeyspacePrefix begins the names of keyspaces that DropTestKeyspace drops.
const TestKeyspacePrefix = "licensed_test_"

// DropTestKeyspace drops the keyspace of a test, with all that is in it. It refuses a name that does
// not begin with TestKeyspacePrefix.
func DropTestKeyspace(ctx context.Context, o Options) error {
	if !strings.HasPrefix(o.Keyspace, TestKeyspacePrefix) {
		return fmt.Errorf("drop keyspace %s: not a test's", o.Keyspace)
	}
	o.Timeout = max(o.Timeout, schemaTimeout)
	if err := o.Validate(); err != nil {
		return err
	}
	s, err := connect(ctx, &o, "")
	if err != nil {
		return err
	}
	defer s.Close()
	return s.change(ctx, `DROP KEYSPACE IF EXISTS `+o.Keyspace)
}

// change executes a statement that changes the schema and waits until all nodes have the change. A
// table that two nodes were asked to create at once is one and the same after that, so only then may
// anything be written to it.
func (s *session) change(ctx context.Context, statement string) error {
	if err := s.Query(statement).WithContext(ctx).Exec(); err != nil {
		return fmt.Errorf("%.60s…: %w", statement, err)
	}
	if err := s.AwaitSchemaAgreement(ctx); err != nil {
		return fmt.Errorf("%.60s…: are all nodes up? %w", statement, err)
	}
	return nil
}

// versionAttempts is the number of reads of the versions before a failure is believed.
const versionAttempts = 5

// read is readSchema. A table that another process is just creating cannot be read for a moment: Cassandra fails
// such a read ("Unknown CF"), and the next one finds the table.
func (m *migrator) read(ctx context.Context) ([]SchemaVersion, error) {
	for attempt := 1; ; attempt++ {
		state, err := readSchema(ctx, m.session, m.schema)
		if err == nil || attempt == versionAttempts || !errors.Is(err, persistence.ErrUnavailable) {
			return state, err
		}
		select {
		case <-time.After(lockPoll):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// run brings the schema up to date and returns what it then is.
func (m *migrator) run(ctx context.Context) ([]SchemaVersion, error) {
	state, err := m.read(ctx)
	if err != nil {
		return nil, err
	}
	if err := judgeSchema(state); err == nil {
		return state, nil // the usual start of a node takes no lock
	}
	statements, err := readStatements(bootstrapFile)
	if err != nil {
		return nil, err
	}
	for _, statement := range statements {
		if err := m.session.change(ctx, statement); err != nil {
			return nil, err
		}
	}
	if err := m.acquire(ctx); err != nil {
		return nil, err
	}
	// The lock is released after a failure, too: the next process need not wait for its
	// expiry. The first error is the one to report.
	err = m.applyMissing(ctx)
	_, _, releaseErr := m.session.compareAndSet(ctx, releaseLock, string(m.schema), m.lock)
	if err != nil {
		return nil, err
	}
	if releaseErr != nil {
		return nil, fmt.Errorf("release the lock, which frees itself in a minute: %w", releaseErr)
	}
	state, err = m.read(ctx)
	if err != nil {
		return nil, err
	}
	return state, judgeSchema(state)
}

// acquire waits for the lock. An attempt whose outcome is unknown is seen by the next: it is renewed.
func (m *migrator) acquire(ctx context.Context) error {
	for {
		taken, _, err := m.session.compareAndSet(ctx, takeLock, m.lock, string(m.schema))
		if err == nil && !taken {
			taken, _, err = m.session.compareAndSet(ctx, renewLock, m.lock, string(m.schema), m.lock)
		}
		if taken {
			return nil
		}
		if err != nil && !errors.Is(err, persistence.ErrUnknownOutcome) {
			return err
		}
		select {
		case <-time.After(lockPoll):
		case <-ctx.Done():
			return fmt.Errorf("another process is applying the schema: %w: %w", persistence.ErrUnavailable, ctx.Err())
		}
	}
}

// renew fails if this process did not keep the lock.
func (m *migrator) renew(ctx context.Context) error {
	held, _, err := m.session.compareAndSet(ctx, renewLock, m.lock, string(m.schema), m.lock)
	if err == nil && !held {
		err = fmt.Errorf("%w: the lock was lost", persistence.ErrUnavailable)
	}
	return err
}

// applyMissing applies the versions that the keyspace does not have. It reads them again:
// another process may have applied some before this one had the lock.
func (m *migrator) applyMissing(ctx context.Context) error {
	known, err := migrations(m.schema)
	if err != nil {
		return err
	}
	state, err := m.read(ctx)
	if err != nil {
		return err
	}
	for i, v := range state {
		if !v.Known || v.Changed {
			return judgeSchema(state[i : i+1])
		}
		if !v.AppliedAt.IsZero() {
			continue
		}
		if m.apply.Progress != nil {
			m.apply.Progress(v)
		}
		if err := m.applyOne(ctx, &known[i]); err != nil {
			return fmt.Errorf("version %d (%s): %w", v.Version, v.Name, err)
		}
	}
	return nil
}

// applyOne applies one file and records it. It may fail half-way, and another process may
// have lost its lock while Cassandra still executed its statement, so every statement in
// the files is one that may be repeated (IF NOT EXISTS).
func (m *migrator) applyOne(ctx context.Context, file *migration) error {
	for _, statement := range file.statements {
		if err := m.renew(ctx); err != nil {
			return err
		}
		if err := m.session.change(ctx, statement); err != nil {
			return err
		}
	}
	by, err := os.Hostname()
	if err != nil {
		by = "unknown"
	}
	// Not applied means that another process recorded the same version, which
	// [migrator.read] then judges.
	_, _, err = m.session.compareAndSet(ctx, insertVersion, string(m.schema), file.version, file.name, file.checksum,
		time.Now(), by)
	return err
}
