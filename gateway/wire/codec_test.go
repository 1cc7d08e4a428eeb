package wire_test

import (
	"bytes"
	"runtime"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"licensed/gateway/wire"
	"licensed/messages/licensedv1"
)

// requestTypes returns the messages that clients of the API send.
func requestTypes(t *testing.T) (all []protoreflect.MessageType) {
	t.Helper()
	for _, file := range []protoreflect.FileDescriptor{
		licensedv1.File_licensed_v1_license_service_proto, licensedv1.File_licensed_v1_history_service_proto,
		licensedv1.File_licensed_v1_admin_service_proto,
	} {
		for i := range file.Services().Len() {
			methods := file.Services().Get(i).Methods()
			for j := range methods.Len() {
				m, err := protoregistry.GlobalTypes.FindMessageByName(methods.Get(j).Input().FullName())
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, m)
			}
		}
	}
	if len(all) < 20 {
		t.Fatalf("%d messages", len(all))
	}
	return all
}

// inflated returns encoded messages of a type of about a size: each repeats the shortest value of one of the fields,
// at any depth.
func inflated(d protoreflect.MessageDescriptor, size int) map[string][]byte {
	all := map[string][]byte{}
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		tag := protowire.AppendTag(nil, f.Number(), protowire.BytesType)
		if f.Message() == nil && f.Kind() != protoreflect.BytesKind && f.Kind() != protoreflect.StringKind {
			tag = protowire.AppendTag(nil, f.Number(), protowire.VarintType)
		}
		all[string(f.Name())] = bytes.Repeat(append(tag, 0), size/(len(tag)+1))
		if f.Message() == nil {
			continue
		}
		for name, b := range inflated(f.Message(), size) {
			all[string(f.Name())+"."+name] = protowire.AppendBytes(bytes.Clone(tag), b)
		}
	}
	return all
}

// TestDecodedSize: no request takes many times its size when it is decoded, whatever field is repeated in it. A field
// that is added to the API is covered by this test.
func TestDecodedSize(t *testing.T) {
	const size, factor = 128 << 10, 8 // Of all that is allocated, what is free again included.
	for _, request := range requestTypes(t) {
		for field, b := range inflated(request.Descriptor(), size) {
			m := request.New().Interface()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err := wire.Proto.Unmarshal(b, m)
			runtime.ReadMemStats(&after)
			took := after.TotalAlloc - before.TotalAlloc
			if took > factor*size {
				t.Errorf("%s with %s again and again: %d times its size, %v",
					request.Descriptor().Name(), field, took/uint64(len(b)), err)
			}
		}
	}
}

// TestManyEmptyRecords: in each encoding an import of empty records is refused before it is decoded, and one that has
// records is not.
func TestManyEmptyRecords(t *testing.T) {
	records := make([][]byte, 1<<20)
	b, err := proto.Marshal(&licensedv1.ImportCustomerRequest{CustomerId: "Bayley", Records: records})
	if err != nil {
		t.Fatal(err)
	}
	j := []byte(`{"customerId":"Bayley","records":["` + strings.Repeat(`","`, 1<<20) + `"]}`)
	for name, c := range map[string]struct {
		codec connect.Codec
		body  []byte
	}{"proto": {wire.Proto, b}, "json": {wire.JSON, j}} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := c.codec.Unmarshal(c.body, &licensedv1.ImportCustomerRequest{})
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
			t.Errorf("%s: decoding took %d MiB", name, took>>20)
		}
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestCodecs: both codecs read what they write.
func TestCodecs(t *testing.T) {
	want := &licensedv1.ImportCustomerRequest{CustomerId: "Bayley", Records: [][]byte{[]byte(`"[{,\`)}, Last: true}
	for _, c := range []connect.Codec{wire.Proto, wire.JSON} {
		b, err := c.Marshal(want)
		got := &licensedv1.ImportCustomerRequest{}
		if err == nil {
			err = c.Unmarshal(b, got)
		}
		if err != nil || !proto.Equal(got, want) {
			t.Errorf("%s: %v, %v", c.Name(), protojson.Format(got), err)
		}
	}
	if err := wire.JSON.Unmarshal(nil, want); err == nil {
		t.Error("an empty body was read")
	}
}

// FuzzCodecs decodes anything as a request. What is decoded can be encoded again, and means the same then.
func FuzzCodecs(f *testing.F) {
	f.Add(true, []byte("\x0a\x01a\x12\x01b"))
	f.Add(false, []byte(`{"customerId":"a","facts":[{"number":"1","kind":"FACT_KIND_PLAYED","at":"2026-01-01T00:00:00Z"}]}`))
	f.Add(false, []byte(`{"deadline":"x"}`))
	f.Fuzz(func(t *testing.T, binary bool, b []byte) {
		codec := wire.JSON
		if binary {
			codec = wire.Proto
		}
		var first, second licensedv1.SyncDeviceRequest
		if codec.Unmarshal(b, &first) != nil {
			return
		}
		again, err := codec.Marshal(&first)
		if err != nil {
			t.Fatal(err)
		}
		if err := codec.Unmarshal(again, &second); err != nil || !proto.Equal(&first, &second) {
			t.Errorf("%v became %v, %v", &first, &second, err)
		}
	})
}
