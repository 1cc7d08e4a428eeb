// Package scarce takes from a test's own process what an operating system gives in limited numbers.
package scarce

import (
	"net"
	"syscall"
	"testing"
	"time"
)

// ConnectWithoutFiles connects to an address while this process may open no file, so that nothing in it can accept the
// connection. It returns after accepting failed several times, with the limit as it was before. The caller closes the
// connection. No other test may run in the process meanwhile.
func ConnectWithoutFiles(t testing.TB, address string) net.Conn {
	t.Helper()
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
			t.Error(err)
		}
	}()
	d := net.Dialer{Timeout: 10 * time.Second, Control: func(string, string, syscall.RawConn) error {
		return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 3, Max: before.Max})
	}}
	conn, err := d.DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
		t.Error("files can be opened")
	}
	time.Sleep(50 * time.Millisecond) // Listeners try again after 5, 10, 20 ms.
	return conn
}
