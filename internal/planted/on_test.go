//go:build plantedbugs

package planted

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// child tells the test that it is the process that another one started to plant a bug in it.
const child = "LICENSED_PLANTED_CHILD"

func TestBug(t *testing.T) {
	if os.Getenv(child) != "" {
		if Bug(ForgetHorizon) || !Bug(ForgetWindow) || !Bug(ForgetWindow) {
			t.Error("another bug is planted than the one that was chosen")
		}
		if Former("a", 1) != 1 || Former("b", 2) != 2 || Former("a", 3) != 1 {
			t.Error("a former value is wrong")
		}
		return
	}
	if Bug(ForgetWindow) {
		t.Error("a bug is planted that was not chosen")
	}
	out, err := start(Bugs[ForgetWindow].Name)
	if n := strings.Count(out, Met+Bugs[ForgetWindow].Name+"\n"); err != nil || n != 1 {
		t.Errorf("the process with a bug ended with %v and says %d times that it met it:\n%s", err, n, out)
	}
	out, err = start("no such bug")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || !strings.Contains(out, `"no such bug"`) {
		t.Errorf("the process with an unknown bug ended with %v:\n%s", err, out)
	}
}

// start runs this test in another process with a bug.
func start(bug string) (output string, err error) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestBug$")
	cmd.Env = append(os.Environ(), child+"=1", Variable+"="+bug)
	out, err := cmd.CombinedOutput()
	return string(out), err
}
