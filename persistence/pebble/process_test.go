package pebble

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"licensed/persistence"
)

// envWriter makes the test binary a process that appends to the store in that directory and says on
// its standard output what was acknowledged, until it is killed.
const envWriter = "PEBBLE_TEST_WRITER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(envWriter); dir != "" {
		if err := writeForever(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

func writeForever(dir string) error {
	s, err := Open(dir, testOptions(nil))
	if err != nil {
		return err
	}
	errs := make(chan error)
	for i := range 16 {
		id := fmt.Sprint("customer-", i)
		last, err := s.ReadRecords(context.Background(), testPartition(id), 0, 1<<20)
		if err != nil {
			return err
		}
		go func() {
			for sequence := uint64(len(last)) + 1; ; sequence++ {
				if err := <-startAppend(s, testMutation(id, sequence)); err != nil {
					errs <- err
					return
				}
				fmt.Println(i, sequence) // one write, so lines stay whole
			}
		}()
	}
	return <-errs
}

// TestKilledProcess kills a process that writes, with the signal that nothing can handle.
func TestKilledProcess(t *testing.T) {
	dir := t.TempDir()
	acked := make([]uint64, 16)
	for round := range 5 {
		cmd := exec.Command(os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), envWriter+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for heard := 0; lines.Scan(); heard++ { // what was said before the kill is read to the end
			if heard == 0 {
				if _, err := Open(dir, testOptions(nil)); !errors.Is(err, persistence.ErrLocked) {
					t.Errorf("Open beside a living process: %v, want ErrLocked", err)
				}
			}
			if heard == 50*(round+1) {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
			writer, sequence, _ := strings.Cut(lines.Text(), " ")
			i, err1 := strconv.Atoi(writer)
			n, err2 := strconv.ParseUint(sequence, 10, 64)
			if err := errors.Join(err1, err2); err != nil {
				t.Fatal(err)
			}
			acked[i] = n
		}
		if err := cmd.Wait(); err == nil {
			t.Fatal("the process ended by itself")
		}
		wantAcked(t, dir, acked)
	}
}

func wantAcked(t *testing.T, dir string, acked []uint64) {
	t.Helper()
	s, err := Open(dir, testOptions(nil))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i, want := range acked {
		got, err := s.ReadRecords(t.Context(), testPartition(fmt.Sprint("customer-", i)), 0, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if n := uint64(len(got)); n < want || n > want+1 || n > 0 && got[n-1].Sequence != n {
			t.Errorf("customer %d: acknowledged up to %d, %d records are there", i, want, n)
		}
	}
}
