package metrics

import (
	"strings"
	"testing"

	"github.com/trypema/trypema"
)

// A metric has a name, a unit and a sentence that says what it is; those of one name follow each other, and
// agree.
func TestAll(t *testing.T) {
	seen := map[string]int{}
	for i, m := range append(All, Duration) {
		if m.Name == "" || m.Unit == "" || !strings.HasSuffix(m.Help, ".") {
			t.Errorf("%+v is not described", m)
		}
		if before, ok := seen[m.Name]; ok {
			if a := All[before]; before != i-1 || a.Help != m.Help || a.Unit != m.Unit ||
				a.Counter != m.Counter || a.Outcome == "" {
				t.Errorf("%q at %d and %d do not agree", m.Name, before, i)
			}
		}
		seen[m.Name] = i
	}
}

// Each meter shows what its provider has, and one outcome of denials.
func TestRead(t *testing.T) {
	for provider, want := range map[string]int{"local": 4, "policies": 4, "redis": 9, "hybrid": 12} {
		for _, strategy := range []string{"absolute", "suppressed"} {
			n, stats := 0, trypema.Stats{Counters: trypema.Counters{Allowed: 7, Rejected: 3, Suppressed: 2}}
			for i, value := range Read(&trypema.Meter{Provider: provider, Strategy: strategy}, &stats) {
				n++
				counts := map[string]float64{"allowed": 7, "rejected": 3, "suppressed": 2}
				if value != counts[All[i].Outcome] && All[i].Outcome != "" {
					t.Errorf("%s %s: %v %s", provider, strategy, value, All[i].Outcome)
				}
				if All[i].Outcome == map[string]string{"absolute": "suppressed", "suppressed": "rejected"}[strategy] {
					t.Errorf("%s %s shows %s", provider, strategy, All[i].Outcome)
				}
			}
			if n != want {
				t.Errorf("%s %s: %d metrics, want %d", provider, strategy, n, want)
			}
		}
	}
}
