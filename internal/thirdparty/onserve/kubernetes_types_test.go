//go:build explore

package onserve

import (
	"os"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"sigs.k8s.io/yaml"

	"github.com/trypema/trypema/internal/proof/must"
)

// TestKubernetesTypes: the manifests, and those that Helm makes, are as the types of Kubernetes say. These
// take longer to compile than everything else of this package, so "make test" does without.
func TestKubernetesTypes(t *testing.T) {
	data, err := os.ReadFile(plain)
	must.OK(t, err)
	typed(t, data)
	rendered(t, typed)
}

func typed(t *testing.T, data []byte) {
	t.Helper()
	for _, document := range documents(data) {
		var h struct{ Kind string }
		must.OK(t, yaml.Unmarshal(document, &h))
		into := map[string]any{
			"ConfigMap": new(corev1.ConfigMap), "Deployment": new(appsv1.Deployment),
			"Service": new(corev1.Service), "PodDisruptionBudget": new(policyv1.PodDisruptionBudget),
			"HorizontalPodAutoscaler": new(autoscalingv2.HorizontalPodAutoscaler),
			"NetworkPolicy":           new(networkingv1.NetworkPolicy),
		}[h.Kind]
		if h.Kind == "ServiceMonitor" {
			continue // a type of Prometheus' operator
		}
		if into == nil {
			t.Errorf("a %s, which is unexpected", h.Kind)
			continue
		}
		if err := yaml.UnmarshalStrict(document, into); err != nil {
			t.Errorf("%s: %v", h.Kind, err)
		}
	}
}
