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

// TestCageBites lets a process take more than it may have: the kernel kills it, and the cage reports it.
func TestCageBites(t *testing.T) {
	c, err := findCages()
	if err != nil {
		t.Skip("no rights for control groups here: ", err)
	}
	dir := c.path("bites")
	if err := c.make(dir, 4<<20); err != nil {
		t.Fatal(err)
	}
	// tail keeps all of a line that never ends.
	cmd := exec.Command("sh", "-c", "read go; head -c 64M /dev/zero | tail")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if hits, kills, err := c.met(dir); err != nil || hits != 0 || kills != 0 {
		t.Errorf("before: %d hits, %d kills, %v", hits, kills, err)
	}
	moved := move(dir, cmd.Process.Pid)
	if _, err := in.Write([]byte("go\n")); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // The kernel kills a part of it.
	if moved != nil {
		t.Fatal(moved)
	}
	if hits, kills, err := c.met(dir); err != nil || hits == 0 || kills == 0 {
		t.Errorf("after: %d hits, %d kills, %v", hits, kills, err)
	}
	if err := os.Remove(dir); err != nil {
		t.Error(err)
	}
}

// TestNoCages says why where control groups are not to be had.
func TestNoCages(t *testing.T) {
	root := t.TempDir()
	for own, says := range map[string]string{
		"": "no control group", "0::/\n": "no control group", "nonsense\n7:cpu:/x\n": "no control group",
		"4:memory:/x\n0::/\n": "memory/x", "0::/a/b\n": root + "/a/chaos-",
	} {
		if c, err := findCagesIn(own, root); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q gives %v, %v, want %q", own, c, err, says)
		}
	}
	// A directory that can be written but is no control group has no file for a limit.
	if err := os.MkdirAll(root+"/memory/x", 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := findCagesIn("4:memory:/x\n", root); err == nil ||
		!strings.Contains(err.Error(), "memory.limit_in_bytes") {
		t.Errorf("a directory of files passes for a control group: %v", err)
	}
}

// TestReadGroup reads the files of both versions.
func TestReadGroup(t *testing.T) {
	path := t.TempDir() + "/file"
	for _, c := range []struct {
		text, word string
		want       int
		ok         bool
	}{
		{"17\n", "", 17, true},
		{"oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "oom_kill", 3, true},
		{"low 0\nhigh 0\nmax 12\noom 4\noom_kill 1\n", "max", 12, true},
		{"low 0\n", "max", 0, false},
		{"max many\n", "max", 0, false},
		{"", "", 0, false},
	} {
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if n, err := readGroup(path, c.word); n != c.want || (err == nil) != c.ok {
			t.Errorf("%q %q gives %d, %v", c.text, c.word, n, err)
		}
	}
}
