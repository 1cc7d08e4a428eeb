package cassandra

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/gocql/gocql"

	"licensed/persistence"
)

// schemaAgreementTimeout is the time that all nodes have to agree on a changed schema. It
// is long, since a node that is just starting up takes that long.
const schemaAgreementTimeout = 30 * time.Second

// session is a connected driver, with the levels that its options name.
type session struct {
	*gocql.Session
	policy *hostPolicy
	levels levels
}

// Close closes the session. Its goroutines may outlive that for a while, but not be heard.
func (s *session) Close() {
	s.policy.log.silence()
	s.Session.Close()
}

// connect opens a session on a keyspace, or on none. Errors: ErrCredentials, persistence.ErrUnavailable.
func connect(ctx context.Context, o *Options, keyspace string) (*session, error) {
	cfg := gocql.NewCluster(o.Hosts...)
	cfg.Port = o.Port
	cfg.Keyspace = keyspace
	cfg.ProtoVersion = 4
	cfg.Timeout = o.Timeout
	cfg.ConnectTimeout = o.ConnectTimeout
	cfg.ReconnectInterval = o.ReconnectInterval
	cfg.ReconnectionPolicy = &gocql.ConstantReconnectionPolicy{MaxRetries: 1, Interval: o.ReconnectInterval}
	cfg.SocketKeepalive = 15 * time.Second
	cfg.NumConns = o.Connections
	cfg.WriteCoalesceWaitTime = o.CoalesceWait
	cfg.Consistency = o.levels().plain
	cfg.SerialConsistency = o.levels().serial
	cfg.DefaultTimestamp = true // see the package comment
	cfg.RetryPolicy = refusedRetry{}
	cfg.MaxWaitSchemaAgreement = schemaAgreementTimeout
	log := &logger{log: o.logger()}
	cfg.Logger = driverLog{log}
	cfg.HostFilter = sameDataCenter(o)
	secure(cfg, o)
	// A connection that fails marks its host as down, whatever the reason: the hosts are told of once a session exists.
	hosts := &logger{}
	policy := newHostPolicy(keyspace, o.Timeout, hosts)
	cfg.PoolConfig.HostSelectionPolicy = policy
	var last lastConnectError
	cfg.ConnectObserver = &last

	type result struct {
		session *gocql.Session
		err     error
	}
	created := make(chan result, 1)
	// The driver has no way to cancel the connection, so that it continues in this
	// goroutine and is closed if it succeeds too late. The channel has room for its
	// result: nobody may be receiving.
	go func() {
		s, err := cfg.CreateSession() // takes no context
		created <- result{s, err}
	}()
	select {
	case r := <-created:
		if r.err != nil {
			log.silence()
			return nil, fmt.Errorf("connect to %s: %w", strings.Join(o.Hosts, ","), connectError(r.err, last.get()))
		}
		policy.begin(o.logger())
		return &session{Session: r.session, policy: policy, levels: o.levels()}, nil
	case <-ctx.Done():
		log.silence()
		go func() {
			if r := <-created; r.err == nil {
				r.session.Close()
			}
		}()
		return nil, fmt.Errorf("connect to %s: %w: %w",
			strings.Join(o.Hosts, ","), persistence.ErrUnavailable, ctx.Err())
	}
}

// sameDataCenter lets only the nodes of one data centre be asked: the configured one or, with a LOCAL
// consistency, the one that the first connection is made in.
func sameDataCenter(o *Options) gocql.HostFilter {
	var mu sync.Mutex
	dc := o.DataCenter
	return gocql.HostFilterFunc(func(h *gocql.HostInfo) bool {
		mu.Lock()
		defer mu.Unlock()
		if dc == "" && o.Consistency == LocalQuorum {
			dc = h.DataCenter()
		}
		return dc == "" || h.DataCenter() == dc
	})
}

// lastConnectError keeps why the last connection failed, which the driver's own error has
// only in words. The driver calls it from goroutines of its own.
type lastConnectError struct {
	mu  sync.Mutex
	err error
}

// ObserveConnect implements gocql.ConnectObserver.
func (l *lastConnectError) ObserveConnect(o gocql.ObservedConnect) {
	if o.Err != nil {
		l.mu.Lock()
		l.err = o.Err
		l.mu.Unlock()
	}
}

func (l *lastConnectError) get() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// connectError returns ErrCredentials if the last connection failed for that reason, else
// ErrUnavailable with both errors. A node that asks for a password, while none is set, is
// told by its words: gocql has no type for it.
func connectError(err, last error) error {
	var answer gocql.RequestError
	if errors.As(last, &answer) && answer.Code() == gocql.ErrCodeCredentials ||
		last != nil && strings.HasPrefix(last.Error(), "authentication required") {
		return fmt.Errorf("%w: %w", ErrCredentials, last)
	}
	if last != nil && !strings.Contains(err.Error(), last.Error()) {
		err = fmt.Errorf("%w (%w)", err, last)
	}
	return fmt.Errorf("%w: %w", persistence.ErrUnavailable, err)
}

// read returns a query that may be repeated at another node.
func (s *session) read(ctx context.Context, statement string, values ...any) *gocql.Query {
	return s.Query(statement, values...).WithContext(ctx).Idempotent(true).RetryPolicy(readRetry{})
}

// readSerial returns a read that is linearizable with conditional updates. It takes one
// partition: Cassandra knows no serial read of several.
func (s *session) readSerial(ctx context.Context, statement string, values ...any) *gocql.Query {
	return s.read(ctx, statement, values...).Consistency(gocql.Consistency(s.levels.serial))
}

// compareAndSet executes a conditional update, at most once: repeated by the driver, it
// could meet its own first attempt and be reported as not applied. If it was not applied,
// row holds the columns that there are; it is empty if there is no row. Errors:
// ErrRejected, ErrUnknownOutcome.
func (s *session) compareAndSet(
	ctx context.Context, statement string, values ...any,
) (applied bool, row map[string]any, err error) {
	row = make(map[string]any)
	applied, err = s.Query(statement, values...).WithContext(ctx).Idempotent(false).MapScanCAS(row)
	if err != nil {
		return false, nil, writeError(err)
	}
	return applied, row, nil
}

// logger writes to a log until it is silenced.
type logger struct {
	mu  sync.Mutex
	log *slog.Logger // nil once silent
}

// write logs a message, unless the logger is silent.
func (l *logger) write(level slog.Level, message string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.log != nil {
		l.log.Log(context.Background(), level, message, args...)
	}
}

// start begins the log of a logger that had none.
func (l *logger) start(log *slog.Logger) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.log = log
}

// silence ends the log. When it returns, no message is being written.
func (l *logger) silence() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.log = nil
}

// driverLog takes the driver's complaints, most of which its errors repeat. It implements
// gocql.StdLogger.
type driverLog struct{ log *logger }

func (d driverLog) Print(v ...any)            { d.debug(fmt.Sprint(v...)) }
func (d driverLog) Printf(f string, v ...any) { d.debug(fmt.Sprintf(f, v...)) }
func (d driverLog) Println(v ...any)          { d.debug(fmt.Sprintln(v...)) }

func (d driverLog) debug(message string) { d.log.write(slog.LevelDebug, strings.TrimSpace(message)) }
