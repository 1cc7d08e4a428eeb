package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// built builds the programs of cmd into a directory.
func built(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", dir, "./cmd/...")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return dir
}

// mounted is a container of the chart with its files in a directory of this machine.
type mounted struct {
	container corev1.Container
	etc       string
}

// mount writes the settings and secrets of a role ("node", "gateway") to a directory, with throw-away certificates and
// tokens of dev. edit are pairs of texts to replace in the settings.
func mount(t *testing.T, programs, dev string, objects map[string]any, role string, edit ...string) mounted {
	t.Helper()
	m := mounted{etc: t.TempDir()}
	for file, content := range objects["ConfigMap/licensed"].(*corev1.ConfigMap).Data {
		write(t, filepath.Join(m.etc, "settings", file), strings.NewReplacer(append(edit, "/etc/licensed", m.etc)...).Replace(content))
	}
	for _, what := range []string{"certs", "tokens"} {
		out, err := exec.Command(filepath.Join(programs, "licensed"), what, "dev", dev, "--if-missing").CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	for to, from := range map[string]string{
		"certificate/tls.crt": role + ".pem", "certificate/tls.key": role + "-key.pem", "certificate/ca.crt": "ca.pem",
		"auth/auth.yaml": "auth.yaml", "gossip/gossip.key": "gossip.key",
	} {
		content, err := os.ReadFile(filepath.Join(dev, from))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(m.etc, to), string(content))
	}
	write(t, filepath.Join(m.etc, "store", "password"), "secret")
	if role == "node" {
		m.container = objects["StatefulSet/licensed-node"].(*appsv1.StatefulSet).Spec.Template.Spec.Containers[0]
	} else {
		m.container = objects["Deployment/licensed-gateway"].(*appsv1.Deployment).Spec.Template.Spec.Containers[0]
	}
	return m
}

// environment returns the variables of the container in a pod of this name and address.
func (m mounted) environment(pod, ip string) []string {
	var all []string
	for _, v := range m.container.Env {
		value := strings.NewReplacer("$(POD_IP)", ip, "/etc/licensed", m.etc).Replace(v.Value)
		if v.ValueFrom != nil {
			value = map[string]string{"metadata.name": pod, "status.podIP": ip}[v.ValueFrom.FieldRef.FieldPath]
		}
		all = append(all, v.Name+"="+value)
	}
	return all
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestSettings gives the rendered settings and variables of both roles to the program, which checks them as it does
// when it starts.
func TestSettings(t *testing.T) {
	programs, dev := built(t), t.TempDir()
	objects := decode(t, render(t, everything))
	for role, want := range map[string]string{"node": "lease-ttl: 5s", "gateway": "store-password-file: "} {
		t.Run(role, func(t *testing.T) {
			m := mount(t, programs, dev, objects, role)
			name := "licensed-" + role + "-0"
			config := strings.Replace(m.container.Args[2], "/etc/licensed", m.etc, 1)
			settings := exec.Command(filepath.Join(programs, "licensed"), "settings", "--config", config)
			settings.Env = m.environment(name, "127.0.0.1")
			out, err := settings.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, words := range []string{want, "name: " + name, "host: 127.0.0.1", "node-sans: "} {
				if !strings.Contains(string(out), words) {
					t.Errorf("the settings do not have %q:\n%s", words, out)
				}
			}
			// The program looks at them: a wrong one is an error.
			settings = exec.Command(settings.Path, settings.Args[1:]...)
			settings.Env = append(m.environment(name, "127.0.0.1"), "LICENSED_LEASE_TTL=soon")
			if err := settings.Run(); err == nil {
				t.Error("a wrong variable is accepted")
			}
		})
	}
}
