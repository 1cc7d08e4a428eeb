package gateway_test

import (
	"bytes"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"licensed/actors"
	"licensed/gateway"
	"licensed/internal/harness"
	"licensed/internal/protolimit"
	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
)

// padded adds a field that the API does not know to a message. It has a size, and compresses to almost nothing.
func padded[M proto.Message](m M, size int) M {
	m.ProtoReflect().SetUnknown(
		protowire.AppendBytes(protowire.AppendTag(nil, 1000, protowire.BytesType), make([]byte, size)))
	return m
}

// used returns the number of bytes or places of a limit that are used.
func (r *rig) used(t testing.TB, limit string) int {
	t.Helper()
	n, err := strconv.ParseFloat(r.metric(t, `licensed_gateway_limit_used{limit="`+limit+`"}`), 64)
	if err != nil {
		t.Fatal(err)
	}
	return int(n)
}

// TestDecompressedSizeIsCounted: the budget of requests counts what a message takes when it is decompressed, in all
// protocols.
func TestDecompressedSizeIsCounted(t *testing.T) {
	const size = 60 << 10
	var r *rig
	used := make(chan int, 1)
	lists := wholeLists(1)
	f := failing(nil)
	f.answer = func(q *licensedv1.Query) (actors.Answer, error) {
		used <- r.used(t, "request_bytes")
		return lists.answer(q)
	}
	r = start(t, f)
	for name, options := range map[string][]connect.ClientOption{
		"Connect":  nil,
		"JSON":     {connect.WithProtoJSON()},
		"gRPC":     {connect.WithGRPC()},
		"gRPC-Web": {connect.WithGRPCWeb()},
		"GET":      {connect.WithHTTPGet(), connect.WithHTTPGetMaxURLSize(4<<10, false)},
	} {
		client := licensedv1connect.NewLicenseServiceClient(harness.HTTP2(t), r.url,
			append(options, connect.WithSendGzip())...)
		request := padded(&licensedv1.ListLicensesRequest{CustomerId: "Bayley"}, size)
		if _, err := client.ListLicenses(t.Context(), connect.NewRequest(request)); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if n := <-used; n < 2*size {
			t.Errorf("%s: a message of %d bytes is counted as %d", name, size, n)
		}
	}
}

// TestStreamsCountTheirRequest: a stream holds its request as long as it is open.
func TestStreamsCountTheirRequest(t *testing.T) {
	const size = 60 << 10
	p := newPast(t).life()
	r := start(t, p, func(c *gateway.Config) { c.HistoryReader, c.Kind = p, p.kind })
	for name, options := range map[string][]connect.ClientOption{
		"plain": nil, "compressed": {connect.WithSendGzip()},
	} {
		client := licensedv1connect.NewHistoryServiceClient(harness.HTTP2(t), r.url,
			append(options, connect.WithGRPC())...)
		stream, err := client.Follow(t.Context(),
			connect.NewRequest(padded(&licensedv1.FollowRequest{CustomerId: "Bayley"}, size)))
		if err != nil {
			t.Fatal(err)
		}
		if !stream.Receive() {
			t.Fatalf("%s: %v", name, stream.Err())
		}
		if n := r.used(t, "stream_bytes"); n < 2*size {
			t.Errorf("%s: a stream with a request of %d bytes is counted as %d", name, size, n)
		}
		_ = stream.Close()
		harness.Until(func() bool { return r.used(t, "stream_bytes") == 0 })
	}
}

// TestDecompressionStops: a compressed message is refused when it turns out to be too large, and is not decompressed
// any further.
func TestDecompressionStops(t *testing.T) {
	p := newPast(t).life()
	r := start(t, p, func(c *gateway.Config) { c.HistoryReader, c.Operations, c.Kind = p, p, p.kind })
	over2 := harness.HTTP2(t)
	for procedure, most := range map[string]int{
		licensedv1connect.LicenseServiceListLicensesProcedure:       gateway.MaxBodyBytes,
		licensedv1connect.HistoryServiceFollowProcedure:             gateway.MaxBodyBytes,
		licensedv1connect.AdminServiceReloadPolicyProcedure:         gateway.MaxBodyBytes,
		licensedv1connect.AdminServiceImportCustomerProcedure:       gateway.MaxImportBytes,
		"/grpc.health.v1.Health/Check":                              8 << 10,
		"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": 8 << 10,
	} {
		client := connect.NewClient[emptypb.Empty, emptypb.Empty](over2, r.url+procedure,
			connect.WithGRPC(), connect.WithSendGzip())
		for _, size := range []int{most, 4 * most} {
			_, err := client.CallUnary(t.Context(), connect.NewRequest(padded(&emptypb.Empty{}, size)))
			if connect.CodeOf(err) != connect.CodeResourceExhausted ||
				!strings.Contains(err.Error(), "decompression was stopped") {
				t.Errorf("%s with %d bytes: %v", procedure, size, err)
			}
		}
		_, err := client.CallUnary(t.Context(), connect.NewRequest(padded(&emptypb.Empty{}, most-16)))
		if connect.CodeOf(err) == connect.CodeResourceExhausted {
			t.Errorf("%s with a message that is just small enough: %v", procedure, err)
		}
	}
}

// TestManyElements: requests of the API are decoded by the codecs that bound their memory.
func TestManyElements(t *testing.T) {
	r := start(t, wholeLists(1))
	body := `{"customerId":"Bayley","x":[` + strings.Repeat(`"",`, 4000) + `""]}`
	res, err := http.Post(r.url+"/licensed.v1.LicenseService/ListDevices", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var text bytes.Buffer
	_, _ = text.ReadFrom(res.Body)
	if res.StatusCode != http.StatusBadRequest || !strings.Contains(text.String(), protolimit.ErrElements.Error()) {
		t.Errorf("answer %d %s", res.StatusCode, &text)
	}
}
