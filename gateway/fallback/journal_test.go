package fallback

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"licensed/messages/gatewayv1"
	"licensed/messages/licensedv1"
)

var someTime = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

// renewal returns a deferred renewal of the customer's one licence.
func renewal(customer, id string) *gatewayv1.DeferredCommand {
	return &gatewayv1.DeferredCommand{
		CustomerId: customer, CommandId: id, Fingerprint: 7, IssuedAtMs: someTime.UnixMilli(),
		AcceptedAtMs: someTime.UnixMilli(), AcquiredAtMs: someTime.Add(-time.Hour).UnixMilli(),
		Command: &licensedv1.Command{Command: &licensedv1.Command_RenewLicense{
			RenewLicense: &licensedv1.RenewLicense{DeviceId: "iphone", TitleId: "GlowS01E01"},
		}},
	}
}

// release returns a deferred release of that licence.
func release(customer, id string) *gatewayv1.DeferredCommand {
	c := renewal(customer, id)
	c.Command = &licensedv1.Command{Command: &licensedv1.Command_ReleaseLicense{
		ReleaseLicense: &licensedv1.ReleaseLicense{DeviceId: "iphone", TitleId: "GlowS01E01"},
	}}
	return c
}

// openJournal opens a journal in a directory; the end of the test closes it.
func openJournal(t testing.TB, dir string, maxBytes int64) *Journal {
	t.Helper()
	j, aside, err := OpenJournal(dir, maxBytes)
	if err != nil {
		t.Fatal(err)
	}
	if aside != 0 {
		t.Errorf("%d commands are damaged", aside)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j
}

// add adds a command, which must succeed.
func add(t testing.TB, j *Journal, c *gatewayv1.DeferredCommand) Command {
	t.Helper()
	added, err := j.Add(c, 100)
	if err != nil {
		t.Fatal(err)
	}
	return added
}

// idsOf returns the ids of a customer's commands.
func idsOf(t testing.TB, j *Journal, customer string) (ids []string) {
	t.Helper()
	all, err := j.Commands(customer)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		ids = append(ids, c.CommandId)
	}
	return ids
}

// TestJournal: commands are kept by customer, in order, also over a restart, until they are removed.
func TestJournal(t *testing.T) {
	dir := t.TempDir()
	j := openJournal(t, dir, 1<<20)
	if j.Has("Bayley") || len(j.Customers()) != 0 || j.Usage() != (Usage{MaxBytes: 1 << 20}) {
		t.Errorf("an empty journal has %v, %+v", j.Customers(), j.Usage())
	}
	first := add(t, j, renewal("Bayley", "c1"))
	add(t, j, release("Bayley", "c2"))
	add(t, j, renewal("Bay", "c1"))
	add(t, j, renewal("Bayleyz", "c1"))
	check := func() {
		t.Helper()
		if got := idsOf(t, j, "Bayley"); !reflect.DeepEqual(got, []string{"c1", "c2"}) {
			t.Errorf("Bayley's commands: %v", got)
		}
		u := j.Usage()
		if u.Commands != 4 || u.Customers != 3 || u.Bytes < 400 || u.Bytes > 1000 || !u.Since.Equal(someTime) {
			t.Errorf("usage %+v", u)
		}
	}
	check()
	before := j.Usage()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j = openJournal(t, dir, 1<<20)
	if check(); j.Usage() != before {
		t.Errorf("usage %+v, before the restart %+v", j.Usage(), before)
	}
	for range 2 { // A second time changes nothing.
		if err := j.Remove(first); err != nil {
			t.Fatal(err)
		}
	}
	if got := idsOf(t, j, "Bayley"); !reflect.DeepEqual(got, []string{"c2"}) || j.Usage().Commands != 3 {
		t.Errorf("Bayley's commands: %v, %+v", got, j.Usage())
	}
	for _, customer := range j.Customers() {
		all, err := j.Commands(customer)
		for _, c := range all {
			err = errors.Join(err, j.Remove(c))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if j.Has("Bayley") || j.Usage() != (Usage{MaxBytes: 1 << 20}) {
		t.Errorf("an empty journal has %v, %+v", j.Customers(), j.Usage())
	}
}

// TestJournalRepeats: the same command is kept once, and another one of its id is an error.
func TestJournalRepeats(t *testing.T) {
	j := openJournal(t, t.TempDir(), 1<<20)
	first := renewal("Bayley", "c1")
	first.GrantedUntilMs = 1
	add(t, j, first)
	repeat := renewal("Bayley", "c1")
	repeat.GrantedUntilMs = 2
	before := j.Usage()
	if got, err := j.Add(repeat, 1); err != nil || got.GrantedUntilMs != 1 || j.Usage() != before {
		t.Errorf("%v, %v: want the first one", got, err)
	}
	other := renewal("Bayley", "c1")
	other.Fingerprint++
	if _, err := j.Add(other, 5); !errors.Is(err, ErrOtherContent) || j.Usage() != before {
		t.Errorf("%v, want %v", err, ErrOtherContent)
	}
	if _, err := j.Add(renewal("Bayley", "c2"), 1); !errors.Is(err, ErrRenewedBefore) || j.Usage() != before {
		t.Errorf("%v, want %v", err, ErrRenewedBefore)
	}
	another := renewal("Bayley", "c3") // The device acquired the title anew: another licence.
	another.AcquiredAtMs++
	if _, err := j.Add(another, 1); err != nil {
		t.Error(err)
	}
	if _, err := j.Add(release("Bayley", "c4"), 0); err != nil {
		t.Error(err)
	}
}

// facts returns deferred facts of a device, with the given numbers.
func facts(customer, id, device string, numbers ...uint64) *gatewayv1.DeferredCommand {
	c := renewal(customer, id)
	s := &licensedv1.SyncDevice{DeviceId: device}
	for _, n := range numbers {
		s.Facts = append(s.Facts, &licensedv1.SyncDevice_Fact{
			Number: n, Kind: licensedv1.FactKind_FACT_KIND_PLAYED, TitleId: "GlowS01E01", AtMs: int64(n),
		})
	}
	c.AcquiredAtMs, c.Command = 0, &licensedv1.Command{Command: &licensedv1.Command_SyncDevice{SyncDevice: s}}
	return c
}

// TestJournalFacts: facts that are in the journal are kept once, whatever the id of the command; those of one customer
// have a limit, and facts as a whole leave room for other commands.
func TestJournalFacts(t *testing.T) {
	j := openJournal(t, t.TempDir(), 2*maxFactBytes+8192)
	add(t, j, facts("Bayley", "c1", "iphone", 1, 2, 3))
	before := j.Usage()
	for _, repeat := range [][]uint64{{1, 2, 3}, {2}, {3, 1}} {
		got, err := j.Add(facts("Bayley", fmt.Sprint(repeat), "iphone", repeat...), 0)
		if err != nil || got.CommandId != "c1" || j.Usage() != before {
			t.Errorf("facts %v again: %v, %v", repeat, got.CommandId, err)
		}
	}
	further := facts("Bayley", "c2", "iphone", 2)
	further.GetCommand().GetSyncDevice().Facts[0].TitleId = "Roma"
	add(t, j, further)
	add(t, j, facts("Bayley", "c3", "ipad", 2))
	add(t, j, facts("Bayley", "c4", "iphone", 3, 4))
	waiting := facts("Bayley", "c5", "ipad", 9)
	waiting.GetCommand().GetSyncDevice().AfterNumber = 8
	add(t, j, waiting)
	add(t, j, facts("Bayley", "c6", "ipad", 9)) // The one before records nothing unless 8 is recorded.
	if got := len(idsOf(t, j, "Bayley")); got != 6 {
		t.Errorf("%d commands, want 6", got)
	}
	large := func(customer string, i int) *gatewayv1.DeferredCommand {
		c := facts(customer, fmt.Sprint("large", i), "iphone", uint64(1000+i))
		c.GetCommand().GetSyncDevice().Facts[0].TitleId = strings.Repeat("x", maxFactBytes/8)
		return c
	}
	kept := 0
	for i := range 20 {
		if _, err := j.Add(large("Bayley", i), 0); err == nil {
			kept++
		} else if !errors.Is(err, ErrManyFacts) {
			t.Fatal(err)
		}
	}
	if kept != 7 {
		t.Errorf("%d large requests of one customer are kept, want 7", kept)
	}
	add(t, j, large("Zoë", 0))
	if _, err := j.Add(large("Zoë", 1), 0); !errors.Is(err, ErrFull) {
		t.Errorf("facts beyond their share: %v, want %v", err, ErrFull)
	}
	add(t, j, release("Zoë", "c1"))
}

// TestJournalTogether: of many commands at the same time no more are kept than may be, and each that was added is.
func TestJournalTogether(t *testing.T) {
	dir := t.TempDir()
	j := openJournal(t, dir, 1<<20)
	var wg sync.WaitGroup
	var mu sync.Mutex
	added, renewed := map[string]bool{}, 0
	for i := range 200 {
		customer, id := fmt.Sprint("c", i%5), fmt.Sprint(i)
		c := release(customer, id)
		if i%2 == 0 {
			c = renewal(customer, id)
		}
		wg.Go(func() {
			_, err := j.Add(c, 3)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				added[customer+id] = true
				if c.Command.GetRenewLicense() != nil {
					renewed++
				}
			} else if !errors.Is(err, ErrRenewedBefore) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if renewed != 15 || len(added) != 115 {
		t.Errorf("%d renewals and %d commands, want 15 and 115", renewed, len(added))
	}
	copied := t.TempDir() // What a crash at this moment leaves.
	data, err := os.ReadFile(filepath.Join(dir, "deferred.db"))
	if err == nil {
		err = os.WriteFile(filepath.Join(copied, "deferred.db"), data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	after := openJournal(t, copied, 1<<20)
	for _, customer := range after.Customers() {
		for _, id := range idsOf(t, after, customer) {
			delete(added, customer+id)
		}
	}
	if len(added) != 0 || after.Usage() != j.Usage() {
		t.Errorf("lost in a crash: %v; %+v, %+v", added, after.Usage(), j.Usage())
	}
}

// TestJournalFull: a journal accepts no more than its size, and again when commands were removed.
func TestJournalFull(t *testing.T) {
	j := openJournal(t, t.TempDir(), 2000)
	var all []Command
	for {
		c, err := j.Add(release("Bayley", fmt.Sprint(len(all))), 0)
		if errors.Is(err, ErrFull) {
			break
		}
		if err != nil || len(all) > 100 {
			t.Fatal(err, len(all))
		}
		all = append(all, c)
	}
	if u := j.Usage(); u.Bytes > u.MaxBytes || u.Commands != len(all) || len(all) < 5 {
		t.Errorf("%+v", u)
	}
	if err := j.Remove(all[0]); err != nil {
		t.Fatal(err)
	}
	add(t, j, release("Bayley", "more"))
}

// TestDiskFull: a disk without room is an error of the command that needs it, no less and no more.
func TestDiskFull(t *testing.T) {
	const child = "LICENSED_TEST_DISK_FULL"
	if os.Getenv(child) == "" { // In a process of its own, all of whose files are bounded.
		c := exec.Command(os.Args[0], "-test.run=^TestDiskFull$")
		c.Env = append(os.Environ(), child+"=1")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	j := openJournal(t, t.TempDir(), 1<<30)
	add(t, j, release("Bayley", "before"))
	signal.Ignore(syscall.SIGXFSZ)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	limit := before
	limit.Cur = 256 << 10
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	var added, failed atomic.Int64
	var wg sync.WaitGroup
	for i := range 4000 {
		wg.Go(func() {
			switch _, err := j.Add(release(fmt.Sprint("c", i), "c1"), 0); {
			case err == nil:
				added.Add(1)
			case errors.Is(err, ErrDisk):
				failed.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	if failed.Load() == 0 {
		t.Errorf("%d commands were added to a full disk", added.Load())
	}
	if u := j.Usage(); u.Commands != int(added.Load())+1 || len(j.Customers()) != u.Commands {
		t.Errorf("%d commands were added: %+v", added.Load(), u)
	}
	add(t, j, release("Bayley", "after"))
	if got := idsOf(t, j, "Bayley"); !reflect.DeepEqual(got, []string{"before", "after"}) {
		t.Errorf("Bayley's commands: %v", got)
	}
}

// TestJournalDamage: what cannot be read is set aside, not lost, and does not keep the rest from being handed in.
func TestJournalDamage(t *testing.T) {
	dir := t.TempDir()
	j := openJournal(t, dir, 1<<20)
	c := add(t, j, release("Bayley", "c1"))
	add(t, j, release("Bayley", "c2"))
	var value []byte
	if err := j.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(deferred)
		value = bytes.Clone(b.Get(key("Bayley", c.number)))
		value[12]++
		return b.Put(key("Bayley", c.number), value)
	}); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j, aside, err := OpenJournal(dir, 1<<20)
	if err != nil || aside != 1 {
		t.Fatal(aside, err)
	}
	defer j.Close()
	if got := idsOf(t, j, "Bayley"); !reflect.DeepEqual(got, []string{"c2"}) || j.Usage().Commands != 1 {
		t.Errorf("Bayley's commands: %v, %+v", got, j.Usage())
	}
	_ = j.db.View(func(tx *bbolt.Tx) error {
		if got := tx.Bucket(damaged).Get(key("Bayley", c.number)); !bytes.Equal(got, value) {
			t.Errorf("set aside: %x, want %x", got, value)
		}
		return nil
	})
}

// TestJournalInUse: a second gateway on one directory reports it.
func TestJournalInUse(t *testing.T) {
	dir := t.TempDir()
	openJournal(t, dir, 1<<20)
	_, _, err := OpenJournal(dir, 1<<20)
	if err == nil || !bytes.Contains([]byte(err.Error()), []byte("another process uses "+dir)) {
		t.Error(err)
	}
}

// FuzzDecode: no bytes of a damaged file do harm.
func FuzzDecode(f *testing.F) {
	f.Add(key("Bayley", 3), sealed(renewal("Bayley", "c1")))
	f.Add(key("", 0), []byte{})
	f.Fuzz(func(t *testing.T, k, v []byte) {
		c, err := decode(k, v)
		if err == nil && !bytes.Equal(key(c.CustomerId, c.number), k) {
			t.Errorf("%x was read as %v", k, c)
		}
	})
}
