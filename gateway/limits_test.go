package gateway_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/actors"
	"licensed/actors/license"
	"licensed/gateway"
	"licensed/internal/harness"
	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
	"licensed/persistence"
)

// wholeLists answers as nodes of the first release do, with all entries whatever page is asked for.
func wholeLists(entries int) *fake {
	f := failing(nil)
	f.answer = func(q *licensedv1.Query) (actors.Answer, error) {
		a := actors.Answer{Head: persistence.Head{Sequence: 7}}
		switch q.GetQuery().(type) {
		case *licensedv1.Query_ListLicenses:
			r := &licensedv1.ListLicensesResponse{}
			for i := range entries {
				r.Licenses = append(r.Licenses,
					&licensedv1.License{DeviceId: "iphone", TitleId: fmt.Sprintf("title-%06d", i)})
			}
			a.Value = r
		case *licensedv1.Query_ListDevices:
			r := &licensedv1.ListDevicesResponse{}
			for i := range entries {
				r.Devices = append(r.Devices, &licensedv1.Device{DeviceId: fmt.Sprintf("device-%06d", i)})
			}
			a.Value = r
		case *licensedv1.Query_ListDownloads:
			r := &licensedv1.ListDownloadsResponse{}
			for i := range entries {
				r.Downloads = append(r.Downloads, &licensedv1.Download{
					DeviceId: "iphone",
					At:       timestamppb.New(noon.Add(time.Duration(i) * time.Second)),
				})
			}
			a.Value = &license.Downloads{Response: r}
		}
		return a, nil
	}
	return f
}

// TestListsArePaged: no list is longer than a page, whichever release answers, and all pages are the list.
func TestListsArePaged(t *testing.T) {
	const entries = 2*license.MaxPage + 500
	r := start(t, wholeLists(entries))
	client := protocols(t, r.url)["grpc"]
	lists := map[string]func(size uint32, token string) (n int, next string, err error){
		"ListLicenses": func(size uint32, token string) (int, string, error) {
			res, err := client.ListLicenses(t.Context(), connect.NewRequest(
				&licensedv1.ListLicensesRequest{CustomerId: "Bayley", PageSize: size, PageToken: token},
			))
			if err != nil {
				return 0, "", err
			}
			return len(res.Msg.Licenses), res.Msg.NextPageToken, nil
		},
		"ListDevices": func(size uint32, token string) (int, string, error) {
			res, err := client.ListDevices(t.Context(), connect.NewRequest(
				&licensedv1.ListDevicesRequest{CustomerId: "Bayley", PageSize: size, PageToken: token},
			))
			if err != nil {
				return 0, "", err
			}
			return len(res.Msg.Devices), res.Msg.NextPageToken, nil
		},
		"ListDownloads": func(size uint32, token string) (int, string, error) {
			res, err := client.ListDownloads(t.Context(), connect.NewRequest(
				&licensedv1.ListDownloadsRequest{CustomerId: "Bayley", TitleId: "t", PageSize: size, PageToken: token},
			))
			if err != nil {
				return 0, "", err
			}
			return len(res.Msg.Downloads), res.Msg.NextPageToken, nil
		},
	}
	for name, list := range lists {
		for _, size := range []uint32{0, 700, 1 << 30} {
			total, token := 0, ""
			for pages := 0; pages == 0 || token != ""; pages++ {
				n, next, err := list(size, token)
				if err != nil || n > license.MaxPage || size == 700 && n > 700 {
					t.Fatalf("%s by %d: a page of %d, %v", name, size, n, err)
				}
				total, token = total+n, next
			}
			if total != entries {
				t.Errorf("%s by %d: %d entries, want %d", name, size, total, entries)
			}
		}
		if _, _, err := list(0, "nonsense"); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("%s: bad token: %v", name, err)
		}
		if got := r.metric(t, `licensed_gateway_cut_lists_total{method="`+name+`"}`); got != "1" {
			t.Errorf("%s: %s first pages were taken for lists, want 1", name, got)
		}
	}
}

// TestReplyBudget: an answer that does not fit is refused, and what a command answers never is.
func TestReplyBudget(t *testing.T) {
	f := wholeLists(license.MaxPage)
	f.execute = func(context.Context, string, actors.Command) (actors.Reply, error) {
		return actors.Reply{}, actors.ErrNotOwner
	}
	r := start(t, f, func(c *gateway.Config) { c.Memory, c.AddressShare = 512<<10, 0.5 }) // 64 KiB of replies for each.
	client := protocols(t, r.url)["grpc"]
	for range 3 {
		_, err := client.ListLicenses(t.Context(),
			connect.NewRequest(&licensedv1.ListLicensesRequest{CustomerId: "Bayley"}))
		checkError(t, "list", err, connect.CodeResourceExhausted, licensedv1.ReasonOverloaded, "replies")
		info, _ := detail[*errdetails.ErrorInfo](t, err)
		if info.Metadata["limit"] != "reply_bytes" || info.Metadata["scope"] != "share" {
			t.Errorf("metadata %v", info.Metadata)
		}
		if _, err := client.ListLicenses(t.Context(),
			connect.NewRequest(&licensedv1.ListLicensesRequest{CustomerId: "Bayley", PageSize: 10})); err != nil {
			t.Errorf("a short page: %v", err)
		}
	}
	if got := r.metric(t, `licensed_gateway_limit_refusals_total{limit="reply_bytes",scope="share"}`); got != "3" {
		t.Errorf("counted %s refusals, want 3", got)
	}
	for _, limit := range []string{"reply_bytes", "request_bytes", "receiving_bytes", "requests"} {
		if got := r.metric(t, `licensed_gateway_limit_used{limit="`+limit+`"}`); got != "0" {
			t.Errorf("%s: %s are used when nothing is under way", limit, got)
		}
	}
}

// slowBody is a body that comes in two parts.
type slowBody struct {
	first, second string
	pause         func()
}

func (b *slowBody) Read(p []byte) (int, error) {
	if b.first == "" {
		if b.second == "" {
			return 0, io.EOF
		}
		b.pause()
		b.first, b.second = b.second, ""
	}
	n := copy(p, b.first)
	b.first = b.first[n:]
	return n, nil
}

const acquireJSON = `{"customerId":"Bayley","deviceId":"iphone","titleId":"GlowS01E01","commandId":"c1"}`

func postSlowly(
	ctx context.Context, client *http.Client, body io.Reader, timeout string,
) (status int, reply string, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost,
		"http://pipe/licensed.v1.LicenseService/AcquireLicense", body)
	if err != nil {
		return 0, "", err
	}
	r.Header.Set("Content-Type", "application/json")
	if timeout != "" {
		r.Header.Set("Connect-Timeout-Ms", timeout)
	}
	res, err := client.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b), err
}

// TestAnnouncedBodies: clients that announce long bodies and send nothing do not use up the memory for bodies of
// others.
func TestAnnouncedBodies(t *testing.T) {
	// 1 MiB of bodies.
	r := start(t, failing(actors.ErrNotOwner), func(c *gateway.Config) { c.Memory, c.AddressShare = 8<<20, 1 })
	used := func() string { return r.metric(t, `licensed_gateway_limit_used{limit="receiving_bytes"}`) }
	const announced = 50 // of 60 KB each, more than the limit
	for range announced {
		conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, err = io.WriteString(conn, "POST /licensed.v1.LicenseService/AcquireLicense HTTP/1.1\r\nHost: localhost\r\n"+
			"Content-Type: application/json\r\nContent-Length: 60000\r\n\r\n{")
		if err != nil {
			t.Fatal(err)
		}
	}
	want := strconv.Itoa(announced * (8<<10 + 4<<10))
	harness.Until(func() bool { return used() == want })
	_, err := protocols(t, r.url)["json/h1"].ListLicenses(t.Context(),
		connect.NewRequest(&licensedv1.ListLicensesRequest{CustomerId: "Bayley"}))
	checkError(t, "a request beside them", err, connect.CodeUnavailable, licensedv1.ReasonNotExecuted, "")
}

// TestDeadlineOfTheBody: a request whose deadline passed before it was complete was not executed, and the error
// reports this.
func TestDeadlineOfTheBody(t *testing.T) {
	for _, test := range []struct {
		name, timeout string
		pause         time.Duration
		says          string
	}{
		{"no time", "0", 0, "deadline passed"},
		{"late", "50", 60 * time.Millisecond, "deadline passed"},
		{"never, client waits", "", time.Hour, "did not arrive in time"},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := failing(actors.ErrNotOwner)
			c := gateway.DefaultConfig()
			c.MaxOperators = 1 // What comes from no address is this process's own.
			for name, client := range piped(t, gateway.New(c, f).Handler()) {
				ctx, cancel := context.WithCancel(t.Context())
				body := &slowBody{first: acquireJSON[:20], second: acquireJSON[20:], pause: func() {
					// An unfinished body takes no place of a request.
					status, reply, err := postSlowly(ctx, client, strings.NewReader(acquireJSON), "")
					if err != nil || status != http.StatusServiceUnavailable {
						t.Errorf("%s, %s: another request beside it: %d %s %v", test.name, name, status, reply, err)
					}
					select {
					case <-time.After(test.pause):
					case <-ctx.Done():
					}
				}}
				f.commands = nil
				status, reply, err := postSlowly(ctx, client, body, test.timeout)
				cancel()
				if err != nil || status != http.StatusGatewayTimeout ||
					!strings.Contains(reply, licensedv1.ReasonNotExecuted) || !strings.Contains(reply, test.says) {
					t.Errorf("%s, %s: %d %s %v", test.name, name, status, reply, err)
				}
				synctest.Wait()
				if len(f.commands) > 1 {
					t.Errorf("%s, %s: it was executed", test.name, name)
				}
			}
		})
	}
}

// TestNoTimeAtAll holds for every protocol, and for streams.
func TestNoTimeAtAll(t *testing.T) {
	p := newPast(t).life()
	r := p.start()
	for contentType, header := range map[string]string{
		"application/grpc+json":    "Grpc-Timeout",
		"application/json":         "Connect-Timeout-Ms",
		"application/connect+json": "Connect-Timeout-Ms",
	} {
		path, body, timeout := "/licensed.v1.HistoryService/GetState", `{"customerId":"Bayley"}`, "0"
		if strings.HasPrefix(contentType, "application/grpc") {
			timeout = "0n"
		}
		if contentType != "application/json" {
			path = "/licensed.v1.HistoryService/ListEvents"
			body = "\x00\x00\x00\x00" + string(rune(len(body))) + body
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", contentType)
		req.Header.Set(header, timeout)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		reply, err := io.ReadAll(res.Body)
		res.Body.Close()
		all := fmt.Sprint(string(reply), res.Header, res.Trailer)
		if err != nil ||
			!strings.Contains(all, "deadline passed before execution") && !strings.Contains(all, "deadline%20passed") {
			t.Errorf("%s: %s, %v", contentType, all, err)
		}
	}
}

// hanging aggregates answer no question.
type hanging struct{ *past }

func (hanging) Query(ctx context.Context, _ string, _ any) (actors.Answer, error) {
	<-ctx.Done()
	return actors.Answer{}, ctx.Err()
}

// TestStreamWithoutStore: a stream that has time left ends with UNAVAILABLE when the store does not answer, or is
// closed.
func TestStreamWithoutStore(t *testing.T) {
	p := newPast(t).life()
	for name, a := range map[string]gateway.Aggregates{"silent": hanging{p}, "closed": closedStore{p}} {
		synctest.Test(t, func(t *testing.T) {
			c := historyConfig(p)
			for protocol, client := range piped(t, gateway.New(c, a).Handler()) {
				stream, err := licensedv1connect.NewHistoryServiceClient(client, "http://pipe").Follow(
					t.Context(), connect.NewRequest(&licensedv1.FollowRequest{CustomerId: "Bayley"}))
				if err != nil {
					t.Fatal(err)
				}
				for stream.Receive() {
				}
				if err := stream.Err(); connect.CodeOf(err) != connect.CodeUnavailable ||
					reasonOf(err) != licensedv1.ReasonNotExecuted {
					t.Errorf("%s, %s: %v", name, protocol, err)
				}
				_ = stream.Close()
			}
		})
	}
}

type closedStore struct{ *past }

func (closedStore) Query(context.Context, string, any) (actors.Answer, error) {
	return actors.Answer{}, fmt.Errorf("read: %w", persistence.ErrClosed)
}

// TestTooOldTellsTheTime, as a client with a slow clock needs it.
func TestTooOldTellsTheTime(t *testing.T) {
	r := start(t, failing(actors.ErrTooOld))
	for name, client := range protocols(t, r.url) {
		_, err := client.AcquireLicense(t.Context(), connect.NewRequest(acquire()))
		info, _ := detail[*errdetails.ErrorInfo](t, err)
		if info.GetReason() != licensedv1.ReasonTooOld ||
			info.GetMetadata()["server_time"] != "2026-03-01T12:00:00.123456789Z" {
			t.Errorf("%s: %v", name, info)
		}
	}
}
