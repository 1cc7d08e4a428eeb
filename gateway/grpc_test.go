package gateway_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"licensed/actors"
	"licensed/messages/licensedv1"
)

// dialGRPC returns a connection that ends with the test.
func dialGRPC(t *testing.T, url string) *grpc.ClientConn {
	t.Helper()
	c, err := grpc.NewClient(strings.TrimPrefix(url, "http://"),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestGRPC speaks to the gateway with the client that most others use, rather than our own.
func TestGRPC(t *testing.T) {
	d := newDomain(t)
	connection := dialGRPC(t, d.start().url)
	const method = "/licensed.v1.LicenseService/AcquireLicense"
	r, res := acquire(), new(licensedv1.AcquireLicenseResponse)
	if err := connection.Invoke(t.Context(), method, r, res); err != nil || res.Sequence != 4 ||
		res.License.GetStudioId() != "netflix" {
		t.Fatalf("%v, %v", res, err)
	}
	r.CommandId, r.DeviceId = "c2", "ipad"
	s := status.Convert(connection.Invoke(t.Context(), method, r, res))
	var refusal *licensedv1.Refusal
	for _, detail := range s.Details() {
		if v, ok := detail.(*licensedv1.Refusal); ok {
			refusal = v
		}
	}
	if s.Code() != codes.FailedPrecondition || refusal.GetRule() != licensedv1.Rule_RULE_DEVICE_LIMIT ||
		refusal.Message != s.Message() {
		t.Errorf("status %v with %v", s, refusal)
	}
}

func TestGRPCRetryAfter(t *testing.T) {
	g := start(t, failing(&actors.RateLimitedError{Reason: "x", RetryAfter: 1500 * time.Millisecond}))
	connection := dialGRPC(t, g.url)
	var trailer metadata.MD
	err := connection.Invoke(t.Context(), "/licensed.v1.LicenseService/AcquireLicense", acquire(),
		new(licensedv1.AcquireLicenseResponse), grpc.Trailer(&trailer))
	s := status.Convert(err)
	found := false
	for _, detail := range s.Details() {
		if v, ok := detail.(*errdetails.RetryInfo); ok {
			found = v.RetryDelay.AsDuration() == 1500*time.Millisecond
		}
	}
	if s.Code() != codes.ResourceExhausted || !found || len(trailer["retry-after"]) != 1 ||
		trailer["retry-after"][0] != "2" {
		t.Errorf("status %v, details %v, trailer %v", s, s.Details(), trailer)
	}
}
