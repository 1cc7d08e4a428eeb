package deploy

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// TestCages puts a process into a cage and out again.
func TestCages(t *testing.T) {
	c, err := findCages()
	if err != nil {
		t.Skip("no rights for control groups here: ", err)
	}
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // It was killed.
	}()
	groups := func() string {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/cgroup")
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	dir := c.path("test")
	if err := c.make(dir, 64<<20); err != nil {
		t.Fatal(err)
	}
	if err := move(dir, cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(groups(), "chaos-") {
		t.Errorf("not in the cage: %s", groups())
	}
	if err := move(c.home, cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(groups(), "chaos-") {
		t.Errorf("still in the cage: %s", groups())
	}
	if err := os.Remove(dir); err != nil {
		t.Error(err)
	}
}
