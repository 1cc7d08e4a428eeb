package auth

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"licensed/messages/licensedv1"
)

// Roles are a set of licensedv1.Role.
type Roles uint32

// RolesOf returns a set of roles.
func RolesOf(roles ...licensedv1.Role) (set Roles) {
	for _, r := range roles {
		set |= 1 << r
	}
	return set
}

// Has reports whether a role is in the set.
func (r Roles) Has(role licensedv1.Role) bool { return r&RolesOf(role) != 0 }

// List returns the roles in their order.
func (r Roles) List() (all []licensedv1.Role) {
	for _, role := range AllRoles() {
		if r.Has(role) {
			all = append(all, role)
		}
	}
	return all
}

// String returns the names of the roles.
func (r Roles) String() string {
	var names []string
	for _, role := range r.List() {
		names = append(names, RoleName(role))
	}
	return strings.Join(names, ", ")
}

// AllRoles returns every role, in the order of its number.
func AllRoles() (all []licensedv1.Role) {
	for n := range licensedv1.Role_name {
		if n != 0 {
			all = append(all, licensedv1.Role(n))
		}
	}
	slices.Sort(all)
	return all
}

// RoleName returns the name of a role as files have it: "operator".
func RoleName(r licensedv1.Role) string {
	return strings.ToLower(strings.TrimPrefix(r.String(), "ROLE_"))
}

// ParseRoles returns the set of roles with these names. Errors: a name that is no role.
func ParseRoles(names []string) (set Roles, err error) {
	for _, name := range names {
		n, ok := licensedv1.Role_value["ROLE_"+strings.ToUpper(name)]
		if !ok || n == 0 {
			return 0, fmt.Errorf("%q is no role; roles are %v", name, RolesOf(AllRoles()...))
		}
		set |= RolesOf(licensedv1.Role(n))
	}
	return set, nil
}

// Rule says who may call a method.
type Rule struct {
	// Method is the path of the call.
	Method string
	// Roles may call it, and WithReason too if they state a reason.
	Roles, WithReason Roles
}

// Table is an Authorizer by the option licensed.v1.access of each method.
type Table struct{ rules map[string]Rule }

// services of the API, in the order of the documentation.
var services = []protoreflect.FileDescriptor{
	licensedv1.File_licensed_v1_license_service_proto, licensedv1.File_licensed_v1_history_service_proto,
	licensedv1.File_licensed_v1_admin_service_proto,
}

// Rules returns the rule of each method of the API. One without the option has no roles.
func Rules() (all []Rule) {
	for _, file := range services {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for j := range service.Methods().Len() {
				m := service.Methods().Get(j)
				access, _ := proto.GetExtension(m.Options(), licensedv1.E_Access).(*licensedv1.Access)
				all = append(all, Rule{
					Method:     "/" + string(service.FullName()) + "/" + string(m.Name()),
					Roles:      RolesOf(access.GetRoles()...),
					WithReason: RolesOf(access.GetWithReason()...),
				})
			}
		}
	}
	return all
}

// NewTable returns the authorizer by the rules of the .proto files.
func NewTable() *Table {
	t := &Table{rules: make(map[string]Rule)}
	for _, r := range Rules() {
		t.rules[r.Method] = r
	}
	return t
}

// customer is the role that is about one customer.
const customer = Roles(1 << licensedv1.Role_ROLE_CUSTOMER)

// Authorize implements Authorizer.
func (t *Table) Authorize(c *Claims, a Action) Decision {
	rule := t.rules[a.Method]
	has := func(roles Roles) bool { return c != nil && c.Roles&roles != 0 }
	own := has(rule.Roles & customer)
	switch {
	case has(rule.Roles &^ customer), own && !a.Read, own && c.Customer != "" && a.Customer == c.Customer,
		has(rule.WithReason) && (a.Reason != "" || !a.Read):
		return Decision{Allowed: true}
	case has(rule.WithReason):
		return Decision{Denial: ReasonRequired, Text: "this call needs a reason: send it in the header " + ReasonHeader}
	case own:
		return Decision{Denial: OtherCustomer, Text: "a customer may call this only with its own customer_id"}
	}
	allowed := rule.Roles | rule.WithReason
	if allowed == 0 {
		return Decision{Denial: NotAllowed, Text: "nobody may call this"}
	}
	return Decision{Denial: NotAllowed, Text: "this call needs one of the roles " + allowed.String()}
}

// ReasonHeader is the header of the reason for a call, as percent-encoded UTF-8.
const ReasonHeader = "Licensed-Reason"

// Page returns docs/reference/roles.md.
func Page() string {
	var b strings.Builder
	b.WriteString(`# Roles

<!-- Generated from the .proto files: go test ./gateway/auth -run RolesPage -rewrite -->

Who may call which method, by the option ` + "`(licensed.v1.access)`" + ` of each method in ` + "`proto/licensed/v1`" + `.
What the table does not allow is denied.
[security.md](../guide/security.md) tells how callers get their roles.

- ● may call the method;
- ○ may call it with a reason, in the header ` + "`" + ReasonHeader + "`" + ` (` + "`licensectl --reason`" + `);
- own: a customer may call it with its own customer id.

`)
	b.WriteString("| method |")
	for _, role := range AllRoles() {
		b.WriteString(" " + RoleName(role) + " |")
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(AllRoles())) + "\n")
	for _, rule := range Rules() {
		b.WriteString("| `" + strings.TrimPrefix(rule.Method, "/licensed.v1.") + "` |")
		for _, role := range AllRoles() {
			mark := "  |"
			switch {
			case rule.Roles.Has(role) && role == licensedv1.Role_ROLE_CUSTOMER:
				mark = " own |"
			case rule.Roles.Has(role):
				mark = " ● |"
			case rule.WithReason.Has(role):
				mark = " ○ |"
			}
			b.WriteString(mark)
		}
		b.WriteString("\n")
	}
	return b.String()
}
