package fallback

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"
	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"
	"google.golang.org/protobuf/proto"

	"licensed/internal/planted"
	"licensed/messages/gatewayv1"
	"licensed/messages/licensedv1"
)

// Errors of Journal.
var (
	// ErrFull says that the journal has as many bytes as it may have. The command was not accepted.
	ErrFull = errors.New("the journal of deferred commands is full")
	// ErrDisk says that the disk is full or failed. The command may be in the journal.
	ErrDisk = errors.New("the journal of deferred commands cannot be written")
	// ErrRenewedBefore says that the licence was provisionally renewed as often as it may be. The command was not
	// accepted.
	ErrRenewedBefore = errors.New("the licence was provisionally renewed as often as it may be")
	// ErrManyFacts says that the journal has as many facts of the customer as it may have. The command was not
	// accepted.
	ErrManyFacts = errors.New("too many facts of the customer are deferred")
	// ErrOtherContent says that a deferred command of that id has other content. The command was not accepted.
	ErrOtherContent = errors.New("a deferred command with this id has other content")
)

const (
	// lockTimeout is the time to wait for another process that has the journal open: one that is being stopped.
	lockTimeout = 5 * time.Second
	// batchDelay is the time for which a write waits for others, to share their sync.
	batchDelay = 2 * time.Millisecond
	// batchSize is the number of writes that share a sync at most.
	batchSize = 1000
	// overhead is the space of a command in the file beside key and value, in bytes, by estimate: the element of the
	// page, and the part of the page that is empty.
	overhead = 64
	// maxFactBytes bounds the facts of one customer in the journal: some requests of 500 facts. Facts are larger than
	// other commands, and no signed licence bounds who may send them.
	maxFactBytes = 256 << 10
	// factShare is the part of the journal that facts may fill, with all that is in it: beyond it there is room for
	// renewals and releases only.
	factShare = 0.5
)

var (
	deferred = []byte("deferred")
	// damaged has what could not be read, under the same keys: for people.
	damaged = []byte("damaged")
)

// Command is a deferred command with its place in the journal.
type Command struct {
	*gatewayv1.DeferredCommand
	number uint64
}

// AcceptedAt returns when the gateway accepted the command.
func (c Command) AcceptedAt() time.Time { return time.UnixMilli(c.AcceptedAtMs) }

// GrantedUntil returns the expiry of a provisionally renewed licence.
func (c Command) GrantedUntil() time.Time { return time.UnixMilli(c.GrantedUntilMs) }

// Journal keeps deferred commands durably, those of a customer in the order in which they were added. Safe for
// concurrent use. One process at a time has it open.
//
// It is a file of bbolt and not of Pebble, which ends the process, or parks its goroutines, when the disk is full: here
// that is an error of one command.
type Journal struct {
	db  *bbolt.DB
	max int64
	id  string // of the gateway

	mu      sync.Mutex
	waiting map[string]int // commands by customer
	length  int
	bytes   int64
	ledger  int64     // bytes of allowances, as found by the last look at all of them and added since
	open    int       // allowances that are not closed
	since   time.Time // when the journal was last empty; the time of the oldest command, at least
}

// OpenJournal opens the journal in a directory of its own, which is created with it. It holds maxBytes of commands, at
// least one; the file is about twice as large. Commands that are damaged are set aside in the file; their number is
// returned.
func OpenJournal(dir string, maxBytes int64) (j *Journal, setAside int, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, 0, fmt.Errorf("open the journal of deferred commands: %w", err)
	}
	db, err := bbolt.Open(filepath.Join(dir, "deferred.db"), 0o600, &bbolt.Options{
		Timeout: lockTimeout, FreelistType: bbolt.FreelistMapType, NoFreelistSync: true,
	})
	if errors.Is(err, bbolterrors.ErrTimeout) {
		return nil, 0, fmt.Errorf("open the journal of deferred commands: another process uses %s; "+
			"give each gateway a directory of its own", dir)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("open the journal of deferred commands in %s: %w", dir, err)
	}
	db.MaxBatchDelay, db.MaxBatchSize = batchDelay, batchSize
	j = &Journal{db: db, max: maxBytes, waiting: make(map[string]int)}
	if setAside, err = j.load(); err == nil {
		err = syncDirectory(dir) // The file may be new.
	}
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("open the journal of deferred commands in %s: %w", dir, err), db.Close())
	}
	return j, setAside, nil
}

// syncDirectory makes the entries of a directory durable.
func syncDirectory(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// load counts what is in the file, and sets aside what is damaged.
func (j *Journal) load() (setAside int, err error) {
	err = j.db.Update(func(tx *bbolt.Tx) error {
		commands, err := tx.CreateBucketIfNotExists(deferred)
		if err != nil {
			return err
		}
		aside, err := tx.CreateBucketIfNotExists(damaged)
		if err != nil {
			return err
		}
		var bad [][]byte
		cursor := commands.Cursor()
		for k, v := cursor.First(); k != nil; k, v = cursor.Next() {
			c, err := decode(k, v)
			if err != nil {
				bad = append(bad, bytes.Clone(k))
				continue
			}
			j.count(c.CustomerId, 1, size(k, v), c.AcceptedAt())
		}
		for _, k := range bad {
			if err := errors.Join(aside.Put(k, commands.Get(k)), commands.Delete(k)); err != nil {
				return err
			}
		}
		setAside = len(bad)
		if j.id, err = loadIdentity(tx, fileOf(j.db.Path())); err != nil {
			return err
		}
		return tx.Bucket(allowances).ForEach(func(k, v []byte) error {
			j.ledger += size(k, v)
			if a := readAllowance(v); a != nil && !a.Closed {
				j.open++
			}
			return nil
		})
	})
	return setAside, err
}

// Close closes the file.
func (j *Journal) Close() error { return j.db.Close() }

// Add adds a command durably. If the customer has one of the same id already, or one with the same facts, that one is
// returned, and nothing is added. renewals is the number of renewals of one licence that may be in the journal. Errors:
// ErrFull, ErrRenewedBefore, ErrManyFacts, ErrOtherContent, ErrNotLent, ErrDisk.
func (j *Journal) Add(c *gatewayv1.DeferredCommand, renewals int) (Command, error) {
	v := sealed(c)
	n := int64(len(c.CustomerId) + 9 + len(v) + overhead)
	of := 1.0
	if c.GetCommand().GetSyncDevice() != nil {
		of = factShare
	}
	if !j.reserve(n, of) {
		return Command{}, ErrFull
	}
	var added Command
	var repeat bool
	err := j.db.Batch(func(tx *bbolt.Tx) error {
		b := tx.Bucket(deferred)
		added, repeat = Command{}, false
		renewed, facts := 0, 0
		for _, of := range commandsOf(b, c.CustomerId) {
			switch {
			case of.CommandId == c.CommandId && of.Fingerprint != c.Fingerprint:
				return ErrOtherContent
			case of.CommandId == c.CommandId:
				added, repeat = of, true
				return nil
			case covers(of.DeferredCommand, c):
				added, repeat = of, true
				return nil
			case sameLicense(of.DeferredCommand, c):
				renewed++
			case of.GetCommand().GetSyncDevice() != nil:
				facts += proto.Size(of.DeferredCommand)
			}
		}
		if c.GetCommand().GetSyncDevice() != nil && facts+len(v) > maxFactBytes {
			return ErrManyFacts
		}
		if c.GetCommand().GetRenewLicense() != nil && renewed >= renewals && !planted.Bug(planted.RenewWithoutEnd) {
			return ErrRenewedBefore
		}
		if c.GetCommand().GetAcquireLicense() != nil {
			if err := use(tx, c); err != nil {
				return err
			}
		}
		number, err := b.NextSequence()
		if err != nil {
			return err
		}
		added = Command{c, number}
		if planted.Bug(planted.AnswerBeforeJournal) && number%4 == 0 {
			return nil
		}
		return b.Put(key(c.CustomerId, number), v)
	})
	j.release(n)
	switch {
	case errors.Is(err, ErrOtherContent), errors.Is(err, ErrRenewedBefore), errors.Is(err, ErrManyFacts),
		errors.Is(err, ErrNotLent):
		return Command{}, err
	case err != nil:
		return Command{}, fmt.Errorf("%w: %w", ErrDisk, err)
	}
	if repeat {
		return added, nil
	}
	j.count(c.CustomerId, 1, n, added.AcceptedAt())
	return added, nil
}

// sameLicense reports whether both are renewals of one licence.
func sameLicense(a, b *gatewayv1.DeferredCommand) bool {
	ra, rb := a.GetCommand().GetRenewLicense(), b.GetCommand().GetRenewLicense()
	return ra != nil && rb != nil && ra.DeviceId == rb.DeviceId && ra.TitleId == rb.TitleId &&
		a.AcquiredAtMs == b.AcquiredAtMs
}

// covers reports whether both are facts of one device, and the first has all facts of the second and needs no others
// before them.
func covers(a, b *gatewayv1.DeferredCommand) bool {
	sa, sb := a.GetCommand().GetSyncDevice(), b.GetCommand().GetSyncDevice()
	if sa == nil || sb == nil || sa.DeviceId != sb.DeviceId || sa.AfterNumber > sb.AfterNumber {
		return false
	}
	known := make(map[uint64]*licensedv1.SyncDevice_Fact, len(sa.Facts))
	for _, f := range sa.Facts {
		known[f.Number] = f
	}
	for _, f := range sb.Facts {
		if !proto.Equal(known[f.Number], f) {
			return false
		}
	}
	return true
}

// reserve reserves room for a command in a share of the journal, and returns false if there is none.
func (j *Journal) reserve(n int64, share float64) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if float64(j.bytes+j.ledger+n) > float64(j.max)*share {
		return false
	}
	j.bytes += n
	return true
}

// release gives back what was reserved.
func (j *Journal) release(n int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.bytes -= n
}

// Has reports whether commands of a customer are in the journal.
func (j *Journal) Has(customer string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.waiting[customer] > 0
}

// Customers returns those with commands in the journal, in no order.
func (j *Journal) Customers() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	all := make([]string, 0, len(j.waiting))
	for customer := range j.waiting {
		all = append(all, customer)
	}
	return all
}

// Commands returns those of a customer, in the order in which they were added.
func (j *Journal) Commands(customer string) (all []Command, err error) {
	err = j.db.View(func(tx *bbolt.Tx) error {
		all = commandsOf(tx.Bucket(deferred), customer)
		return nil
	})
	return all, err
}

// Remove removes commands that were settled, in one transaction.
func (j *Journal) Remove(commands ...Command) error {
	if len(commands) == 0 {
		return nil
	}
	sizes := make([]int64, len(commands)) // 0 for one that was removed before.
	err := j.db.Batch(func(tx *bbolt.Tx) error {
		b := tx.Bucket(deferred)
		for i, c := range commands {
			k := key(c.CustomerId, c.number)
			sizes[i] = 0
			if v := b.Get(k); v != nil {
				sizes[i] = size(k, v)
			}
			if err := errors.Join(b.Delete(k), settled(tx, c)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i, c := range commands {
		if sizes[i] > 0 {
			j.count(c.CustomerId, -1, -sizes[i], c.AcceptedAt())
		}
	}
	return nil
}

// Usage is what a journal holds.
type Usage struct {
	Commands, Customers int
	// Bytes of the commands, and how many there may be.
	Bytes, MaxBytes int64
	// Since is when the journal was last empty; zero if it is.
	Since time.Time
}

// Usage returns what the journal holds.
func (j *Journal) Usage() Usage {
	j.mu.Lock()
	defer j.mu.Unlock()
	return Usage{
		Commands: j.length, Customers: len(j.waiting), Bytes: j.bytes + j.ledger, MaxBytes: j.max, Since: j.since,
	}
}

// count counts a command that was added, or removed: then number and bytes are negative. Another goroutine may remove a
// command before the one that added it has counted it.
func (j *Journal) count(customer string, number int, bytes int64, at time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.length += number
	j.bytes += bytes
	if j.waiting[customer] += number; j.waiting[customer] == 0 {
		delete(j.waiting, customer)
	}
	switch {
	case j.length == 0:
		j.since = time.Time{}
	case j.since.IsZero() || at.Before(j.since):
		j.since = at
	}
}

// key is the customer, a zero byte, which no id has, and the number in big-endian order.
func key(customer string, number uint64) []byte {
	k := make([]byte, 0, len(customer)+9)
	return binary.BigEndian.AppendUint64(append(append(k, customer...), 0), number)
}

// size is what an entry counts.
func size(key, value []byte) int64 { return int64(len(key) + len(value) + overhead) }

// commandsOf returns the commands of a customer that can be read.
func commandsOf(b *bbolt.Bucket, customer string) (all []Command) {
	prefix := append([]byte(customer), 0)
	cursor := b.Cursor()
	for k, v := cursor.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = cursor.Next() {
		if c, err := decode(k, v); err == nil {
			all = append(all, c)
		}
	}
	return all
}

// sealed returns a checksum, and the message.
func sealed(m proto.Message) []byte {
	v, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, 8, 256), m)
	if err != nil {
		panic(err) // Ids were checked to be UTF-8.
	}
	binary.BigEndian.PutUint64(v, xxhash.Sum64(v[8:]))
	return v
}

var errDamaged = errors.New("damaged")

// open is the reverse of sealed.
func open(v []byte, m proto.Message) error {
	if len(v) < 8 || binary.BigEndian.Uint64(v) != xxhash.Sum64(v[8:]) {
		return errDamaged
	}
	return proto.Unmarshal(v[8:], m)
}

// decode returns the command of an entry.
func decode(k, v []byte) (Command, error) {
	if len(k) < 10 || k[len(k)-9] != 0 {
		return Command{}, errDamaged
	}
	c := &gatewayv1.DeferredCommand{}
	if err := open(v, c); err != nil || c.CustomerId != string(k[:len(k)-9]) || kindOf(c.GetCommand()) == nil {
		return Command{}, errDamaged
	}
	return Command{c, binary.BigEndian.Uint64(k[len(k)-8:])}, nil
}
