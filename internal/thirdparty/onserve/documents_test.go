package onserve

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/must"
)

// TestServeDocument: the configurations in docs/serve.md are taken, and what it says that the program prints
// is printed.
func TestServeDocument(t *testing.T) {
	explore.ReadsRepository()
	data, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "serve.md"))
	must.OK(t, err)
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(data), -1)
	if len(blocks) != 2 {
		t.Fatalf("%d blocks of YAML, want 2", len(blocks))
	}
	for _, b := range blocks {
		accepted(
			t,
			"document.yaml",
			regexp.MustCompile(`(?m)^`+regexp.MustCompile(`^ *`).FindString(b[1])).ReplaceAllString(b[1], ""),
		)
	}
	s := serve(t)
	printed := regexp.MustCompile("(?s)```text\n(.*?)```").FindStringSubmatch(string(data))[1]
	for _, l := range strings.Split(strings.TrimSpace(printed), "\n") {
		if regexp.MustCompile(`127.0.0.1|^$|Try:`).MatchString(l) {
			continue // the ports of a test are others
		}
		if !strings.Contains(s.greeting.String(), l) {
			t.Errorf("it does not print %q", l)
		}
	}
	help := variables(t)
	for _, name := range regexp.MustCompile(`TRYPEMA_\w+`).FindAllString(string(data), -1) {
		if !contains(help, name) {
			t.Errorf("trypema serve does not know %s", name)
		}
	}
}

func contains(all []string, one string) bool {
	for _, s := range all {
		if s == one {
			return true
		}
	}
	return false
}
