package transport

import (
	"net"
	"syscall"
	"testing"
	"time"
)

// TestAcceptWithoutFiles: the node port accepts connections again when the process has files again.
func TestAcceptWithoutFiles(t *testing.T) {
	a, b := start(t, nil), start(t, nil)
	conn := withoutFiles(t, a.Address())
	defer conn.Close()
	until(t, "connection", func() bool { _, err := b.execute(t.Context(), a.Address(), "x"); return err == nil })
}

// withoutFiles connects to an address while the process may open no file, so that nobody can accept the connection.
func withoutFiles(t *testing.T, address string) net.Conn {
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
	time.Sleep(50 * time.Millisecond) // Accept fails several times; it is tried after 5, 10, 20 ms.
	return conn
}
