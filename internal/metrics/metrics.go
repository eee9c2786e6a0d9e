// Package metrics is the one list of the metrics that promlimit and otellimit export.
package metrics

import (
	"iter"

	"github.com/trypema/trypema"
)

// Metric is a number that is read from the counters of a limiter.
type Metric struct {
	Name    string // without "trypema" before it; parts are separated by dots
	Unit    string // in UCUM, as OpenTelemetry wants it
	Help    string
	Counter bool // it only grows; otherwise it is a gauge

	// Outcome is how the calls that it counts were decided. Metrics of one name differ in it.
	Outcome string

	value func(*trypema.Stats) float64
	shows func(provider, strategy string) bool
}

// Duration is the histogram of how long calls took, which is no single number.
var Duration = Metric{
	Name: "decision.duration", Unit: "s", Counter: true,
	Help: "Duration of calls. Redis: all calls; Local and Hybrid: a sample.",
}

// Policies are not among the others, but have metrics of their own: their provider counts the same calls, so
// that a sum over both would count them twice.
func policies(provider, _ string) bool     { return provider == "policies" }
func each(provider, _ string) bool         { return provider != "policies" }
func remote(provider, _ string) bool       { return provider == "redis" || provider == "hybrid" }
func hybrid(provider, _ string) bool       { return provider == "hybrid" }
func bySuppressed(_, strategy string) bool { return strategy == "suppressed" }
func byAbsolute(_, strategy string) bool   { return strategy != "suppressed" }

func both(a, b func(string, string) bool) func(string, string) bool {
	return func(provider, strategy string) bool { return a(provider, strategy) && b(provider, strategy) }
}

func allowed(s *trypema.Stats) float64    { return float64(s.Allowed) }
func suppressed(s *trypema.Stats) float64 { return float64(s.Suppressed) }
func rejected(s *trypema.Stats) float64   { return float64(s.Rejected) }
func errors(s *trypema.Stats) float64     { return float64(s.Errors) }
func fallbacks(s *trypema.Stats) float64  { return float64(s.Fallbacks) }

const (
	decisions     = "decisions"
	decisionsHelp = "Number of calls that were decided, by outcome."

	ofPolicies     = "policy.decisions"
	ofPoliciesHelp = "Number of calls by policies that were decided; their provider counts them, too."
)

// All are the metrics but Duration. Those of one name follow each other.
var All = []Metric{
	{decisions, "{call}", decisionsHelp, true, "allowed", allowed, each},
	{decisions, "{call}", decisionsHelp, true, "suppressed", suppressed, both(each, bySuppressed)},
	{decisions, "{call}", decisionsHelp, true, "rejected", rejected, both(each, byAbsolute)},
	{ofPolicies, "{call}", ofPoliciesHelp, true, "allowed", allowed, policies},
	{ofPolicies, "{call}", ofPoliciesHelp, true, "suppressed", suppressed, both(policies, bySuppressed)},
	{ofPolicies, "{call}", ofPoliciesHelp, true, "rejected", rejected, both(policies, byAbsolute)},
	{"errors", "{call}", "Number of calls that got an error and no decision.", true, "", errors, each},
	{
		"policy.errors", "{call}", "Number of calls by policies that got an error and no decision.",
		true, "", errors, policies,
	},
	{
		"fallback_decisions", "{call}",
		"Number of calls that the failure policy decided, because Redis was unavailable.",
		true, "", fallbacks, remote,
	},
	{
		"policy.fallback_decisions", "{call}", "Number of calls by policies that the failure policy decided.",
		true, "", fallbacks, policies,
	},
	{
		"waited_calls", "{call}", "Number of calls to Hybrid that waited for Redis, because their key had no lease.",
		true, "", func(s *trypema.Stats) float64 { return float64(s.Waited) }, hybrid,
	},
	{
		"redis.outages", "{outage}", "Number of times the circuit breaker opened.",
		true, "", func(s *trypema.Stats) float64 { return float64(s.Outages) }, remote,
	},
	{
		"redis.unreadable_windows", "{window}",
		"Number of windows in Redis that could not be read and were started again.",
		true, "", func(s *trypema.Stats) float64 { return float64(s.Unreadable) }, remote,
	},
	{
		"redis.up", "1", "Whether Redis is available (1), or the circuit breaker is open (0).",
		false, "", func(s *trypema.Stats) float64 {
			if s.RedisErr != nil {
				return 0
			}
			return 1
		}, remote,
	},
	{
		"keys", "{key}", "Number of keys held in this process.",
		false, "", func(s *trypema.Stats) float64 { return float64(s.Keys) }, each,
	},
	{
		"active_keys", "{key}", "Number of keys with a call to Redis under way or, for Hybrid, that settle.",
		false, "", func(s *trypema.Stats) float64 { return float64(s.ActiveKeys) }, remote,
	},
	{
		"leased_budget", "1", "Cost that Hybrid has on lease, as the last message of each key left it.",
		false, "", func(s *trypema.Stats) float64 { return float64(s.Leased) }, hybrid,
	},
	{
		"settling_lag", "s", "How far Hybrid is behind with settling.",
		false, "", func(s *trypema.Stats) float64 { return s.SettlingLag.Seconds() }, hybrid,
	},
}

// Read yields the place in All of each metric that a meter has, and its value.
func Read(m *trypema.Meter, s *trypema.Stats) iter.Seq2[int, float64] {
	return func(yield func(int, float64) bool) {
		for i := range All {
			if All[i].shows(m.Provider, m.Strategy) && !yield(i, All[i].value(s)) {
				return
			}
		}
	}
}
