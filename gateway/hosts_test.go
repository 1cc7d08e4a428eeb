package gateway_test

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"testing"

	"licensed/gateway"
)

// TestAllowHosts: a page of another site cannot reach a port under a name that it makes resolve to it.
func TestAllowHosts(t *testing.T) {
	h := gateway.AllowHosts(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}),
		[]string{"gateway-1", "*.licensed.example.com"})
	for _, test := range []struct {
		host, path, verified string
		want                 int
	}{
		{"127.0.0.1:8080", "/", "", http.StatusOK},
		{"[::1]:8080", "/", "", http.StatusOK},
		{"[::1]", "/", "", http.StatusOK},
		{"10.0.0.7", "/", "", http.StatusOK},
		{"localhost:8080", "/", "", http.StatusOK},
		{"LOCALHOST", "/", "", http.StatusOK},
		{"gateway-1:8080", "/", "", http.StatusOK},
		{"eu.licensed.example.com", "/", "", http.StatusOK},
		{"licensed.example.com", "/", "", http.StatusForbidden},
		{"evil.example.com:8080", "/", "", http.StatusForbidden},
		{"evil.example.com", "/metrics", "", http.StatusForbidden},
		{"localhost.evil.example.com", "/", "", http.StatusForbidden},
		{"127.0.0.1.evil.example.com", "/", "", http.StatusForbidden},
		{"evil.example.com", "/healthz", "", http.StatusOK},
		{"api.example.com", "/", "api.example.com", http.StatusOK},
		{"evil.example.com", "/", "api.example.com", http.StatusMisdirectedRequest},
	} {
		r := httptest.NewRequest(http.MethodPost, test.path, nil)
		if r.Host = test.host; test.verified != "" {
			r.TLS = &tls.ConnectionState{ServerName: test.verified}
		}
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != test.want {
			t.Errorf("%+v: %d", test, w.Code)
		}
	}
}
