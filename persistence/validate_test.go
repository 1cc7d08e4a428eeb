package persistence

import (
	"errors"
	"strings"
	"testing"
)

func TestMutationValidate(t *testing.T) {
	tests := map[string]func(*Mutation){
		"no aggregate":        func(m *Mutation) { m.Partition.Aggregate = "" },
		"long aggregate":      func(m *Mutation) { m.Partition.Aggregate = strings.Repeat("a", MaxAggregateLen+1) },
		"NUL in aggregate":    func(m *Mutation) { m.Partition.Aggregate = "a\x00b" },
		"aggregate not UTF-8": func(m *Mutation) { m.Partition.Aggregate = "a\xff" },
		"epoch 0":             func(m *Mutation) { m.Partition.Epoch = 0 },
		"version 0":           func(m *Mutation) { m.Partition.Version = 0 },
		"no incarnation":      func(m *Mutation) { m.Partition.Incarnation = Incarnation{} },
		"empty":               func(m *Mutation) { m.Records = nil },
		"sequence 0":          func(m *Mutation) { m.Records[0].Sequence = 0 },
		"gap":                 func(m *Mutation) { m.Records[1].Sequence++ },
		"backwards":           func(m *Mutation) { m.Records[1].Sequence -= 2 },
		"count 0":             func(m *Mutation) { m.Records[0].Index, m.Records[0].Count = 0, 0 },
		"index past count":    func(m *Mutation) { m.Records[1].Index = m.Records[1].Count },
		"long command id":     func(m *Mutation) { m.Records[0].CommandID = strings.Repeat("a", MaxNameLen+1) },
		"mapper not UTF-8":    func(m *Mutation) { m.Records[1].Mapper = "\xc3\x28" },
	}
	valid := func() *Mutation {
		first := typical()
		first.Count = 2
		second := first
		second.Sequence, second.Index = first.Sequence+1, 1
		return &Mutation{
			Partition: Partition{RootKey: typicalRoot().Key, Incarnation: incarnation},
			Records:   []Record{first, second},
		}
	}
	if err := valid().Validate(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range tests {
		m := valid()
		spoil(m)
		if err := m.Validate(); !errors.Is(err, ErrRejected) {
			t.Errorf("%s: %v, want ErrRejected", name, err)
		}
	}
}

func TestRootValidate(t *testing.T) {
	tests := map[string]func(*Root){
		"no aggregate":            func(r *Root) { r.Key.Aggregate = "" },
		"epoch 0":                 func(r *Root) { r.Key.Epoch = 0 },
		"no incarnation":          func(r *Root) { r.Incarnation = Incarnation{} },
		"parent elsewhere":        func(r *Root) { r.Parent.Aggregate = "other" },
		"parent of epoch 0":       func(r *Root) { r.Parent.Epoch = 0 },
		"parent of version 0":     func(r *Root) { r.Parent.Version = 0 },
		"its own parent":          func(r *Root) { r.Parent = r.Key },
		"parent above":            func(r *Root) { r.Parent.Epoch = r.Key.Epoch + 1 },
		"incarnation of no one":   func(r *Root) { r.Parent = RootKey{} },
		"policy version not text": func(r *Root) { r.Header.PolicyVersion = "\xff" },
	}
	valid, first := typicalRoot(), typicalRoot()
	first.Parent, first.ParentIncarnation = RootKey{}, Incarnation{}
	for _, r := range []Root{valid, first} {
		if err := r.Validate(); err != nil {
			t.Fatal(err)
		}
	}
	for name, spoil := range tests {
		r := valid
		spoil(&r)
		if err := r.Validate(); !errors.Is(err, ErrRejected) {
			t.Errorf("%s: %v, want ErrRejected", name, err)
		}
	}
}
