package deploy_test

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"licensed/test/chaos/deploy"
)

func TestAttached(t *testing.T) {
	file := filepath.Join(t.TempDir(), "broken")
	a, err := deploy.NewAttached([]byte(`
gateways: ["http://10.0.0.1:8080"]
members: [{name: n1, admin: "http://10.0.1.1:8081"}]
faults:
  - {name: kill, targets: [n1], inject: touch ` + file + `, heal: rm ` + file + `, hold: 4s, weight: 2}
  - {name: wrong, targets: [n1], inject: "echo no such host; exit 3", heal: "true", hold: 1s}
`))
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Gateways()) != 1 || len(a.Members()) != 2 {
		t.Errorf("gateways %v, members %v", a.Gateways(), a.Members())
	}
	f := a.Kinds()[0].Make(rand.New(rand.NewPCG(1, 1)))
	if err := f.Inject(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
	if err := f.Heal(context.Background()); err != nil {
		t.Fatal(err)
	}
	f = a.Kinds()[1].Make(rand.New(rand.NewPCG(1, 1)))
	if err := f.Inject(context.Background()); err == nil || !strings.Contains(err.Error(), "no such host") {
		t.Errorf("a command that fails gives %v", err)
	}
}

func TestAttachedErrors(t *testing.T) {
	for text, says := range map[string]string{
		"gateways: []":          "at least one",
		"gateways: [localhost]": "localhost",
		"gateway: [x]":          "gateway",
		"gateways: [\"http://h:1\"]\nfaults: [{targets: [a], inject: a, heal: b, hold: 1s}]": "fault 1: name",
		"gateways: [\"http://h:1\"]\nfaults: [{name: k, targets: [a], heal: b, hold: 1s}]":   "inject and heal",
		"gateways: [\"http://h:1\"]\nfaults: [{name: k, inject: a, heal: b, hold: 1s}]":      "targets",
		"gateways: [\"http://h:1\"]\nfaults: [{name: k, targets: [a], inject: a, heal: b}]":  "hold",
	} {
		if _, err := deploy.NewAttached([]byte(text)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q gives %v, want %q", text, err, says)
		}
	}
}

func FuzzNewAttached(f *testing.F) {
	f.Add([]byte("gateways: [\"http://h:1\"]"))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = deploy.NewAttached(b) })
}
