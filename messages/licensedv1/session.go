package licensedv1

import "google.golang.org/protobuf/reflect/protoreflect"

// SessionMethods returns the methods of LicenseService that a session carries, by the number of their field in
// SessionCall and SessionOutcome.
func SessionMethods() map[protoreflect.FieldNumber]protoreflect.MethodDescriptor {
	inputs := make(map[protoreflect.FullName]protoreflect.MethodDescriptor)
	methods := File_licensed_v1_license_service_proto.Services().ByName("LicenseService").Methods()
	for i := range methods.Len() {
		inputs[methods.Get(i).Input().FullName()] = methods.Get(i)
	}
	all := make(map[protoreflect.FieldNumber]protoreflect.MethodDescriptor)
	fields := (*SessionCall)(nil).ProtoReflect().Descriptor().Oneofs().ByName("request").Fields()
	for i := range fields.Len() {
		if m := inputs[fields.Get(i).Message().FullName()]; m != nil {
			all[fields.Get(i).Number()] = m
		}
	}
	return all
}
