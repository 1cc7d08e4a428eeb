package overlay

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/cmd/protoc-gen-go/internal_gengo"
	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

// Generate returns the generated Go of a .proto file after a change to what it declares.
func Generate(t testing.TB, file protoreflect.FileDescriptor, change func(*descriptorpb.FileDescriptorProto)) string {
	t.Helper()
	changed := protodesc.ToFileDescriptorProto(file)
	change(changed)
	all := append(imports(file, nil), changed)
	plugin, err := protogen.Options{}.New(
		&pluginpb.CodeGeneratorRequest{FileToGenerate: []string{changed.GetName()}, ProtoFile: all},
	)
	if err != nil {
		t.Fatal(err)
	}
	internal_gengo.GenerateFile(plugin, plugin.FilesByPath[changed.GetName()])
	res := plugin.Response()
	if res.Error != nil || len(res.File) != 1 {
		t.Fatalf("generated %d files from %s: %s", len(res.File), changed.GetName(), res.GetError())
	}
	return res.File[0].GetContent()
}

// imports returns what a file imports, each before those that import it.
func imports(
	file protoreflect.FileDescriptor, all []*descriptorpb.FileDescriptorProto,
) []*descriptorpb.FileDescriptorProto {
	for i := range file.Imports().Len() {
		f := file.Imports().Get(i).FileDescriptor
		all = imports(f, all)
		if !slices.ContainsFunc(all,
			func(o *descriptorpb.FileDescriptorProto) bool { return o.GetName() == f.Path() }) {
			all = append(all, protodesc.ToFileDescriptorProto(f))
		}
	}
	return all
}

// AddField adds a field to a message. Its type is a scalar of that name ("string", "bool"), or a message by
// its full name (".licensed.v1.License"). A oneof is named if the field is part of one.
func AddField(m *descriptorpb.DescriptorProto, oneof, typ, name string, number int32) {
	f := &descriptorpb.FieldDescriptorProto{
		Name:     &name,
		JsonName: proto.String(jsonName(name)),
		Number:   &number,
		Label:    descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
	}
	if strings.HasPrefix(typ, ".") {
		f.Type, f.TypeName = descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), &typ
	} else {
		f.Type = descriptorpb.FieldDescriptorProto_Type(
			descriptorpb.FieldDescriptorProto_Type_value["TYPE_"+strings.ToUpper(typ)],
		).Enum()
	}
	at := len(m.Field)
	for i, o := range m.OneofDecl {
		if o.GetName() != oneof {
			continue
		}
		f.OneofIndex = proto.Int32(int32(i))
		for k, other := range m.Field { // Those of one kind must follow each other.
			if other.OneofIndex != nil && other.GetOneofIndex() == int32(i) {
				at = k + 1
			}
		}
	}
	m.Field = slices.Insert(m.Field, at, f)
}

// jsonName returns the name of a field in JSON: lowerCamelCase.
func jsonName(name string) string {
	words := strings.Split(name, "_")
	for i := 1; i < len(words); i++ {
		words[i] = strings.ToUpper(words[i][:1]) + words[i][1:]
	}
	return strings.Join(words, "")
}
