package siege

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// hidden is a request that a proxy takes for the body of another one. It has the right token, so that only the framing
// can be what stops it.
func (s *siege) hidden(m *member) (string, error) {
	token, err := s.secrets.token("service")
	body := `{"customerId":"` + canaryCustomer + `0"}`
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n"+
		"Content-Length: %d\r\n\r\n%s", listLicenses, m.host, token, len(body), body), err
}

// smuggled sends a request with two framings, and the hidden one after it. Only one answer may come.
func smuggled(name, framing string, body func(hidden string) string) Attack {
	return Attack{"smuggling", name, "one answer at most, then the connection ends", func(
		ctx context.Context, s *siege,
	) (o Outcome, err error) {
		for _, m := range s.gateways() {
			hidden, err := s.hidden(m)
			if err != nil {
				return o, err
			}
			token, err := s.secrets.token("service")
			if err != nil {
				return o, err
			}
			request := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n"+
				"Content-Type: application/json\r\n%s\r\n\r\n%s", listLicenses, m.host, token, framing, body(hidden))
			statuses, err := s.raw(ctx, m, apiPort, request)
			if err != nil {
				return o, err
			}
			if len(statuses) > 1 {
				return breached("%d answers to one request: %v", len(statuses), statuses), nil
			}
			o = held("answers: %v", statuses)
		}
		return o, nil
	}}
}

// raw sends bytes over HTTP/1.1 and returns the statuses of all answers until the server ends the connection, or is
// silent for a while.
func (s *siege) raw(ctx context.Context, m *member, port, request string) (statuses []int, err error) {
	conn, err := s.secure(ctx, m, port, "http/1.1")
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(silence)); err != nil {
		return nil, err
	}
	if _, err := io.WriteString(conn, request); err != nil {
		return nil, nil // It did not want all of it.
	}
	in := bufio.NewReader(conn)
	for {
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			return statuses, nil // The end, in whatever way.
		}
		text, err := read(res)
		s.answered(text)
		statuses = append(statuses, res.StatusCode)
		if err != nil {
			return statuses, nil
		}
	}
}

// silence is the time after which a server that has answered nothing more is taken to have said all.
const silence = 2 * time.Second

// smugglingAttacks are those with requests that have more than one end.
func smugglingAttacks() []Attack {
	chunked := func(hidden string) string { return "2\r\n{}\r\n0\r\n\r\n" + hidden }
	return []Attack{
		smuggled("both Transfer-Encoding and Content-Length",
			"Content-Length: 4\r\nTransfer-Encoding: chunked", chunked),
		smuggled("Transfer-Encoding of another case, with Content-Length",
			"Content-Length: 4\r\ntransfer-encoding: Chunked", chunked),
		smuggled("chunked body, then a hidden request", "Transfer-Encoding: chunked", chunked),
		smuggled("Transfer-Encoding of two words",
			"Transfer-Encoding: identity, chunked\r\nContent-Length: 2", chunked),
		smuggled("space before the colon", "Transfer-Encoding : chunked\r\nContent-Length: 2",
			func(hidden string) string { return "{}" + "0\r\n\r\n" + hidden }),
		smuggled("two different lengths", "Content-Length: 2\r\nContent-Length: 200",
			func(hidden string) string { return "{}" + hidden }),
		smuggled("length that is no number", "Content-Length: +2",
			func(hidden string) string { return "{}" + hidden }),
		{"smuggling", "header of two lines", "refused", func(ctx context.Context, s *siege) (o Outcome, err error) {
			m := s.gateways()[0]
			statuses, err := s.raw(ctx, m, apiPort, "POST "+listLicenses+" HTTP/1.1\r\nHost: "+m.host+
				"\r\nX-A: b\r\n\tTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n{}")
			if err == nil && len(statuses) > 0 && statuses[0] == http.StatusOK {
				return breached("answered %v", statuses), nil
			}
			return held("answers: %v", statuses), err
		}},
	}
}

// canaryAttacks look for secrets in all that processes wrote and answered.
func canaryAttacks() []Attack {
	const group, expect = "canaries", "in no output"
	search := func(name string, output func(ctx context.Context, s *siege) (string, error), customers bool) Attack {
		return Attack{group, name, expect, func(ctx context.Context, s *siege) (Outcome, error) {
			text, err := output(ctx, s)
			if err != nil {
				return Outcome{}, err
			}
			if text == "" {
				return Outcome{}, errors.New("there is no output to search")
			}
			var found []string
			for what, secret := range s.secrets.canaries {
				if strings.Contains(text, secret) {
					found = append(found, what)
				}
			}
			if at := strings.Index(text, canaryCustomer); customers && at >= 0 {
				found = append(found, "customer ids: "+short(text[max(0, at-60):min(len(text), at+30)]))
			}
			if len(found) > 0 {
				return breached("found: %s", strings.Join(found, ", ")), nil
			}
			return held("%d secrets looked for in %d KiB", len(s.secrets.canaries), len(text)>>10), nil
		}}
	}
	pages := func(paths ...string) func(ctx context.Context, s *siege) (string, error) {
		return func(ctx context.Context, s *siege) (string, error) {
			var all strings.Builder
			for _, m := range s.members {
				for _, path := range paths {
					token := s.secrets.canaries["the admin token"]
					status, body, err := s.page(ctx, m, adminPort, path, "", bearer(token))
					if err != nil || status != http.StatusOK {
						return "", fmt.Errorf("%s of %s: %d %s %w", path, m.name, status, short(body), err)
					}
					all.WriteString(body)
				}
			}
			return all.String(), nil
		}
	}
	return []Attack{
		search("logs of all processes, at level debug", func(_ context.Context, s *siege) (string, error) {
			var all strings.Builder
			for _, m := range s.members {
				all.WriteString(m.Tail(keptBytes))
			}
			return all.String(), nil
		}, true),
		search("metrics", pages("/metrics"), true),
		search("profiles of goroutines and memory", pages("/debug/pprof/goroutine?debug=2", "/debug/pprof/heap?debug=1",
			"/debug/pprof/allocs?debug=1"), true),
		search("traces of every request", func(ctx context.Context, s *siege) (string, error) {
			for s.collector.text() == "" { // They are sent every few seconds.
				select {
				case <-ctx.Done():
					return "", ctx.Err()
				case <-time.After(100 * time.Millisecond):
				}
			}
			return s.collector.text(), nil
		}, true),
		search("answers to attackers", func(_ context.Context, s *siege) (string, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.answers.String(), nil
		}, false),
	}
}
