package gateway_test

import (
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"

	"licensed/actors"
	"licensed/gateway"
)

// asked sends a request of a page, and returns the status and the headers of the answer.
func asked(t *testing.T, method, url, origin string, more ...string) (int, http.Header) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Origin", origin)
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(more); i += 2 {
		r.Header.Set(more[i], more[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	return res.StatusCode, res.Header
}

// TestCrossOrigin: pages of configured origins may call the API, in all protocols of browsers, and no others.
func TestCrossOrigin(t *testing.T) {
	g := gateway.New(gateway.DefaultConfig(), failing(actors.ErrOverloaded))
	origins := []string{"https://app.example.com", "http://*.dev.example.com"}
	open := serve(t, gateway.CrossOrigin(g.Handler(), origins), slog.Default())
	closed := serve(t, gateway.CrossOrigin(g.Handler(), nil), slog.Default())
	for _, test := range []struct {
		url, origin string
		status      int
		allowed     bool
	}{
		{open, "https://app.example.com", http.StatusNoContent, true},
		{open, "http://a.b.dev.example.com", http.StatusNoContent, true},
		{open, "http://app.example.com", http.StatusNoContent, false},
		{open, "https://app.example.com.evil.example", http.StatusNoContent, false},
		{open, "null", http.StatusNoContent, false},
		{closed, "https://app.example.com", http.StatusMethodNotAllowed, false},
	} {
		url := test.url + "/licensed.v1.LicenseService/AcquireLicense"
		for _, headers := range []string{
			"connect-protocol-version,connect-timeout-ms,content-type",
			"content-type,grpc-timeout,traceparent,x-grpc-web,x-user-agent",
		} {
			status, header := asked(t, http.MethodOptions, url, test.origin,
				"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", headers)
			if status != test.status || (header.Get("Access-Control-Allow-Origin") == test.origin) != test.allowed ||
				(header.Get("Access-Control-Allow-Headers") != "") != test.allowed {
				t.Errorf("preflight from %s: %d %v", test.origin, status, header)
			}
		}
		status, header := asked(t, http.MethodPost, url, test.origin)
		if status != http.StatusBadRequest {
			t.Errorf("request from %s: %d", test.origin, status)
		}
		exposed := strings.Split(header.Get("Access-Control-Expose-Headers"), ", ")
		if (header.Get("Access-Control-Allow-Origin") == test.origin) != test.allowed ||
			slices.Contains(exposed, "Grpc-Status") != test.allowed ||
			slices.Contains(exposed, "Retry-After") != test.allowed {
			t.Errorf("request from %s: %v", test.origin, header)
		}
		if header.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("credentials from %s", test.origin)
		}
	}
	// A header that the API does not know stays forbidden.
	_, header := asked(t, http.MethodOptions, open+"/licensed.v1.LicenseService/AcquireLicense", origins[0],
		"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "x-other")
	if header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("another header: %v", header)
	}
}

func TestCheckOrigin(t *testing.T) {
	for _, origin := range []string{
		"*", "https://app.example.com", "http://localhost:5173", "https://*.example.com", "http://[::1]:80",
	} {
		if err := gateway.CheckOrigin(origin); err != nil {
			t.Errorf("%s: %v", origin, err)
		}
	}
	for _, origin := range []string{
		"", "app.example.com", "https://", "https://app.example.com/", "https://u@h", "ftp://h", "https://a.*.com",
		"https://**", "null",
		"HTTPS://app.example.com", "https://h?q",
	} {
		if err := gateway.CheckOrigin(origin); err == nil {
			t.Errorf("%q is taken for an origin", origin)
		}
	}
}
