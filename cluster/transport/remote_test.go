package transport

import (
	"reflect"
	"testing"

	"github.com/asynkron/protoactor-go/remote"
	"google.golang.org/grpc"
)

// TestRemoteParts: the parts of protoactor that startRemote sets are what it takes them for.
func TestRemoteParts(t *testing.T) {
	r := reflect.TypeFor[remote.Remote]()
	for name, want := range map[string]reflect.Type{
		"s": reflect.TypeFor[*grpc.Server](), "edpManager": nil, "edpReader": nil,
	} {
		f, ok := r.FieldByName(name)
		if !ok || f.Type.Kind() != reflect.Pointer || want != nil && f.Type != want {
			t.Errorf("field %s: %v", name, f.Type)
		}
	}
	if reader, _ := r.FieldByName("edpReader"); !reader.Type.Implements(reflect.TypeFor[remote.RemotingServer]()) {
		t.Error("the reader serves nothing")
	}
}
