package cassandra

import (
	"encoding/hex"
	"errors"
	"reflect"
	"testing"
	"time"

	"licensed/persistence"
)

var somePartition = persistence.Partition{
	RootKey:     persistence.RootKey{Aggregate: "Bayley:LicenseAggregate", Epoch: 3, Version: 7},
	Incarnation: persistence.Incarnation{0xaa, 1},
}

func someRecord() persistence.Record {
	return persistence.Record{
		Sequence: 12, Index: 0, Count: 2, CommandID: "c1", Fingerprint: 0x0102030405060708,
		IssuedAt: time.UnixMilli(1761555600000).UTC(), AggregateID: "iphone/GlowS01E01", Order: 4,
		Time: time.UnixMilli(1761555600123).UTC(), Mapper: "LicenseAcquired/1",
		Header: persistence.Header{Compression: 1, KeyID: "k", PolicyVersion: "p1"}, Data: []byte("event"),
	}
}

func someRoot() persistence.Root {
	return persistence.Root{
		Key: somePartition.RootKey, Incarnation: somePartition.Incarnation, Base: 11,
		Parent:            persistence.RootKey{Aggregate: "Bayley:LicenseAggregate", Epoch: 2, Version: 6},
		ParentIncarnation: persistence.Incarnation{0xbb}, Time: time.UnixMilli(1761555600123).UTC(),
		ArchivedThrough: 5,
		Mapper:          "LicenseSnapshot/1",
		Header:          persistence.Header{PolicyVersion: "p1"},
		Snapshot:        []byte("snapshot"),
	}
}

// eventColumns is the row as Cassandra would return it.
func eventColumns(p *persistence.Partition, r *persistence.Record) eventRow {
	return eventRow{
		sequence: int64(r.Sequence), time: r.Time.UnixMilli(),
		aggregateID: r.AggregateID, commandID: r.CommandID, mapper: r.Mapper, data: eventData(p, r),
	}
}

func rootColumnsOf(r *persistence.Root) rootRow {
	return rootRow{
		epoch: int64(r.Key.Epoch), version: int64(r.Key.Version), base: int64(r.Base), time: r.Time.UnixMilli(),
		parentEpoch: int64(r.Parent.Epoch), parentVersion: int64(r.Parent.Version),
		incarnation: [16]byte(r.Incarnation), parentIncarnation: [16]byte(r.ParentIncarnation),
		archivedThrough: int64(r.ArchivedThrough), checksum: int32(rootChecksum(r)),
		mapper: r.Mapper, data: snapshotData(r),
	}
}

func TestEventData(t *testing.T) {
	second, only := someRecord(), someRecord()
	second.Index, second.Fingerprint, second.IssuedAt = 1, 0, time.Time{}
	only.Count, only.Header, only.Data = 1, persistence.Header{}, []byte{}
	for _, want := range []persistence.Record{someRecord(), second, only} {
		row := eventColumns(&somePartition, &want)
		got, err := row.record(&somePartition)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%v\ngot  %+v\nwant %+v", err, got, want)
		}
	}
}

// TestGolden holds the layouts: what was written by one version of this program is read by all later.
func TestGolden(t *testing.T) {
	record, root := someRecord(), someRoot()
	by := record
	by.Principal, by.Reason = "tokens:anna", "lost phone"
	for want, got := range map[string][]byte{
		"31380001016b02703141d2835a0100020807060504030201f601046576656e74af929332": eventData(&somePartition, &record),
		"31380001016b02703141d2835a0500020807060504030201f6010b746f6b656e733a616e6e610a6c6f73742070686f6e6504" +
			"6576656e74ddc24175": eventData(&somePartition, &by),
		"3120027031e28fd08f736e617073686f749dad805d": snapshotData(&root),
	} {
		if hex.EncodeToString(got) != want {
			t.Errorf("%s\nwant %s", hex.EncodeToString(got), want)
		}
	}
}

// TestForeignColumns changes each column of a row beside the data: it must not pass for another's.
func TestForeignColumns(t *testing.T) {
	record := someRecord()
	for name, change := range map[string]func(*persistence.Partition, *eventRow){
		"aggregate":    func(p *persistence.Partition, _ *eventRow) { p.Aggregate = "Matt:LicenseAggregate" },
		"version":      func(p *persistence.Partition, _ *eventRow) { p.Version++ },
		"epoch":        func(p *persistence.Partition, _ *eventRow) { p.Epoch++ },
		"incarnation":  func(p *persistence.Partition, _ *eventRow) { p.Incarnation[15]++ },
		"sequence":     func(_ *persistence.Partition, w *eventRow) { w.sequence++ },
		"aggregate_id": func(_ *persistence.Partition, w *eventRow) { w.aggregateID += "x" },
		"command_id":   func(_ *persistence.Partition, w *eventRow) { w.commandID = "" },
		"event_time":   func(_ *persistence.Partition, w *eventRow) { w.time++ },
		"event_mapper": func(_ *persistence.Partition, w *eventRow) { w.mapper = "LicenseAcquired/2" },
		"event_data":   func(_ *persistence.Partition, w *eventRow) { w.data = w.data[1:] },
		"null":         func(_ *persistence.Partition, w *eventRow) { w.data = nil },
	} {
		p, row := somePartition, eventColumns(&somePartition, &record)
		change(&p, &row)
		if _, err := row.record(&p); !errors.Is(err, persistence.ErrCorrupt) {
			t.Errorf("event with another %s: %v, want ErrCorrupt", name, err)
		}
	}
	root := someRoot()
	for name, change := range map[string]func(*rootRow){
		"epoch":              func(w *rootRow) { w.epoch++ },
		"version":            func(w *rootRow) { w.version++ },
		"incarnation":        func(w *rootRow) { w.incarnation[0]++ },
		"base":               func(w *rootRow) { w.base-- },
		"parent_epoch":       func(w *rootRow) { w.parentEpoch = 0 },
		"parent_version":     func(w *rootRow) { w.parentVersion = 0 },
		"parent_incarnation": func(w *rootRow) { w.parentIncarnation = [16]byte{} },
		"root_time":          func(w *rootRow) { w.time++ },
		"archived_through":   func(w *rootRow) { w.archivedThrough++ },
		"checksum":           func(w *rootRow) { w.checksum++ },
		"archive_mark":       func(w *rootRow) { w.mark = []byte{0x51} },
		"snapshot_mapper":    func(w *rootRow) { w.mapper = "" },
		"snapshot_data":      func(w *rootRow) { w.data = w.data[:len(w.data)-1] },
		"null":               func(w *rootRow) { w.data = nil },
	} {
		row := rootColumnsOf(&root)
		if got, err := row.root(root.Key.Aggregate); err != nil || !reflect.DeepEqual(got, root) {
			t.Fatalf("%+v, %v", got, err)
		}
		change(&row)
		got, err := row.root(root.Key.Aggregate)
		if name == "snapshot_mapper" || name == "snapshot_data" || name == "null" { // the chain is whole
			if want := root.Damaged(got.Damage); err != nil || !errors.Is(got.Damage, persistence.ErrCorrupt) ||
				!reflect.DeepEqual(got, want) {
				t.Errorf("root with another %s: %+v, %v, want its damage", name, got, err)
			}
			continue
		}
		if !errors.Is(err, persistence.ErrCorrupt) {
			t.Errorf("root with another %s: %v, want ErrCorrupt", name, err)
		}
		row.snapshotAt = new(string)
		if _, err := row.root(root.Key.Aggregate); !errors.Is(err, persistence.ErrCorrupt) {
			t.Errorf("stripped root with another %s: %v, want ErrCorrupt", name, err)
		}
	}
}

// TestEventsKey holds the partition key to the form that Cassandra hashes.
func TestEventsKey(t *testing.T) {
	p := somePartition
	p.Aggregate = "a"
	want := "0003613a3700" + "0008000000000000000300" + "0010aa010000000000000000000000000000" + "00"
	if got := hex.EncodeToString(eventsKey(&p, p.RowID())); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func FuzzEventData(f *testing.F) {
	record := someRecord()
	f.Add(eventData(&somePartition, &record))
	f.Add(persistence.AppendPayload(nil, persistence.Header{}, []byte{0, 0, 0, 0, 3}))
	f.Fuzz(func(t *testing.T, data []byte) {
		// Whatever the checksums say, decoding must not panic, and what it takes must be minimal.
		for _, data := range [][]byte{data, persistence.AppendPayload(nil, persistence.Header{}, data)} {
			r := someRecord()
			r.Index, r.Count, r.Fingerprint, r.IssuedAt, r.Order, r.Data = 0, 0, 0, time.Time{}, 0, nil
			if err := decodeEventData(&somePartition, &r, data); err != nil {
				if !errors.Is(err, persistence.ErrCorrupt) {
					t.Errorf("%v, want ErrCorrupt", err)
				}
				continue
			}
			if again := eventData(&somePartition, &r); !reflect.DeepEqual(again, data) {
				t.Errorf("%x decodes to %x", data, again)
			}
		}
	})
}

func FuzzSnapshotData(f *testing.F) {
	root := someRoot()
	f.Add(snapshotData(&root))
	f.Add([]byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, data := range [][]byte{data, persistence.AppendPayload(nil, persistence.Header{}, data)} {
			r := someRoot()
			if err := decodeSnapshotData(&r, data); err != nil {
				if !errors.Is(err, persistence.ErrCorrupt) {
					t.Errorf("%v, want ErrCorrupt", err)
				}
				continue
			}
			if again := snapshotData(&r); !reflect.DeepEqual(again, data) {
				t.Errorf("%x decodes to %x", data, again)
			}
		}
	})
}
