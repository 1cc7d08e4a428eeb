package transport

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"licensed/actors"
	"licensed/internal/overlay"
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
		fmt.Printf("got %q, not supported: %t, error: %t\n",
			r.Outcome, errors.Is(err, actors.ErrNotSupported), err != nil)
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
	if _, err := a.Execute(t.Context(), address, "Kind", "later code",
		actors.Command{ID: "1", Payload: "x"}); !errors.Is(err, ErrInternal) {
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

// nextProtocol changes the protocol as the next release may: fields, a request and a code more.
func nextProtocol(file *descriptorpb.FileDescriptorProto) {
	for _, m := range file.MessageType {
		if m.GetName() == "Request" {
			overlay.AddField(m, "body", "string", "later", 201)
		}
		overlay.AddField(m, "", "string", "later_text", 200)
	}
	for _, e := range file.EnumType {
		if e.GetName() == "Code" {
			e.Value = append(e.Value,
				&descriptorpb.EnumValueDescriptorProto{Name: proto.String("CODE_LATER"), Number: proto.Int32(200)})
		}
	}
}

// buildNext returns the name of the tests of this package, built as the next release.
func buildNext(t *testing.T) string {
	file := overlay.File(t, "../..", []overlay.Edit{
		{
			File: "messages/clusterv1/cluster.pb.go",
			To:   overlay.Generate(t, (&clusterv1.Request{}).ProtoReflect().Descriptor().ParentFile(), nextProtocol),
		},
		{File: "cluster/transport/transport.go",
			From: "	if deadline, ok := ctx.Deadline(); ok {\n		m.TimeoutMicros", To: `
	m.LaterText = "later"
	if m.GetAggregate() == "novelty" {
		m.Body = &clusterv1.Request_Later{Later: "later"}
	}
	if deadline, ok := ctx.Deadline(); ok {
		m.TimeoutMicros`},
		{File: "cluster/transport/handle.go", From: "	h, codec := t.config.Handler, t.config.Codec\n", To: `
	h, codec := t.config.Handler, t.config.Codec
	r.LaterText = "later"
	if m.GetAggregate() == "later code" {
		r.Code = clusterv1.Code_CODE_LATER
		return nil
	}
`},
	})
	program := filepath.Join(t.TempDir(), "next.test")
	if out, err := exec.CommandContext(t.Context(), "go", "test", "-c", "-overlay", file, "-o", program, ".").
		CombinedOutput(); err != nil {
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
	// Not the test's own context, which ends before the clean-up lets the process end by itself.
	cmd := exec.CommandContext(context.Background(), program, "-test.run", "^TestChild$", "-test.v")
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
		if err := cmd.Wait(); err != nil {
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
