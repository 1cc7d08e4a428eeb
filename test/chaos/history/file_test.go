package history_test

import (
	"bytes"
	"reflect"
	"testing"

	"licensed/test/chaos/history"
)

func record(t testing.TB) ([]*history.Op, []byte) {
	t.Helper()
	var b bytes.Buffer
	r, err := history.NewRecorder(&b)
	if err != nil {
		t.Fatal(err)
	}
	a := r.Call(1, 0, history.Input{Kind: history.Acquire, Customer: "c", Device: "d", Title: "t", Command: "1"})
	lost := r.Call(2, 1, history.Input{Kind: history.Play, Customer: "c", Device: "d", Title: "t", Command: "2"})
	r.Return(a, history.Output{
		Outcome:  history.Accepted,
		Sequence: 4,
		License:  &history.License{Device: "d", Title: "t", Acquired: 1, Expires: 2},
	})
	if err := r.Flush(); err != nil {
		t.Fatal(err)
	}
	q := r.Call(1, 0, history.Input{Kind: history.ListLicenses, Customer: "c"})
	r.Return(q, history.Output{Outcome: history.Accepted, Sequence: 4})
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if lost.Return != 0 || lost.Output.Known() {
		t.Errorf("an op without an answer has one: %+v", lost)
	}
	return r.Ops(), b.Bytes()
}

func TestReadBack(t *testing.T) {
	ops, b := record(t)
	got, err := history.Read(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, ops) {
		t.Errorf("read %+v, want %+v", got, ops)
	}
}

// TestCutOff reads what a crash of the tool leaves: a prefix.
func TestCutOff(t *testing.T) {
	ops, b := record(t)
	for n := range b {
		got, err := history.Read(bytes.NewReader(b[:n]))
		if err != nil {
			continue // A damaged frame is an error, and nothing is made up.
		}
		if len(got) > len(ops) {
			t.Fatalf("%d bytes give %d ops, the history had %d", n, len(got), len(ops))
		}
		for i, o := range got {
			if o.Input != ops[i].Input {
				t.Fatalf("%d bytes: op %d is %+v", n, i, o)
			}
		}
	}
}

func FuzzRead(f *testing.F) {
	_, b := record(f)
	f.Add(b)
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = history.Read(bytes.NewReader(b)) // It must not panic, nor take memory without end.
	})
}
