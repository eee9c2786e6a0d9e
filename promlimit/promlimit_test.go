package promlimit_test

import (
	"encoding/json"
	"errors"
	"io"
	"iter"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/internal/proof/fixture"
	"github.com/trypema/trypema/internal/proof/must"
	"github.com/trypema/trypema/promlimit"
	"github.com/trypema/trypema/redislimit"
)

// scrape returns what Prometheus gets from an endpoint.
func scrape(t *testing.T, c *promlimit.Collector) map[string]*dto.MetricFamily {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	must.OK(t, registry.Register(c))
	server := httptest.NewServer(promhttp.HandlerFor(registry,
		promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError}))
	defer server.Close()
	answer, err := http.Get(server.URL)
	must.OK(t, err)
	defer answer.Body.Close()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatal(answer.Status, err)
	}
	return families
}

// value returns the metric of a family that has the labels, as "policy provider strategy", and an outcome if
// there is one.
func value(t *testing.T, families map[string]*dto.MetricFamily, name, labels string) float64 {
	t.Helper()
	for _, m := range families[name].GetMetric() {
		values := make([]string, 0, 4)
		for _, want := range []string{"policy", "provider", "strategy", "outcome"} {
			for _, l := range m.GetLabel() {
				if l.GetName() == want {
					values = append(values, l.GetValue())
				}
			}
		}
		if strings.Join(values, " ") == labels {
			return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	t.Errorf("no %s of %s", name, labels)
	return -1
}

// all returns a Collector that observes all providers, each of which has been asked.
func all(t *testing.T) *promlimit.Collector {
	t.Helper()
	c := promlimit.New()
	base := trypema.Options{Observer: c, Name: "api"}
	local := fixture.Local(t, base)
	redis := fixture.Redis(t, fakeredis.New(), redislimit.Options{Options: base, Timeout: time.Minute})
	gone := fakeredis.New()
	gone.Fault = func(string) ([]any, error) { return nil, errors.New("gone") }
	base.Name = "other"
	hybrid := fixture.Hybrid(t, gone, hybridlimit.Options{Options: redislimit.Options{Options: base}})
	for range 25 {
		for _, l := range []trypema.Limiter{local.Absolute(), local.Suppressed(), redis.Absolute(),
			redis.Suppressed(), hybrid.Absolute()} {
			if _, err := l.Allow(t.Context(), "secret-key", 2); err != nil {
				t.Fatal(err)
			}
		}
	}
	local.Absolute().Allow(t.Context(), "secret-key", -1)
	plans := fixture.Policies(t, local,
		trypema.Policy{Name: "free", Limits: []trypema.Limit{trypema.AtMost(2, time.Hour)}})
	plans.Observe(c)
	for range 3 {
		if _, err := plans.Allow(t.Context(), "free", "secret-key"); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func TestScrape(t *testing.T) {
	families := scrape(t, all(t))
	for _, want := range []struct {
		name, labels string
		value        float64
	}{
		{"trypema_decisions_total", "api local absolute allowed", 22}, // 2 of them by a policy
		{"trypema_decisions_total", "api local absolute rejected", 6},
		{"trypema_policy_decisions_total", "free policies absolute allowed", 2},
		{"trypema_policy_decisions_total", "free policies absolute rejected", 1},
		{"trypema_policy_errors_total", "free policies absolute", 0},
		{"trypema_policy_fallback_decisions_total", "free policies absolute", 0},
		{"trypema_decisions_total", "api redis absolute allowed", 20},
		{"trypema_decisions_total", "api redis absolute rejected", 5},
		{"trypema_decisions_total", "other hybrid absolute allowed", 20},
		{"trypema_errors_total", "api local absolute", 1},
		{"trypema_errors_total", "api local suppressed", 0},
		{"trypema_fallback_decisions_total", "api redis absolute", 0},
		{"trypema_fallback_decisions_total", "other hybrid absolute", 25},
		{"trypema_waited_calls_total", "other hybrid absolute", 1},
		{"trypema_redis_outages_total", "other hybrid absolute", 1},
		{"trypema_redis_unreadable_windows_total", "api redis absolute", 0},
		{"trypema_redis_up", "other hybrid absolute", 0},
		{"trypema_redis_up", "api redis absolute", 1},
		{"trypema_decision_duration_seconds", "api redis absolute", 25},
		{"trypema_decision_duration_seconds", "api local absolute", 28},
		{"trypema_keys", "api local absolute", 2},
		{"trypema_active_keys", "api redis absolute", 0},
		{"trypema_leased_budget", "other hybrid suppressed", 0},
		{"trypema_settling_lag_seconds", "other hybrid suppressed", 0},
	} {
		if got := value(t, families, want.name, want.labels); got != want.value {
			t.Errorf("%s of %s is %v, want %v", want.name, want.labels, got, want.value)
		}
	}
	if n := value(t, families, "trypema_decisions_total", "api local suppressed allowed") +
		value(t, families, "trypema_decisions_total", "api local suppressed suppressed"); n != 25 {
		t.Errorf("%v decisions by Suppressed, want 25", n)
	}
	// Each call counts once in the sum over all series, and no histogram is empty.
	sum := 0.
	for _, m := range families["trypema_decisions_total"].GetMetric() {
		sum += m.GetCounter().GetValue()
	}
	if sum != 5*25+3 {
		t.Errorf("the sum of all decisions is %v, want %v", sum, 5*25+3)
	}
	if n := len(families["trypema_decision_duration_seconds"].GetMetric()); n != 5 {
		t.Errorf("%d histograms, want one for each of the 5 limiters that were asked", n)
	}
	for _, m := range families["trypema_decision_duration_seconds"].GetMetric() {
		h := m.GetHistogram()
		if h.GetSampleCount() == 0 || h.GetSampleSum() <= 0 ||
			h.GetBucket()[len(h.GetBucket())-1].GetCumulativeCount() != h.GetSampleCount() {
			t.Errorf("%v", h)
		}
	}
}

// The labels are those that are documented, and no key is the value of one.
func TestNoLabelIsAKey(t *testing.T) {
	metrics := 0
	for name, family := range scrape(t, all(t)) {
		for _, m := range family.GetMetric() {
			metrics++
			for _, l := range m.GetLabel() {
				if !slices.Contains([]string{"policy", "provider", "strategy", "outcome"}, l.GetName()) ||
					strings.Contains(l.GetValue(), "secret") {
					t.Errorf("%s has a label %s = %q", name, l.GetName(), l.GetValue())
				}
			}
		}
	}
	if metrics < 40 {
		t.Errorf("only %d metrics", metrics)
	}
}

func TestTopLimitedOnDemand(t *testing.T) {
	c := all(t)
	for query, status := range map[string]int{"": 200, "?n=1": 200, "?n=0": 200, "?n=-1": 400, "?n=x": 400} {
		w := httptest.NewRecorder()
		c.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/limited"+query, http.NoBody))
		if w.Code != status {
			t.Errorf("%q: %d, want %d", query, w.Code, status)
			continue
		}
		var list []promlimit.Limited
		if err := json.Unmarshal(w.Body.Bytes(), &list); status == 200 &&
			(err != nil || query == "?n=0" && len(list) > 0) {
			t.Errorf("%q: %v, %v", query, list, err)
		}
		want := promlimit.Limited{
			Policy: "api", Provider: "local", Strategy: "absolute", Key: "secret-key", Denied: 5,
		}
		if query == "" && !slices.Contains(list, want) {
			t.Errorf("%v is not among %v", want, list)
		}
	}
}

var metric = regexp.MustCompile(`trypema_\w+`)

// The dashboard asks for what there is, and shows all of it.
func TestDashboard(t *testing.T) {
	file, err := os.Open("dashboard.json")
	must.OK(t, err)
	defer file.Close()
	text, err := io.ReadAll(file)
	must.OK(t, err)
	var dashboard struct {
		Title  string
		Panels []struct {
			Type    string
			Title   string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }
		}
	}
	must.OK(t, json.Unmarshal(text, &dashboard))
	exported := scrape(t, all(t))
	asked := make(map[string]bool)
	for _, p := range dashboard.Panels {
		if p.Title == "" || p.GridPos.W == 0 || p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q is not complete", p.Title)
		}
		for _, target := range p.Targets {
			names := metric.FindAllString(target.Expr, -1)
			if len(names) == 0 {
				t.Errorf("panel %q asks for nothing of ours: %s", p.Title, target.Expr)
			}
			for _, name := range names {
				family := strings.TrimSuffix(name, "_bucket")
				if exported[name] == nil &&
					(exported[family] == nil || exported[family].GetType() != dto.MetricType_HISTOGRAM) {
					t.Errorf("panel %q asks for %s, which there is not", p.Title, name)
				}
				asked[family] = true
			}
		}
	}
	for name := range exported {
		if !asked[name] {
			t.Errorf("nothing shows %s", name)
		}
	}
}

// Policies have counts, and no say about Redis.
func TestPolicies(t *testing.T) {
	c := promlimit.New()
	local := fixture.Local(t, trypema.Options{})
	plans := fixture.Policies(t, local,
		trypema.Policy{Name: "free", Limits: []trypema.Limit{{Rate: trypema.PerHour(2), Window: time.Hour}}})
	plans.Observe(c)
	for range 3 {
		if _, err := plans.Allow(t.Context(), "free", "user:42"); err != nil {
			t.Fatal(err)
		}
	}
	families := scrape(t, c)
	for outcome, want := range map[string]float64{"allowed": 2, "rejected": 1} {
		if got := value(t, families, "trypema_policy_decisions_total", "free policies absolute "+outcome); got != want {
			t.Errorf("%v %s, want %v", got, outcome, want)
		}
	}
	if families["trypema_redis_up"] != nil {
		t.Errorf("%v", families["trypema_redis_up"])
	}
}

// A name that is not UTF-8 is refused by providers of ours. One of somebody else's is made legible, and
// breaks no scrape, nor does a Meter that panics.
func TestNames(t *testing.T) {
	c := promlimit.New()
	_, err := trypema.NewLocal(trypema.Options{Name: "caf\xe9", Observer: c})
	if !errors.Is(err, trypema.ErrInvalidOptions) {
		t.Errorf("NewLocal: %v", err)
	}
	fixture.Local(t, trypema.Options{Name: `a"b\c`, Observer: c})
	top := func(int) iter.Seq2[string, uint64] { return maps.All(map[string]uint64{"k\xff": 3}) }
	one := func() trypema.Stats { return trypema.Stats{Counters: trypema.Counters{Allowed: 1}} }
	for _, name := range []string{"caf\xe9", "caf\xea", "caf\xc3"} {
		c.Observe(trypema.Meter{Policy: name, Provider: "o\xff", Strategy: "\xfe", Read: one, TopLimited: top})
	}
	c.Observe(trypema.Meter{Policy: "broken", Read: func() trypema.Stats { panic("broken") }})
	families := scrape(t, c)
	if n := value(t, families, "trypema_decisions_total", "caf\ufffd o\ufffd \ufffd allowed"); n != 3 {
		t.Errorf("%v decisions under the three names, want 3", n)
	}
	value(t, families, "trypema_decisions_total", `a"b\c local absolute allowed`)
	value(t, families, "trypema_decisions_total", "broken   allowed")
	w := httptest.NewRecorder()
	c.ServeHTTP(w, httptest.NewRequest("GET", "/", http.NoBody))
	if !json.Valid(w.Body.Bytes()) || !strings.Contains(w.Body.String(), `"denied":9`) {
		t.Errorf("%s", w.Body)
	}
}
