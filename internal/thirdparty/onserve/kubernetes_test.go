package onserve

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/trypema/trypema/internal/proof/must"
)

// text is a scalar that YAML reads as a string. Kubernetes refuses true or 2 where it asks for one.
type text string

func (s *text) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
		return fmt.Errorf("line %d: %q is not a string", n.Line, n.Value)
	}
	*s = text(n.Value)
	return nil
}

// The types hold the fields of Kubernetes that the manifests use, and no others: a misspelled field is an
// error. TestKubernetesTypes compares the manifests with the types of Kubernetes, in "make test-long".
type (
	labels map[string]text
	meta   struct {
		Name                text
		Labels, Annotations labels
	}
	selector struct {
		MatchLabels labels `yaml:"matchLabels"`
	}
	head struct {
		APIVersion text `yaml:"apiVersion"`
		Kind       text
		Metadata   meta
	}
	configMap struct {
		head `yaml:",inline"`
		Data labels
	}
	deployment struct {
		head `yaml:",inline"`
		Spec struct {
			Replicas int
			Selector selector
			Strategy struct {
				RollingUpdate struct {
					MaxUnavailable int `yaml:"maxUnavailable"`
					MaxSurge       int `yaml:"maxSurge"`
				} `yaml:"rollingUpdate"`
			}
			Template struct {
				Metadata meta
				Spec     pod
			}
		}
	}
	pod struct {
		AutomountServiceAccountToken  bool `yaml:"automountServiceAccountToken"`
		TerminationGracePeriodSeconds int  `yaml:"terminationGracePeriodSeconds"`
		SecurityContext               struct {
			RunAsNonRoot   bool `yaml:"runAsNonRoot"`
			RunAsUser      int  `yaml:"runAsUser"`
			SeccompProfile struct {
				Type text
			} `yaml:"seccompProfile"`
		} `yaml:"securityContext"`
		TopologySpreadConstraints []struct {
			MaxSkew           int      `yaml:"maxSkew"`
			TopologyKey       text     `yaml:"topologyKey"`
			WhenUnsatisfiable text     `yaml:"whenUnsatisfiable"`
			LabelSelector     selector `yaml:"labelSelector"`
		} `yaml:"topologySpreadConstraints"`
		Containers []container
		Volumes    []struct {
			Name      text
			ConfigMap struct {
				Name text
			} `yaml:"configMap"`
			Secret struct {
				SecretName text `yaml:"secretName"`
			}
		}
	}
	container struct {
		Name            text
		Image           text
		ImagePullPolicy text `yaml:"imagePullPolicy"`
		Args            []text
		Env             []struct {
			Name, Value text
			ValueFrom   struct {
				SecretKeyRef struct{ Name, Key text } `yaml:"secretKeyRef"`
			} `yaml:"valueFrom"`
		}
		Ports []struct {
			Name          text
			ContainerPort int `yaml:"containerPort"`
		}
		ReadinessProbe  probe `yaml:"readinessProbe"`
		LivenessProbe   probe `yaml:"livenessProbe"`
		Resources       struct{ Requests, Limits map[string]string }
		SecurityContext struct {
			AllowPrivilegeEscalation *bool `yaml:"allowPrivilegeEscalation"`
			ReadOnlyRootFilesystem   bool  `yaml:"readOnlyRootFilesystem"`
			Capabilities             struct{ Drop []text }
		} `yaml:"securityContext"`
		VolumeMounts []struct {
			Name      text
			MountPath text `yaml:"mountPath"`
			ReadOnly  bool `yaml:"readOnly"`
		} `yaml:"volumeMounts"`
	}
	probe struct {
		HTTPGet          struct{ Path, Port text } `yaml:"httpGet"`
		PeriodSeconds    int                       `yaml:"periodSeconds"`
		FailureThreshold int                       `yaml:"failureThreshold"`
	}
	service struct {
		head `yaml:",inline"`
		Spec struct {
			ClusterIP text `yaml:"clusterIP"`
			Selector  labels
			Ports     []struct {
				Name        text
				Port        int
				TargetPort  text `yaml:"targetPort"`
				AppProtocol text `yaml:"appProtocol"`
			}
		}
	}
	autoscaler struct {
		head `yaml:",inline"`
		Spec struct {
			ScaleTargetRef struct {
				APIVersion text `yaml:"apiVersion"`
				Kind, Name text
			} `yaml:"scaleTargetRef"`
			MinReplicas int `yaml:"minReplicas"`
			MaxReplicas int `yaml:"maxReplicas"`
			Metrics     []struct {
				Type     text
				Resource struct {
					Name   text
					Target struct {
						Type               text
						AverageUtilization int `yaml:"averageUtilization"`
					}
				}
			}
		}
	}
	disruptionBudget struct {
		head `yaml:",inline"`
		Spec struct {
			MinAvailable int `yaml:"minAvailable"`
			Selector     selector
		}
	}
	networkPolicy struct {
		head `yaml:",inline"`
		Spec struct {
			PodSelector selector `yaml:"podSelector"`
			PolicyTypes []text   `yaml:"policyTypes"`
			Ingress     []struct {
				From []struct {
					PodSelector *selector `yaml:"podSelector"`
				}
				Ports []struct{ Port text }
			}
			Egress []struct {
				Ports []struct {
					Port     int
					Protocol text
				}
			}
		}
	}
	serviceMonitor struct { // of Prometheus' operator
		head `yaml:",inline"`
		Spec struct {
			Selector  selector
			Endpoints []struct{ Port text }
		}
	}
)

// apiVersions holds the version of each kind.
var apiVersions = map[text]text{
	"ConfigMap": "v1", "Deployment": "apps/v1", "Service": "v1", "HorizontalPodAutoscaler": "autoscaling/v2",
	"PodDisruptionBudget": "policy/v1", "NetworkPolicy": "networking.k8s.io/v1",
	"ServiceMonitor": "monitoring.coreos.com/v1",
}

// plain is the manifest that is applied without Helm.
var plain = filepath.Join(deploy, "kubernetes", "trypema.yaml")

// rendered runs a test on what Helm makes of the chart, with different values.
func rendered(t *testing.T, test func(*testing.T, []byte)) {
	t.Run("Helm", func(t *testing.T) {
		helm, err := exec.LookPath("helm")
		if err != nil {
			t.Skip("helm is missing; the chart is not rendered")
		}
		chart := filepath.Join(deploy, "helm", "trypema")
		for _, args := range [][]string{
			nil,
			{"--set", "redis.url=redis://redis:6379,autoscaling.enabled=true,tokens.secret=tokens," +
				"env.TRYPEMA_SHADOW=true"},
			{"--set", "redis.secret.name=redis,serviceMonitor.enabled=true"},
		} {
			lint := append([]string{"lint", "--strict", chart}, args...)
			if out, err := exec.CommandContext(t.Context(), helm, lint...).CombinedOutput(); err != nil {
				t.Fatalf("helm %s: %v: %s", lint, err, out)
			}
			template := append([]string{"template", "limits", chart}, args...)
			out, err := exec.CommandContext(t.Context(), helm, template...).Output()
			must.OK(t, err)
			test(t, out)
		}
	})
}

// TestKubernetes: the manifests, and those that Helm makes, have no unknown field, and fit together.
func TestKubernetes(t *testing.T) {
	data, err := os.ReadFile(plain)
	must.OK(t, err)
	manifests(t, data)
	rendered(t, manifests)
}

// documents splits YAML. It leaves out documents that hold nothing, which Helm may write.
func documents(data []byte) (all [][]byte) {
	for _, d := range bytes.Split(data, []byte("\n---\n")) {
		if bytes.Contains(d, []byte("kind:")) {
			all = append(all, d)
		}
	}
	return all
}

// manifests checks documents of Kubernetes.
func manifests(t *testing.T, data []byte) {
	t.Helper()
	known := variables(t)
	var d deployment
	var configs []configMap
	var services []service
	kinds := make(map[text]int)
	for _, document := range documents(data) {
		var h head
		must.OK(t, yaml.Load(document, &h))
		if want := apiVersions[h.Kind]; h.APIVersion != want {
			t.Errorf("%s: apiVersion is %q, want %q", h.Kind, h.APIVersion, want)
		}
		if h.Metadata.Name == "" {
			t.Errorf("a %s has no name", h.Kind)
		}
		var into any
		switch h.Kind {
		case "ConfigMap":
			configs = append(configs, configMap{})
			into = &configs[len(configs)-1]
		case "Deployment":
			into = &d
		case "Service":
			services = append(services, service{})
			into = &services[len(services)-1]
		case "HorizontalPodAutoscaler":
			into = new(autoscaler)
		case "PodDisruptionBudget":
			into = new(disruptionBudget)
		case "NetworkPolicy":
			into = new(networkPolicy)
		case "ServiceMonitor":
			into = new(serviceMonitor)
		default:
			t.Errorf("a %s, which is unexpected", h.Kind)
			continue
		}
		kinds[h.Kind]++
		if err := yaml.Load(document, into, yaml.WithKnownFields()); err != nil {
			t.Errorf("%s: %v", h.Kind, err)
		}
	}
	for _, kind := range []text{"ConfigMap", "Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"} {
		if kinds[kind] == 0 {
			t.Errorf("there is no %s", kind)
		}
	}
	for _, c := range configs {
		for name, text := range c.Data {
			accepted(t, name, string(text))
		}
	}
	pod := d.Spec.Template
	if len(d.Spec.Selector.MatchLabels) == 0 || len(pod.Spec.Containers) != 1 {
		t.Fatalf("the deployment selects %v, and has %d containers, want 1", d.Spec.Selector.MatchLabels,
			len(pod.Spec.Containers))
	}
	for k, v := range d.Spec.Selector.MatchLabels {
		if pod.Metadata.Labels[k] != v {
			t.Errorf("the pods have no label %s: %s", k, v)
		}
	}
	c := pod.Spec.Containers[0]
	ports := make(map[text]int)
	for _, p := range c.Ports {
		ports[p.Name] = p.ContainerPort
	}
	for _, s := range services {
		for k, v := range s.Spec.Selector {
			if pod.Metadata.Labels[k] != v {
				t.Errorf("service %s selects %s: %s, which the pods do not have", s.Metadata.Name, k, v)
			}
		}
		for _, p := range s.Spec.Ports {
			if port := ports[p.TargetPort]; port == 0 || port != p.Port {
				t.Errorf("service %s: port %d goes to %s of %v", s.Metadata.Name, p.Port, p.TargetPort, ports)
			}
		}
	}
	for _, probe := range []probe{c.ReadinessProbe, c.LivenessProbe} {
		if ports[probe.HTTPGet.Port] == 0 {
			t.Errorf("a probe of port %q", probe.HTTPGet.Port)
		}
	}
	drain := text("")
	for _, v := range c.Env {
		if !slices.Contains(known, string(v.Name)) {
			t.Errorf("trypema serve does not know %s", v.Name)
		}
		if v.Name == "TRYPEMA_DRAIN" {
			drain = v.Value
		}
	}
	if drain != "15s" || pod.Spec.TerminationGracePeriodSeconds < 15+10 {
		t.Errorf("it drains for %s, and is killed after %d s", drain, pod.Spec.TerminationGracePeriodSeconds)
	}
	escalation := c.SecurityContext.AllowPrivilegeEscalation
	if !pod.Spec.SecurityContext.RunAsNonRoot || !c.SecurityContext.ReadOnlyRootFilesystem ||
		escalation == nil || *escalation {
		t.Error("the container may more than it must")
	}
}
