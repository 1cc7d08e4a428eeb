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

// TestSettings gives the rendered settings and variables of both roles to the program, which checks them as it does
// when it starts.
func TestSettings(t *testing.T) {
	program := filepath.Join(t.TempDir(), "licensed")
	build := exec.Command("go", "build", "-o", program, "./cmd/licensed")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	objects := decode(t, render(t, everything))
	for name, want := range map[string]string{
		"licensed-node": "lease-ttl: 5s", "licensed-gateway": "store-password-file: ",
	} {
		t.Run(name, func(t *testing.T) {
			etc := t.TempDir()
			files := objects["ConfigMap/licensed"].(*corev1.ConfigMap).Data
			for file, content := range files {
				path := filepath.Join(etc, "settings", file)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				content = strings.ReplaceAll(content, "/etc/licensed", etc)
				if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			secrets(t, program, etc)
			var c corev1.Container
			if name == "licensed-node" {
				c = objects["StatefulSet/"+name].(*appsv1.StatefulSet).Spec.Template.Spec.Containers[0]
			} else {
				c = objects["Deployment/"+name].(*appsv1.Deployment).Spec.Template.Spec.Containers[0]
			}
			settings := exec.Command(program, "settings", "--config", strings.Replace(c.Args[2], "/etc/licensed", etc, 1))
			for _, v := range c.Env {
				value := strings.NewReplacer("$(POD_IP)", "127.0.0.1", "/etc/licensed", etc).Replace(v.Value)
				if v.ValueFrom != nil {
					value = map[string]string{"metadata.name": name + "-0", "status.podIP": "127.0.0.1"}[v.ValueFrom.
						FieldRef.FieldPath]
				}
				settings.Env = append(settings.Env, v.Name+"="+value)
			}
			out, err := settings.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, words := range []string{want, "name: " + name + "-0", "host: 127.0.0.1", "node-sans: "} {
				if !strings.Contains(string(out), words) {
					t.Errorf("the settings do not have %q:\n%s", words, out)
				}
			}
			// The program looks at them: a wrong one is an error.
			settings = exec.Command(program, settings.Args[1:]...)
			settings.Env = append(settings.Env, "LICENSED_LEASE_TTL=soon")
			if err := settings.Run(); err == nil {
				t.Error("a wrong variable is accepted")
			}
		})
	}
}

// secrets writes what the chart expects in secrets.
func secrets(t *testing.T, program, etc string) {
	t.Helper()
	dev := t.TempDir()
	for _, what := range []string{"certs", "tokens"} {
		if out, err := exec.Command(program, what, "dev", dev).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	if err := os.WriteFile(filepath.Join(dev, "password"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for to, from := range map[string]string{
		"certificate/tls.crt": "server.pem", "certificate/tls.key": "server-key.pem", "certificate/ca.crt": "ca.pem",
		"auth/auth.yaml": "auth.yaml", "gossip/gossip.key": "gossip.key", "store/password": "password",
	} {
		to = filepath.Join(etc, to)
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dev, from), to); err != nil {
			t.Fatal(err)
		}
	}
}
