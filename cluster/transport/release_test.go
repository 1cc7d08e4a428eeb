package transport

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/cmd/protoc-gen-go/internal_gengo"
	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"

	"licensed/actors"
	"licensed/messages/clusterv1"
)

// childEnv is set in a process that a test has started.
const childEnv = "LICENSED_TRANSPORT_CHILD"

// TestChild is the other process of TestNextRelease: it serves, and asks whom it is told to.
func TestChild(t *testing.T) {
	if os.Getenv(childEnv) == "" {
		t.Skip("for another test's use")
	}
	p := start(t, nil)
	fmt.Println("at", p.Address())
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		address, id, _ := strings.Cut(in.Text(), " ")
		r, err := p.Execute(t.Context(), address, "Kind", id, actors.Command{ID: "1", Payload: "hello"})
		fmt.Printf("got %q, not supported: %t, error: %t\n", r.Outcome, errors.Is(err, ErrNotSupported), err != nil)
	}
}

// TestNextRelease builds this package as the next release might have it: with fields, a request and a code
// that this one does not know, and code that uses them. The two talk, both ways.
func TestNextRelease(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds a program")
	}
	a := start(t, nil)
	child := startChild(t, buildNext(t))
	address := child.line(t, "at ")

	a.works(t, address)
	if _, err := a.Execute(t.Context(), address, "Kind", "later code", actors.Command{ID: "1", Payload: "x"}); !errors.Is(err, ErrInternal) {
		t.Errorf("answer with a code of the next release: %v", err)
	}
	if _, err := a.Query(t.Context(), address, "Kind", "id", "x"); err != nil {
		t.Errorf("query: %v", err)
	}
	for id, want := range map[string]string{
		"id":      `"id hello", not supported: false, error: false`,
		"novelty": `"", not supported: true, error: true`,
	} {
		child.say(t, a.Address()+" "+id)
		if got := child.line(t, "got "); got != want {
			t.Errorf("the next release asked for %s and got %s, want %s", id, got, want)
		}
	}
}

// nextProtocol returns the generated code of the next release's protocol.
func nextProtocol(t *testing.T) string {
	file := protodesc.ToFileDescriptorProto((&clusterv1.Request{}).ProtoReflect().Descriptor().ParentFile())
	text := func(name string, number int32) *descriptorpb.FieldDescriptorProto {
		return &descriptorpb.FieldDescriptorProto{
			Name: &name, JsonName: &name, Number: &number,
			Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
		}
	}
	for _, m := range file.MessageType {
		if m.GetName() == "Request" { // its fields of one kind must follow each other
			body := text("later", 201)
			body.OneofIndex = proto.Int32(0)
			last := slices.IndexFunc(m.Field, func(f *descriptorpb.FieldDescriptorProto) bool { return f.GetName() == "drain" })
			m.Field = slices.Insert(m.Field, last+1, body)
		}
		m.Field = append(m.Field, text("later_text", 200))
	}
	for _, e := range file.EnumType {
		if e.GetName() == "Code" {
			e.Value = append(e.Value, &descriptorpb.EnumValueDescriptorProto{Name: proto.String("CODE_LATER"), Number: proto.Int32(200)})
		}
	}
	plugin, err := protogen.Options{}.New(&pluginpb.CodeGeneratorRequest{
		FileToGenerate: []string{file.GetName()}, ProtoFile: []*descriptorpb.FileDescriptorProto{file},
	})
	if err != nil {
		t.Fatal(err)
	}
	internal_gengo.GenerateFile(plugin, plugin.FilesByPath[file.GetName()])
	res := plugin.Response()
	if res.Error != nil || len(res.File) != 1 {
		t.Fatalf("generated %d files: %s", len(res.File), res.GetError())
	}
	return res.File[0].GetContent()
}

// buildNext returns the name of the tests of this package, built as the next release.
func buildNext(t *testing.T) string {
	dir := t.TempDir()
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	replace := func(name, text string) {
		original, err := filepath.Abs(name)
		if err != nil {
			t.Fatal(err)
		}
		overlay.Replace[original] = filepath.Join(dir, filepath.Base(name))
		if err := os.WriteFile(overlay.Replace[original], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	edit := func(name, old, with string) {
		source, err := os.ReadFile(name)
		if err != nil || strings.Count(string(source), old) != 1 {
			t.Fatalf("%s: %q is not there once: %v", name, old, err)
		}
		replace(name, strings.Replace(string(source), old, with, 1))
	}
	replace(filepath.Join("..", "..", "messages", "clusterv1", "cluster.pb.go"), nextProtocol(t))
	edit("transport.go", "	if deadline, ok := ctx.Deadline(); ok {\n		m.TimeoutMicros", `
	m.LaterText = "later"
	if m.GetAggregate() == "novelty" {
		m.Body = &clusterv1.Request_Later{Later: "later"}
	}
	if deadline, ok := ctx.Deadline(); ok {
		m.TimeoutMicros`)
	edit("front.go", "	h, codec := t.config.Handler, t.config.Codec\n", `
	h, codec := t.config.Handler, t.config.Codec
	r.LaterText = "later"
	if m.GetAggregate() == "later code" {
		r.Code = clusterv1.Code_CODE_LATER
		return nil
	}
`)
	config, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	name, program := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "next.test")
	if err := os.WriteFile(name, config, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "go", "test", "-c", "-overlay", name, "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return program
}

// child is a process that a test has started.
type child struct {
	in  *bufio.Writer
	out *bufio.Scanner
}

func startChild(t *testing.T, program string) *child {
	cmd := exec.CommandContext(t.Context(), program, "-test.run", "^TestChild$", "-test.v")
	cmd.Env = append(os.Environ(), childEnv+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil && t.Context().Err() == nil {
			t.Errorf("the other process: %v", err)
		}
	})
	return &child{bufio.NewWriter(in), bufio.NewScanner(out)}
}

func (c *child) say(t *testing.T, line string) {
	if _, err := c.in.WriteString(line + "\n"); err != nil {
		t.Fatal(err)
	}
	if err := c.in.Flush(); err != nil {
		t.Fatal(err)
	}
}

// line returns the next line with the prefix, without it.
func (c *child) line(t *testing.T, prefix string) string {
	for c.out.Scan() {
		if rest, ok := strings.CutPrefix(c.out.Text(), prefix); ok {
			return rest
		}
	}
	t.Fatalf("the other process said nothing more: %v", c.out.Err())
	return ""
}
