package auth

import (
	"flag"
	"os"
	"strings"
	"testing"

	"licensed/messages/licensedv1"
)

var rewrite = flag.Bool("rewrite", false, "write docs/reference/roles.md")

// TestRolesPage compares docs/reference/roles.md with the .proto files.
func TestRolesPage(t *testing.T) {
	const name = "../../docs/reference/roles.md"
	want := Page()
	if *rewrite {
		if err := os.WriteFile(name, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(name)
	if err != nil || string(got) != want {
		t.Errorf("docs/reference/roles.md is not up to date (%v): run go test ./gateway/auth -run RolesPage -rewrite",
			err)
	}
}

// TestEveryMethodHasRoles: a method without the option could be called by nobody, and was forgotten.
func TestEveryMethodHasRoles(t *testing.T) {
	for _, r := range Rules() {
		if r.Roles|r.WithReason == 0 {
			t.Errorf("%s has no option (licensed.v1.access)", r.Method)
		}
		if both := r.Roles & r.WithReason; both != 0 {
			t.Errorf("%s: %v may call it with and without a reason", r.Method, both)
		}
	}
}

func TestAuthorize(t *testing.T) {
	const acquire = "/licensed.v1.LicenseService/AcquireLicense"
	table := NewTable()
	bayley := &Claims{Roles: RolesOf(licensedv1.Role_ROLE_CUSTOMER), Customer: "Bayley"}
	everything := &Claims{Roles: RolesOf(AllRoles()...)}
	for name, test := range map[string]struct {
		claims  *Claims
		action  Action
		allowed bool
	}{
		"own":                      {bayley, Action{Method: acquire, Read: true, Customer: "Bayley"}, true},
		"other":                    {bayley, Action{Method: acquire, Read: true, Customer: "Robin"}, false},
		"nobody":                   {bayley, Action{Method: acquire, Read: true}, false},
		"a customer without an id": {&Claims{Roles: bayley.Roles}, Action{Method: acquire, Read: true}, false},
		"no claims":                {nil, Action{Method: acquire, Read: true, Customer: "Bayley"}, false},
		"no roles":                 {&Claims{}, Action{Method: acquire}, false},
		"unknown method":           {everything, Action{Method: "/licensed.v1.LicenseService/Destroy"}, false},
		"no method":                {everything, Action{}, false},
	} {
		if d := table.Authorize(test.claims, test.action); d.Allowed != test.allowed || !d.Allowed && d.Text == "" {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

func TestRoleNames(t *testing.T) {
	all := RolesOf(AllRoles()...)
	if back, err := ParseRoles(strings.Split(all.String(), ", ")); err != nil || back != all {
		t.Errorf("%v: %v, %v", all, back, err)
	}
}
