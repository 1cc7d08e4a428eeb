package membership

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"licensed/messages/clusterv1"
)

// keysOf returns keys of 16 bytes, one for each letter.
func keysOf(letters string) (keys [][]byte) {
	for _, l := range letters {
		keys = append(keys, []byte(strings.Repeat(string(l), 16)))
	}
	return keys
}

// newKeys is NewKeys of keysOf.
func newKeys(t *testing.T, letters string) *Keys {
	t.Helper()
	k, err := NewKeys(keysOf(letters))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestKeysAreSet: the ring has the keys that were set, the first of them in front.
func TestKeysAreSet(t *testing.T) {
	k := newKeys(t, "a")
	for _, letters := range []string{"ab", "ba", "b", "bcde", "eb", "abcdefgh", "hgfe", "x"} {
		before := slices.Clone(k.ring.GetKeys())
		shown := k.ring.GetKeys() // as memberlist holds it while it decrypts
		if err := k.Set(keysOf(letters)); err != nil {
			t.Fatal(letters, err)
		}
		now, want := k.ring.GetKeys(), keysOf(letters)
		if len(now) != len(want) || !onlyOf(now, want) || string(now[0]) != string(want[0]) {
			t.Errorf("%s: %q", letters, now)
		}
		if !slices.EqualFunc(before, shown, func(a, b []byte) bool { return string(a) == string(b) }) {
			t.Errorf("%s: keys moved in the slice that a reader holds: %q, before %q", letters, shown, before)
		}
	}
	for _, wrong := range [][][]byte{nil, {}, {[]byte("short")}, keysOf("aa"), keysOf("abcdefghi")} {
		if err := k.Set(wrong); err == nil {
			t.Errorf("%q: accepted", wrong)
		}
		if _, err := NewKeys(wrong); err == nil {
			t.Errorf("%q: accepted", wrong)
		}
	}
	if now := k.ring.GetKeys(); len(now) != 1 || string(now[0]) != string(keysOf("x")[0]) {
		t.Errorf("a refused change left %q", now)
	}
}

// TestKeyRotation: while three members change from one key to another, step by step and one after the other, each lists
// the others all the time, and news arrive after each change. At last the former key is useless.
func TestKeyRotation(t *testing.T) {
	var lost atomic.Int64
	members, keys := make([]*Membership, 3), make([]*Keys, 3)
	heard := make([]*recorder, 3)
	var watching atomic.Bool
	for i, name := range []string{"a", "b", "c"} {
		keys[i], heard[i] = newKeys(t, "o"), &recorder{}
		c := quick(name)
		c.Keys, c.Listener = keys[i], heard[i].listener()
		record := c.Listener.Members
		c.Listener.Members = func(all []Member) {
			if record(all); watching.Load() && len(all) != len(members) {
				lost.Add(1)
			}
		}
		if i > 0 {
			c.Join = []string{members[0].Address()}
		}
		members[i] = start(t, c)
	}
	complete := func() bool {
		return !slices.ContainsFunc(members, func(m *Membership) bool { return names(m) != "a b c" })
	}
	until("full list", t, complete)
	watching.Store(true)
	id := uint32(0)
	for _, step := range []string{"on", "no", "n"} { // add, make primary, remove
		for _, k := range keys {
			if err := k.Set(keysOf(step)); err != nil {
				t.Fatal(err)
			}
			var wait sync.WaitGroup
			for from := range members {
				id++
				spread := id
				members[from].Spread(&clusterv1.News{Shards: []*clusterv1.Shard{{
					Id: spread, Epoch: 7, Owner: make([]byte, 16),
				}}}, func(Member) bool { return false })
				for to := range members {
					if to == from {
						continue
					}
					wait.Go(func() {
						until("news", t, func() bool { return slices.Contains(heard[to].shards(), spread) })
					})
				}
			}
			wait.Wait()
		}
	}
	if n := lost.Load(); n > 0 || !complete() {
		t.Errorf("a member was missing %d times", n)
	}
	former := quick("d")
	former.Keys, former.Join = newKeys(t, "o"), []string{members[0].Address()}
	d := start(t, former)
	current := quick("e")
	current.Keys, current.Join = newKeys(t, "n"), []string{members[0].Address()}
	start(t, current)
	until("a member with the new key", t, func() bool {
		return !slices.ContainsFunc(members, func(m *Membership) bool { return names(m) != "a b c e" })
	})
	if names(d) != "d" {
		t.Errorf("with the former key: %s", names(d))
	}
}
