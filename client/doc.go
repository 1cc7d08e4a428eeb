// Package client calls a licence service from Go: it is what an application imports.
//
//	c, err := client.Dial([]string{"gateway-1:8080", "gateway-2:8080"}, client.Options{})
//	…
//	defer c.Close()
//	res, err := c.AcquireLicense(ctx, &licensedv1.AcquireLicenseRequest{
//		CustomerId: "Bayley", DeviceId: "iphone", TitleId: "GlowS01E01",
//		DeviceName: "Bayley's iPhone", DeviceType: licensedv1.DeviceType_DEVICE_TYPE_PHONE,
//	})
//
// # The model
//
// A client has one gRPC connection to each gateway and sends each request to the next one (round robin). Every
// gateway serves every customer. A gateway that cannot be reached gets no requests until it is reachable again.
//
// A call is one request of the application and one or more attempts. Each attempt has a deadline of its own
// (Options.AttemptTimeout), and the call has that of its context (or Options.Timeout). An attempt that failed in a way
// that another attempt may repair is repeated after a random pause, which grows. Attempts of a command all carry the
// same command id, so the service executes the command at most once. A request without a command id gets a UUID.
//
// Retries have a budget, so that clients do not multiply the load of a service in trouble: a tenth of the requests
// (Options.RetryRatio) and one a second, of which up to 50 may be saved.
//
// # Sessions
//
// With Options.Session, commands and queries share one stream for each address, which costs a fraction of the CPU where
// there are many calls at a time. Attempts, retries and errors are the same. After some 30 s a session gives way to a
// new one, so that a gateway that was restarted gets calls again; a gateway that stops announces it, and no call fails.
//
// # Errors
//
// Errors of calls are *Error or *Refusal; use errors.As. A *Refusal is the answer of a rule, for instance a limit of
// devices. For every other error of a command, errors.Is tells whether it was executed: ErrNotExecuted or
// ErrOutcomeUnknown. After ErrOutcomeUnknown, send the command again with Error.CommandID.
//
// # Other services
//
// A Client is a grpc.ClientConnInterface, so licensedv1.NewHistoryServiceClient(c) and NewAdminServiceClient(c) work
// on it. Their errors are those above, and calls without side effects are repeated.
package client
