// Package deploy tests the Helm chart of deploy/helm without a cluster: every manifest that it renders is decoded
// strictly into the types of Kubernetes, prometheus-operator and cert-manager, and deploy/kubernetes has what it
// renders. It is a module of its own, since Helm and Kubernetes need much that licensed does not.
package deploy

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write deploy/kubernetes")

const root = "../.."

// everything are values that switch on all that is optional.
const everything = `
store:
  url: cassandra://main-superuser@main-dc1-service.k8ssandra.svc/licensed?dc=dc1
  passwordSecret: {name: main-superuser, key: password}
  applySchema: true
policy: "version: v1\n"
settings: {lease-ttl: 5s}
certManager: {enabled: true, issuerRef: {name: ca}, dnsNames: [licences.example.org]}
networkPolicy: {apiFrom: [{podSelector: {matchLabels: {app: shop}}}]}
monitoring:
  serviceMonitor: true
  rules: true
  dashboard: true
  adminURL: https://licences.example.org:8081
  grafanaURL: https://grafana.example.org
  labels: {release: prometheus}
imagePullSecrets: [{name: registry}]
gateways: {tolerations: [{operator: Exists}], nodeSelector: {pool: edge}, service: {annotations: {a: b}}}
`

// render returns the manifests of the chart, one document each, in the order of file names.
func render(t *testing.T, values string) []string {
	t.Helper()
	chart, err := loader.Load(filepath.Join(root, "deploy/helm"))
	if err != nil {
		t.Fatal(err)
	}
	v, err := chartutil.ReadValues([]byte(values))
	if err != nil {
		t.Fatal(err)
	}
	all, err := chartutil.ToRenderValues(chart, v,
		chartutil.ReleaseOptions{Name: "licensed", Namespace: "licensed", IsInstall: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	files, err := engine.Engine{Strict: true}.Render(chart, all)
	if err != nil {
		t.Fatal(err)
	}
	var names, documents []string
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if !strings.HasSuffix(name, ".yaml") {
			continue
		}
		for _, document := range regexp.MustCompile(`(?m)^---$`).Split(files[name], -1) {
			var any map[string]any
			if err := yaml.UnmarshalStrict([]byte(document), &any); err != nil {
				t.Fatalf("%s: %v\n%s", name, err, document)
			}
			if len(any) > 0 {
				documents = append(documents, strings.TrimSpace(document)+"\n")
			}
		}
	}
	return documents
}

// kinds are the types that a manifest is decoded into.
var kinds = map[string]func() any{
	"apps/v1 StatefulSet":                     func() any { return &appsv1.StatefulSet{} },
	"apps/v1 Deployment":                      func() any { return &appsv1.Deployment{} },
	"batch/v1 Job":                            func() any { return &batchv1.Job{} },
	"v1 Service":                              func() any { return &corev1.Service{} },
	"v1 ServiceAccount":                       func() any { return &corev1.ServiceAccount{} },
	"v1 ConfigMap":                            func() any { return &corev1.ConfigMap{} },
	"networking.k8s.io/v1 NetworkPolicy":      func() any { return &networkingv1.NetworkPolicy{} },
	"policy/v1 PodDisruptionBudget":           func() any { return &policyv1.PodDisruptionBudget{} },
	"monitoring.coreos.com/v1 ServiceMonitor": func() any { return &monitoringv1.ServiceMonitor{} },
	"monitoring.coreos.com/v1 PrometheusRule": func() any { return &monitoringv1.PrometheusRule{} },
	"cert-manager.io/v1 Certificate":          func() any { return &certificate{} },
}

// certificate has the fields of cert-manager's Certificate that the chart uses.
type certificate struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		SecretName string                             `json:"secretName"`
		IssuerRef  struct{ Name, Kind, Group string } `json:"issuerRef"`
		Usages     []string                           `json:"usages"`
		PrivateKey struct {
			Algorithm      string `json:"algorithm"`
			Size           int    `json:"size"`
			RotationPolicy string `json:"rotationPolicy"`
		} `json:"privateKey"`
		URIs     []string `json:"uris"`
		DNSNames []string `json:"dnsNames"`
	} `json:"spec"`
}

// decode decodes manifests strictly: a field that Kubernetes does not know, or that is present twice, is an error.
func decode(t *testing.T, documents []string) map[string]any {
	t.Helper()
	objects := map[string]any{}
	for _, document := range documents {
		var meta struct {
			metav1.TypeMeta `json:",inline"`
			Metadata        metav1.ObjectMeta `json:"metadata"`
		}
		if err := yaml.Unmarshal([]byte(document), &meta); err != nil {
			t.Fatal(err)
		}
		kind := meta.APIVersion + " " + meta.Kind
		if kinds[kind] == nil {
			t.Errorf("no type is known for %s", kind)
			continue
		}
		object := kinds[kind]()
		if err := yaml.UnmarshalStrict([]byte(document), object, yaml.DisallowUnknownFields); err != nil {
			t.Errorf("%s %s: %v\n%s", kind, meta.Metadata.Name, err, document)
		}
		key := meta.Kind + "/" + meta.Metadata.Name
		if objects[key] != nil {
			t.Errorf("%s is rendered twice", key)
		}
		objects[key] = object
	}
	return objects
}

// TestTypes decodes the chart with its defaults, and with all that is optional.
func TestTypes(t *testing.T) {
	if n := len(decode(t, render(t, ""))); n != 10 {
		t.Errorf("%d objects by default", n)
	}
	objects := decode(t, render(t, everything))
	for _, want := range []string{
		"Job/licensed-schema", "Certificate/licensed-node", "Certificate/licensed-gateway", "ServiceMonitor/licensed",
		"PrometheusRule/licensed", "ConfigMap/licensed-dashboard",
	} {
		if objects[want] == nil {
			t.Errorf("%s is missing", want)
		}
	}
	rule := objects["PrometheusRule/licensed"].(*monitoringv1.PrometheusRule)
	for _, r := range rule.Spec.Groups[0].Rules {
		if u := r.Annotations["runbook_url"]; !strings.HasPrefix(u, "https://licences.example.org:8081/") {
			t.Errorf("%s: runbook_url %q", r.Alert, u)
		}
		if u := r.Annotations["dashboard_url"]; !strings.HasPrefix(u, "https://grafana.example.org/") {
			t.Errorf("%s: dashboard_url %q", r.Alert, u)
		}
	}
}

// TestStrict: the decoding notices a field that does not exist.
func TestStrict(t *testing.T) {
	err := yaml.UnmarshalStrict([]byte("spec: {replica: 3}"), &appsv1.Deployment{}, yaml.DisallowUnknownFields)
	if err == nil {
		t.Error("a misspelled field is accepted")
	}
}

// TestPods: what a pod needs to leave in good order, to be placed and to be confined.
func TestPods(t *testing.T) {
	objects := decode(t, render(t, everything))
	pods := map[string]corev1.PodTemplateSpec{
		"node":    objects["StatefulSet/licensed-node"].(*appsv1.StatefulSet).Spec.Template,
		"gateway": objects["Deployment/licensed-gateway"].(*appsv1.Deployment).Spec.Template,
	}
	for role, pod := range pods {
		c, spec := pod.Spec.Containers[0], pod.Spec
		const drain = 30 // --drain-timeout by default
		if p := c.Lifecycle.PreStop; p == nil || p.Sleep == nil ||
			*spec.TerminationGracePeriodSeconds < drain+p.Sleep.Seconds+10 {
			t.Errorf("%s: the pod is killed before it has drained", role)
		}
		if len(spec.TopologySpreadConstraints) != 2 || len(c.Args) == 0 || c.Args[0] != role {
			t.Errorf("%s: spread %d, args %q", role, len(spec.TopologySpreadConstraints), c.Args)
		}
		for _, s := range spec.TopologySpreadConstraints {
			if s.LabelSelector.MatchLabels["app.kubernetes.io/component"] != role {
				t.Errorf("%s is spread with pods of other roles", role)
			}
		}
		s := c.SecurityContext
		if !*s.ReadOnlyRootFilesystem || !*s.RunAsNonRoot || *s.AllowPrivilegeEscalation ||
			!slices.Contains(s.Capabilities.Drop, "ALL") || s.SeccompProfile.Type != "RuntimeDefault" ||
			*spec.AutomountServiceAccountToken {
			t.Errorf("%s: security context %+v", role, s)
		}
		if c.Resources.Limits.Memory().IsZero() || c.Resources.Requests.Cpu().IsZero() {
			t.Errorf("%s has no resources", role)
		}
		if strings.HasSuffix(c.Image, ":latest") || !strings.Contains(c.Image, ":") {
			t.Errorf("%s: image %s has no fixed tag", role, c.Image)
		}
		for _, p := range []*corev1.Probe{c.ReadinessProbe, c.LivenessProbe, c.StartupProbe} {
			if p == nil || p.HTTPGet.Scheme != "HTTPS" {
				t.Errorf("%s: probe %+v", role, p)
			}
		}
		mounted := map[string]bool{}
		for _, m := range c.VolumeMounts {
			mounted[m.Name] = true
		}
		for _, v := range spec.Volumes {
			if !mounted[v.Name] {
				t.Errorf("%s: volume %s is not mounted", role, v.Name)
			}
		}
		if len(mounted) != len(spec.Volumes) {
			t.Errorf("%s mounts volumes that do not exist", role)
		}
	}
	headless := objects["Service/licensed-nodes"].(*corev1.Service).Spec
	if headless.ClusterIP != "None" || !headless.PublishNotReadyAddresses {
		t.Error("members cannot find each other before they are ready")
	}
}

// TestManifestsAreFresh compares deploy/kubernetes with what the chart renders.
func TestManifestsAreFresh(t *testing.T) {
	want := map[string][]byte{
		"licensed.yaml":   manifest(render(t, "")),
		"monitoring.yaml": manifest(kindsOf(render(t, everything), "ServiceMonitor", "PrometheusRule")),
	}
	for name, content := range want {
		file := filepath.Join(root, "deploy/kubernetes", name)
		if *update {
			if err := os.WriteFile(file, content, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, content) {
			t.Errorf("deploy/kubernetes/%s is not what the chart renders (%v): run make chart", name, err)
		}
	}
}

func kindsOf(documents []string, kinds ...string) []string {
	return slices.DeleteFunc(documents, func(d string) bool {
		return !slices.ContainsFunc(kinds, func(k string) bool { return strings.Contains(d, "\nkind: "+k+"\n") })
	})
}

func manifest(documents []string) []byte {
	var b bytes.Buffer
	b.WriteString("# Rendered from deploy/helm: make chart\n")
	for _, d := range documents {
		fmt.Fprintf(&b, "---\n%s", d)
	}
	return b.Bytes()
}
