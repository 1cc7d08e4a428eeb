package actors

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"
)

// golden are snapshots as every release stored them: by the version in the first byte, the bytes and what
// they mean. A line that was released is never changed; a new version gets a new one. First has a window of its first
// version, with one horizon for clients and gateways.
var golden = map[byte]struct{ first, stored, means string }{
	frameComplete: {
		"013201d00f94170402801f0c3c525b6e4a55a35a3a1ac0f6e1a70700000076c80102020a0802633200000080c91a0201037265667374617465",
		"01330200d00f94170402801f0c3c525b6e4a55a35a3a1ac0f6e1a70700000076c80102020a0802633200000080c91a0201037265667374617465",
		`"state", importing false, ` + means,
	},
	frameImporting: {
		"023201d00f94170402801f0c3c525b6e4a55a35a3a1ac0f6e1a70700000076c80102020a0802633200000080c91a0201037265667374617465",
		"02330200d00f94170402801f0c3c525b6e4a55a35a3a1ac0f6e1a70700000076c80102020a0802633200000080c91a0201037265667374617465",
		`"state", importing true, ` + means,
	},
}

const means = `horizon {0 1000}: "\x80\x1f\f<R[nJU\xa3Z:\x1a\xc0\xf6\xe1\xa7" #6 at 1600 of 1500 by 7: 0a08; "\x02c2" #7 at 5001 of 5000 by 80000000: 726566;`

func TestFrameGolden(t *testing.T) {
	var w window
	c := WindowConfig{MaxAge: time.Hour, MaxCommands: 2}
	w.add(remembered{
		id: packID(nil, "c0"), fingerprint: 1, issuedAt: 1000, executedAt: 1482, sequence: 4, outcome: []byte{9},
	}, &c)
	w.add(remembered{
		id: packID(nil, "1f0c3c52-5b6e-4a55-a35a-3a1ac0f6e1a7"), fingerprint: 7, issuedAt: 1500, executedAt: 1600,
		sequence: 6, outcome: []byte{10, 8},
	}, &c)
	w.add(remembered{
		id: packID(nil, "c2"), fingerprint: 1 << 31, issuedAt: 5000, executedAt: 5001, sequence: 7,
		outcome: []byte("ref"),
	}, &c)
	for version := range byte(255) {
		written := frame(&w, []byte("state"), version == frameImporting)
		g, ok := golden[version]
		if _, err := openFrame(append([]byte{version}, written[1:]...)); err == nil != ok {
			t.Errorf("version %d: read with %v, golden: %t", version, err, ok)
		}
		if !ok {
			continue
		}
		stored, err := hex.DecodeString(g.stored)
		if err != nil {
			t.Fatal(err)
		}
		read, err := openFrame(stored)
		if err != nil {
			t.Fatalf("version %d: %v; written today: %x", version, err, written)
		}
		if means := describe(read); means != g.means {
			t.Errorf("version %d: read\n%s\nwant\n%s", version, means, g.means)
		}
		first, err := hex.DecodeString(g.first)
		if err != nil {
			t.Fatal(err)
		}
		if read, err = openFrame(first); err != nil {
			t.Fatal(err)
		}
		if means, want := describe(read), strings.Replace(g.means, "{0 1000}", "{1000 1000}", 1); means != want {
			t.Errorf("version %d, first window: read\n%s\nwant\n%s", version, means, want)
		}
		if !bytes.Equal(written, stored) {
			t.Errorf("version %d: written %x\nwant %x", version, written, stored)
		}
	}
}

func describe(f framed) string {
	s := fmt.Sprintf("%q, importing %t, horizon %v:", f.state, f.importing, f.window.horizon)
	f.window.each(func(e remembered) {
		s += fmt.Sprintf(" %q #%d at %d of %d by %x: %x;",
			e.id, e.sequence, e.executedAt, e.issuedAt, e.fingerprint, e.outcome)
	})
	return s
}
