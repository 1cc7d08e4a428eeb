package fallback

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/cespare/xxhash/v2"
	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	"licensed/actors"
	"licensed/actors/license"
	"licensed/internal/caller"
	"licensed/internal/planted"
	"licensed/messages/gatewayv1"
	"licensed/messages/licensedv1"
)

// The ledger has the allowances that this gateway may redeem. It is in the file of the journal, so that one transaction
// uses a unit and adds the command, or closes an allowance and adds its return. docs/design/allowances.md has the
// argument.

// ErrNotLent says that an allowance is not in the ledger, was closed, has ended, or does not have the title any more.
// Nothing was redeemed.
var ErrNotLent = errors.New("the gateway cannot redeem this title of the allowance")

const (
	// ledgerShare is the part of the journal that allowances and commands may have together when something is lent; the
	// rest is for commands.
	ledgerShare = 0.5
	// keepClosed is the time after its end for which a closed allowance is kept. A repeat of the command that lent it
	// must not open it again; the owner forgets that command within that time.
	keepClosed = 48 * time.Hour
	// closeEvery is the time after which allowances that ended are looked for again.
	closeEvery = 30 * time.Second
)

var (
	identity   = []byte("gateway")
	allowances = []byte("allowances")
	idKey      = []byte("id")
	fileKey    = []byte("file")
)

// loadIdentity returns the id of the gateway. It is made together with the file: a gateway that lost its disk, and one
// whose file was copied, is another one, and has no allowances.
func loadIdentity(tx *bbolt.Tx, file string) (string, error) {
	b, err := tx.CreateBucketIfNotExists(identity)
	if err != nil {
		return "", err
	}
	if id := b.Get(idKey); id != nil && string(b.Get(fileKey)) == file {
		_, err := tx.CreateBucketIfNotExists(allowances)
		return string(id), err
	}
	if tx.Bucket(allowances) != nil {
		if err := tx.DeleteBucket(allowances); err != nil {
			return "", err
		}
	}
	if _, err := tx.CreateBucket(allowances); err != nil {
		return "", err
	}
	random := make([]byte, 12)
	_, _ = rand.Read(random) // It never fails.
	id := "gw-" + hex.EncodeToString(random)
	return id, errors.Join(b.Put(idKey, []byte(id)), b.Put(fileKey, []byte(file)))
}

// GatewayID returns the id of the gateway, which is made together with its directory.
func (j *Journal) GatewayID() string { return j.id }

// Allowances returns the number of allowances that are open.
func (j *Journal) Allowances() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.open
}

// counted changes the number of open allowances, and the bytes of all.
func (j *Journal) counted(n int, bytes int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.open += n
	j.ledger += bytes
}

// putAllowance writes an allowance as deferred commands are written, with a checksum.
func putAllowance(tx *bbolt.Tx, a *gatewayv1.LentAllowance) error {
	return tx.Bucket(allowances).Put(key(a.CustomerId, a.Number), sealed(a))
}

// allowanceOf returns an allowance; nil if it is not in the ledger or damaged.
func allowanceOf(tx *bbolt.Tx, customer string, number uint64) *gatewayv1.LentAllowance {
	return readAllowance(tx.Bucket(allowances).Get(key(customer, number)))
}

func readAllowance(v []byte) *gatewayv1.LentAllowance {
	a := &gatewayv1.LentAllowance{}
	if open(v, a) != nil {
		return nil
	}
	return a
}

// lender returns who had the allowance lent that a command redeems, also if only its return is left, one of the
// commands of the customer. Nil: the command redeems none, or nobody knows. An owner that denies this caller the unit
// denies it the return too, so that a download that the device has is counted in any case.
func (j *Journal) lender(c Command, commands []Command) (by *gatewayv1.Caller) {
	number := c.GetCommand().GetAcquireLicense().GetAllowance()
	if number == 0 {
		return nil
	}
	for _, other := range commands {
		if other.GetCommand().GetReturnAllowance().GetNumber() == number {
			return other.Caller
		}
	}
	_ = j.db.View(func(tx *bbolt.Tx) error {
		by = allowanceOf(tx, c.CustomerId, number).GetCaller()
		return nil
	})
	return by
}

// Keep adds an allowance that was lent through this gateway, unless it is known. It is durable when Keep returns.
// Errors: ErrFull, ErrDisk.
func (j *Journal) Keep(a *gatewayv1.LentAllowance) error {
	n := int64(proto.Size(a) + overhead)
	if !j.reserve(n, 1) {
		return ErrFull
	}
	defer j.release(n)
	added := 0
	err := j.db.Batch(func(tx *bbolt.Tx) error {
		added = 0
		if tx.Bucket(allowances).Get(key(a.CustomerId, a.Number)) != nil {
			return nil
		}
		added = 1
		return putAllowance(tx, a)
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDisk, err)
	}
	j.counted(added, int64(added)*n)
	return nil
}

// use uses the unit of a title for a command, once.
func use(tx *bbolt.Tx, c *gatewayv1.DeferredCommand) error {
	m := c.GetCommand().GetAcquireLicense()
	a := allowanceOf(tx, c.CustomerId, m.Allowance)
	if a == nil && planted.Bug(planted.RedeemElsewhere) {
		return nil
	}
	if a == nil || a.Closed || a.DeviceId != m.DeviceId || c.AcceptedAtMs >= endOf(a) {
		return ErrNotLent
	}
	for _, u := range a.Units {
		if u.TitleId != m.TitleId {
			continue
		}
		if u.CommandId != "" && u.CommandId != c.CommandId {
			return ErrNotLent
		}
		u.CommandId = c.CommandId
		return putAllowance(tx, a)
	}
	if planted.Bug(planted.RedeemBeyondUnits) {
		return nil
	}
	return ErrNotLent
}

// settled drops the unit that a command redeemed, once the owner answered: the reservation has ended, and a repeat of
// the command while the owner cannot be reached must not be granted by it.
func settled(tx *bbolt.Tx, c Command) error {
	m := c.GetCommand().GetAcquireLicense()
	if m.GetAllowance() == 0 {
		return nil
	}
	a := allowanceOf(tx, c.CustomerId, m.Allowance)
	if a == nil {
		return nil
	}
	a.Units = slices.DeleteFunc(a.Units, func(u *gatewayv1.LentAllowance_Unit) bool {
		return u.TitleId == m.TitleId && u.CommandId == c.CommandId
	})
	return putAllowance(tx, a)
}

// endOf is when licences within an allowance end.
func endOf(a *gatewayv1.LentAllowance) int64 {
	return a.UntilMs - license.AllowanceMargin.Milliseconds()
}

// CloseAllowance closes an allowance: nothing of it is redeemed from now on, and its return is in the journal. It
// returns the titles that were not redeemed. Errors: ErrNotLent, ErrDisk.
func (j *Journal) CloseAllowance(customer string, number uint64, now time.Time) (titles []string, err error) {
	var size int64
	err = j.db.Batch(func(tx *bbolt.Tx) error {
		titles, size = nil, 0
		a := allowanceOf(tx, customer, number)
		if a == nil {
			return ErrNotLent
		}
		for _, u := range a.Units {
			if u.CommandId == "" {
				titles = append(titles, u.TitleId)
			}
		}
		if a.Closed {
			return nil
		}
		a.Closed = true
		c := j.returnOf(a, now)
		v := sealed(c)
		b := tx.Bucket(deferred)
		n, err := b.NextSequence()
		if err != nil {
			return err
		}
		size = int64(len(customer)+9+len(v)) + overhead
		return errors.Join(putAllowance(tx, a), b.Put(key(customer, n), v))
	})
	switch {
	case errors.Is(err, ErrNotLent):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrDisk, err)
	}
	if size > 0 {
		j.count(customer, 1, size, now)
		j.counted(-1, 0)
	}
	return titles, nil
}

// returnOf returns the command that returns an allowance. Its id is that of the allowance: it is returned once.
func (j *Journal) returnOf(a *gatewayv1.LentAllowance, now time.Time) *gatewayv1.DeferredCommand {
	id := fmt.Sprintf("return-%d-%s", a.Number, j.id)
	return &gatewayv1.DeferredCommand{
		CustomerId: a.CustomerId, CommandId: id, Fingerprint: xxhash.Sum64String(id),
		IssuedAtMs: now.UnixMilli(), Stamped: true, AcceptedAtMs: now.UnixMilli(), Caller: a.Caller,
		Command: &licensedv1.Command{Command: &licensedv1.Command_ReturnAllowance{
			ReturnAllowance: &licensedv1.ReturnAllowance{DeviceId: a.DeviceId, Number: a.Number, GatewayId: j.id},
		}},
	}
}

// ended returns the open allowances that ended, and drops the closed ones that nobody can ask for again.
func (j *Journal) ended(now time.Time) (due []*gatewayv1.LentAllowance, err error) {
	var drop [][]byte
	ledger := int64(0)
	err = j.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(allowances).ForEach(func(k, v []byte) error {
			a := readAllowance(v)
			ledger += size(k, v)
			switch {
			case a == nil:
			case !a.Closed && now.UnixMilli() >= a.UntilMs:
				due = append(due, a)
			case a.Closed && now.UnixMilli() >= a.UntilMs+keepClosed.Milliseconds():
				drop = append(drop, bytes.Clone(k))
				ledger -= size(k, v)
			}
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	j.mu.Lock()
	j.ledger = ledger // One that is added meanwhile counts from the next look on.
	j.mu.Unlock()
	if len(drop) == 0 {
		return due, nil
	}
	return due, j.db.Batch(func(tx *bbolt.Tx) error {
		for _, k := range drop {
			if err := tx.Bucket(allowances).Delete(k); err != nil {
				return err
			}
		}
		return nil
	})
}

// Lends reports whether there is room for a further allowance. It is asked before the owner lends: what is lent and not
// kept counts for a year.
func (f *Fallback) Lends() bool {
	u := f.config.Journal.Usage()
	return float64(u.Bytes) < ledgerShare*float64(u.MaxBytes)
}

// GatewayID returns the id of the gateway, which is made together with its directory.
func (f *Fallback) GatewayID() string { return f.config.Journal.GatewayID() }

// Keep keeps an allowance that the owner lent through this gateway, so that it can be redeemed. Errors: ErrFull,
// ErrDisk, ErrNotLent for one of another gateway or one that ended.
func (f *Fallback) Keep(ctx context.Context, customer string, lent *licensedv1.Allowance) error {
	a := &gatewayv1.LentAllowance{
		CustomerId: customer, DeviceId: lent.DeviceId, Number: lent.Number,
		UntilMs: lent.ExpiresAt.AsTime().UnixMilli(),
		Caller:  callerMessage(caller.FromContext(ctx)),
	}
	for _, title := range lent.TitleIds {
		a.Units = append(a.Units, &gatewayv1.LentAllowance_Unit{TitleId: title})
	}
	if lent.GatewayId != f.GatewayID() || f.config.Now().UnixMilli() >= endOf(a) {
		return ErrNotLent
	}
	return f.config.Journal.Keep(a)
}

// Redeem uses a unit for a command, an AcquireLicense that names its allowance, and has the command handed in. It is
// durable when Redeem returns. The caller then executes the command, and answers with what Redeem returned if the
// owner cannot be reached. Errors: ErrNotLent, ErrFull, ErrOtherContent, ErrDisk, and ctx's: then nothing was used, or
// the owner learns of it without an answer to the device.
func (f *Fallback) Redeem(ctx context.Context, customer string, c actors.Command, until time.Time) (Command, error) {
	m := proto.CloneOf(c.Payload.(*licensedv1.Command))
	now := f.config.Now()
	m.GetAcquireLicense().RedeemedAtMs = now.UnixMilli()
	d := &gatewayv1.DeferredCommand{
		CustomerId: customer, CommandId: c.ID, Command: m, Fingerprint: c.Fingerprint,
		IssuedAtMs: c.IssuedAt.UnixMilli(), Stamped: c.Stamped, AcceptedAtMs: now.UnixMilli(),
		AcquiredAtMs: now.UnixMilli(), PlayHours: f.config.Terms(m.GetAcquireLicense().GetTitleId()).PlayHours,
		GrantedUntilMs: until.Add(-license.AllowanceMargin).UnixMilli(),
		Caller:         callerMessage(caller.FromContext(ctx)),
	}
	added, err := f.add(ctx, d, 0)
	if err != nil {
		f.metrics.declined.WithLabelValues(kindOf(m).name, reasonOf(err)).Inc()
		return Command{}, err
	}
	f.metrics.accepted.WithLabelValues(kindOf(m).name).Inc()
	return added, nil
}

// Close closes an allowance, and has it returned. It returns the titles that were not redeemed. Errors: ErrNotLent,
// ErrDisk.
func (f *Fallback) Close(customer string, number uint64) ([]string, error) {
	return f.config.Journal.CloseAllowance(customer, number, f.config.Now())
}

// closeEnded closes the allowances that ended.
func (f *Fallback) closeEnded() {
	due, err := f.config.Journal.ended(f.config.Now())
	for _, a := range due {
		_, closing := f.Close(a.CustomerId, a.Number)
		err = errors.Join(err, closing)
	}
	if err != nil {
		f.config.Logger.Error("allowances not returned", "error", err)
	}
}

// fileOf identifies a file among those of its name: a copy is another one. The number of the device is not a part of
// it: it may change when a volume is attached elsewhere.
func fileOf(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return strconv.FormatUint(stat.Ino, 10)
	}
	return ""
}
