package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// FuzzImportLines looks through any file before an import. What it takes for whole histories has each sequence once, in
// order.
func FuzzImportLines(f *testing.F) {
	header := fmt.Sprintf(`{"licensedExport":%d}`, exportVersion)
	event := func(customer, sequence string) string {
		return `{"customerId":"` + customer + `","sequence":` + sequence + `,"commandCount":1,"record":"AA=="}`
	}
	for _, lines := range [][]string{
		{}, {header}, {header, event("a", "1"), `{"customerId":"a","end":true}`, `{"exportEnd":true}`},
		{header, event("a", "2")}, {header, `{"gap":{}}`},
		{header, `{"customerId":"a","gap":{"toSequence":18446744073709551615}}`}, {header, "[]"}, {header, "null"}, {header, ""},
	} {
		f.Add(strings.Join(lines, "\n"))
	}
	f.Fuzz(func(t *testing.T, file string) {
		s := survey{refused: map[string][]string{}}
		customer, last := "", uint64(0)
		err := eachLine(strings.NewReader(file), func(l *importLine) error {
			if err := s.take(l); err != nil {
				return err
			}
			if s.customer != customer {
				customer, last = s.customer, 0
			}
			if customer == "" || len(l.Record) == 0 || l.Gap != nil {
				return nil
			}
			if l.Sequence != last+1 && len(s.refused[customer]) == 0 {
				t.Errorf("event %d of %q after event %d", l.Sequence, customer, last)
			}
			last = l.Sequence
			return nil
		})
		if err == nil {
			s.begin("")
		}
	})
}

// FuzzFacts reads any text as facts of a device. What is read has a known kind and a time.
func FuzzFacts(f *testing.F) {
	f.Add(`{"number":1,"kind":"played","title":"a","at":"2026-01-01T00:00:00Z"}`)
	f.Add("{\"number\":18446744073709551615,\"kind\":\"DELETED\",\"at\":\"-1h\"}\n\n{}")
	f.Add(`{"number":-1}`)
	now := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	p := &program{now: func() time.Time { return now }}
	f.Fuzz(func(t *testing.T, text string) {
		facts, err := p.parseFacts(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, fact := range facts {
			if fact.Kind == 0 || fact.At == nil {
				t.Errorf("%v", fact)
			}
		}
	})
}
