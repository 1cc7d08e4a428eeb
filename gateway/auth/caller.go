package auth

import (
	"google.golang.org/protobuf/reflect/protoreflect"

	"licensed/internal/caller"
	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
)

// unknownMethod is what a message is said to come of that no method sends: nobody may call it.
const unknownMethod = "unknown"

// licenseMethods are the methods of LicenseService, by the names of the messages that they send to owners.
var licenseMethods = func() map[protoreflect.Name]string {
	all := make(map[protoreflect.Name]string)
	methods := licensedv1.File_licensed_v1_license_service_proto.Services().ByName("LicenseService").Methods()
	for i := range methods.Len() {
		name := methods.Get(i).Name()
		all[name] = "/" + licensedv1connect.LicenseServiceName + "/" + string(name)
	}
	return all
}()

// MethodOf returns the method that a request about a customer comes of: that of the same name as the command or query
// in it. Empty: several methods ask so, and the caller says which one.
func MethodOf(request any) string {
	switch m := request.(type) {
	case *licensedv1.Command:
		return methodIn(m.ProtoReflect(), "command")
	case *licensedv1.Query:
		if m.GetDescribeState() == nil {
			return methodIn(m.ProtoReflect(), "query")
		}
	}
	return ""
}

// methodIn returns the method that what is in a oneof comes of.
func methodIn(m protoreflect.Message, oneof protoreflect.Name) string {
	// A message of a later release has none that is known here.
	if field := m.WhichOneof(m.Descriptor().Oneofs().ByName(oneof)); field != nil {
		if method := licenseMethods[field.Message().Name()]; method != "" {
			return method
		}
	}
	return unknownMethod
}

// AuthorizeCaller decides whether the caller that another process, or another part of this one, vouches for may call a
// method about a customer. An empty method is the one that the caller says. A request for nobody is denied.
func AuthorizeCaller(a Authorizer, by *caller.Caller, method, customer string) Decision {
	if by == nil || by.Principal == "" {
		return Decision{Denial: NoPrincipal, Text: "the request does not say who it acts for"}
	}
	if method == "" {
		method = by.Method
	}
	return a.Authorize(&Claims{Roles: Roles(by.Roles), Customer: by.Customer},
		Action{Method: method, Customer: customer, Read: true, Reason: by.Reason})
}
