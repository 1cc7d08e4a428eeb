package persistencetest

import (
	"fmt"
	"reflect"
	"time"

	"licensed/persistence"
)

var (
	incarnationA = persistence.Incarnation{0xaa, 1}
	incarnationB = persistence.Incarnation{0xbb, 0xff}
	someTime     = time.UnixMilli(1761555600123).UTC()
)

// someone is the aggregate of most cases.
const someone = "Bayley:LicenseAggregate"

// partition returns a partition of incarnationA.
func partition(aggregate string, epoch, version uint64) persistence.Partition {
	return persistence.Partition{
		RootKey:     persistence.RootKey{Aggregate: aggregate, Epoch: epoch, Version: version},
		Incarnation: incarnationA,
	}
}

// root returns a root without a parent, told apart from others by its snapshot.
func root(aggregate string, epoch, version uint64) persistence.Root {
	return persistence.Root{
		Key:         persistence.RootKey{Aggregate: aggregate, Epoch: epoch, Version: version},
		Incarnation: incarnationA,
		Time:        someTime,
		Mapper:      "TestSnapshot/1",
		Snapshot:    fmt.Appendf(nil, "%s at %d/%d", aggregate, epoch, version),
	}
}

// record returns the only record of a command.
func record(sequence uint64) persistence.Record {
	return persistence.Record{
		Sequence: sequence, Count: 1,
		CommandID: fmt.Sprintf("command-%d", sequence), Fingerprint: sequence * 0x9e3779b97f4a7c15, IssuedAt: someTime,
		AggregateID: "iphone/GlowS01E01",
		Order:       sequence - 1,
		Time:        someTime.Add(time.Duration(sequence) * time.Millisecond),
		Mapper:      "TestEvent/1", Header: persistence.Header{PolicyVersion: "p1"},
		Data: fmt.Appendf(nil, "event %d", sequence),
	}
}

// records returns the records first … last.
func records(first, last uint64) []persistence.Record {
	var rs []persistence.Record
	for seq := first; seq <= last; seq++ {
		rs = append(rs, record(seq))
	}
	return rs
}

// command returns the records of one command.
func command(first uint64, count uint32) []persistence.Record {
	rs := records(first, first+uint64(count)-1)
	for i := range rs {
		rs[i].Index, rs[i].Count, rs[i].CommandID = uint32(i), count, rs[0].CommandID
		if i > 0 {
			rs[i].Fingerprint, rs[i].IssuedAt = 0, time.Time{}
		}
	}
	return rs
}

// wantRecords reads all records of the partition in pages of the given size and compares.
func (f *fixture) wantRecords(p persistence.Partition, page int, want []persistence.Record) {
	f.Helper()
	got := f.readRecords(p, page)
	if !reflect.DeepEqual(got, want) {
		f.Errorf("records of %v:\ngot  %s\nwant %s", p, describe(got), describe(want))
	}
}

// readRecords returns all records of the partition, read in pages.
func (f *fixture) readRecords(p persistence.Partition, page int) []persistence.Record {
	f.Helper()
	var all []persistence.Record
	var after uint64
	for {
		got, err := f.store.ReadRecords(f.ctx(), p, after, page)
		if err != nil {
			f.Fatalf("records of %v after %d: %v", p, after, err)
		}
		if len(got) > page {
			f.Fatalf("records of %v after %d: %d, more than the limit %d", p, after, len(got), page)
		}
		all = append(all, got...)
		if len(got) < page {
			return all
		}
		after = got[len(got)-1].Sequence
	}
}

// wantTopRoot demands that root of its aggregate.
func (f *fixture) wantTopRoot(want persistence.Root) {
	f.Helper()
	got, err := f.store.TopRoot(f.ctx(), want.Key.Aggregate)
	if err != nil {
		f.Fatalf("top root of %q: %v", want.Key.Aggregate, err)
	}
	if !reflect.DeepEqual(got, want) {
		f.Errorf("top root:\ngot  %+v\nwant %+v", got, want)
	}
}

// readRoots returns all roots of the aggregate, read in pages.
func (f *fixture) readRoots(aggregate string, page int) []persistence.Root {
	f.Helper()
	var all []persistence.Root
	var below persistence.RootKey
	for {
		got, err := f.store.ReadRoots(f.ctx(), aggregate, below, page)
		if err != nil {
			f.Fatalf("roots of %q below %v: %v", aggregate, below, err)
		}
		if len(got) > page {
			f.Fatalf("roots of %q below %v: %d, more than the limit %d", aggregate, below, len(got), page)
		}
		all = append(all, got...)
		if len(got) < page {
			return all
		}
		below = got[len(got)-1].Key
	}
}

// describe returns the records in short, for failures.
func describe(rs []persistence.Record) string {
	s := fmt.Sprintf("%d records:", len(rs))
	for _, r := range rs {
		s += fmt.Sprintf(" %d(%d/%d %s %q)", r.Sequence, r.Index, r.Count, r.CommandID, r.Data)
	}
	return s
}
