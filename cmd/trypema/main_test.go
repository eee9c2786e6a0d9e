package main

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/trypema/trypema/internal/cli"
	"github.com/trypema/trypema/internal/cli/clitest"
	"github.com/trypema/trypema/internal/proof/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

func TestWrongFlags(t *testing.T) {
	clitest.Refuses(t, program, []clitest.Refusal{
		{"demo --window 0s", "--window is 0s; it must be at least 1ms"},
		{"demo --window -5s", "--window is -5s; it must be at least 1ms"},
		{"demo --window abc", `--window is "abc"; it must be a duration such as 500ms, 10s or 1m`},
		{"demo --window 5", `--window is "5"; it must be a duration such as 500ms, 10s or 1m`},
		{"demo --window", "--window has no value; it must be a duration such as 500ms, 10s or 1m"},
		{"demo --window 1000000h --rate 0.0001", "--window is 1000000h0m0s; it must be from 1ms to 876000h0m0s"},
		{"demo --bucket 0s", "--bucket is 0s; it must be at least 1ms"},
		{"demo --bucket 6s", "--bucket is 6s, longer than --window (5s)"},
		{"demo --hard-limit-factor 0.5", "--hard-limit-factor is 0.5; it must be finite and at least 1"},
		{"demo --hard-limit-factor inf", "--hard-limit-factor is +Inf; it must be finite and at least 1"},
		{"demo --rate x", `--rate is "x"; it must be a number`},
		{"demo --rate 0", "--rate is 0/s; it must be above 0"},
		{"demo --rate NaN", "--rate is NaN; it must be a number of events per second above 0"},
		{"demo --rate 0.1", "--rate is 6/m, less than one event in a window of 5s; " +
			"raise the rate or lengthen --window"},
		{"demo --rate 1e6", "--rate is 1e+06; it must be at most 1000000 events per --window (5s)"},
		{"demo --load 0", "--load is 0; it must be above 0"},
		{"demo --load -1", "--load is -1; it must be above 0"},
		{"demo --load NaN", "--load is NaN; it must be above 0"},
		{"demo --load 1e9", "--load is 1e+09; it must be at most 1000000 requests per second, " +
			"together with --rate (100)"},
		{"demo --duration 0s", "--duration is 0s; it must be above 0s"},
		{"demo --clients 0", "--clients is 0; it must be from 1 to 4096"},
		{"demo --clients 1.5", `--clients is "1.5"; it must be a whole number`},
		{"demo --headless=maybe", `--headless is "maybe"; it must be true or false`},
		{"demo --provider reds", `--provider is "reds"; it must be one of local, redis, hybrid`},
		{"demo --redis redis://u:secret@h",
			"--redis is redis://***@h; it must be left out unless --provider is redis or hybrid"},
		{"demo --client rueidis", "--client is rueidis; it must be left out unless --provider is redis or hybrid"},
		{"demo --provider redis --client jedis", `--client is "jedis"; it must be one of go-redis, rueidis`},
		{"demo --provider redis --redis http://u:secret@h",
			"--redis is http://***@h; it must be a URL that begins with redis:// or rediss://"},
		{"demo --provider redis --redis h:6379",
			"--redis is h:6379; it must be a URL such as redis://user:password@host:6379/0"},
		{"demo --provider redis --redis=",
			"--redis has no value; it must be a URL such as redis://user:password@host:6379/0"},
		{"demo --instances 2", "--instances is 2; it must be left out unless --provider is redis or hybrid"},
		{"demo --provider redis --instances 65", "--instances is 65; it must be from 1 to 64"},
		{"demo --provider hybrid --instances two", `--instances is "two"; it must be a whole number`},
		{"demo --provider hybrid --instances 4 --clients 3",
			"--clients is 3; it must be at least one for each of --instances"},
		{"demo --provider redis --sync-interval 5ms",
			"--sync-interval is 5ms; it must be left out unless --provider is hybrid"},
		{"demo --provider hybrid --sync-interval 6s", "--sync-interval is 6s; it must be from 1ms to --window (5s)"},
		{"demo --provider hybrid --sync-interval 100us",
			"--sync-interval is 100µs; it must be from 1ms to --window (5s)"},
		{"demo --provider hybrid --sync-interval 5",
			`--sync-interval is "5"; it must be a duration such as 500ms, 10s or 1m`},
		{"demo --widow 5s", `unknown flag --widow, did you mean "--window"?`},
		{"demo more", "unexpected argument more"},
		{"dmo", `unexpected argument dmo, did you mean "demo"?`},
		{"--json", "unknown flag --json"},
		{"help dmo", `unexpected argument dmo, did you mean "demo"?`},
		{"sim --instances 0", "--instances is 0; it must be from 1 to 1000"},
		{"check", `expected "<path> ..."`},
		{"completion", `expected "<shell>"`},
		{"completion tcsh", `<shell> must be one of "bash","zsh","fish" but got "tcsh"`},
		{"sim --loss x", `--loss is "x"; it must be a number`},
	})
}

func TestHelp(t *testing.T) {
	clitest.Helps(t, program, []clitest.Output{
		{"", []string{"Usage: trypema <command>", "check", "demo", "serve", "sim"}},
		{"check --help", []string{"file:line:column", "--json", "--merge-domains", "exit status"}},
		{"--help", []string{"Usage: trypema <command>"}},
		{"help", []string{"Usage: trypema <command>"}},
		{"help replay", []string{"Usage: trypema replay", "--reorder=1m", "exit status"}},
		{"demo --help", []string{"--rate", "--load=3", "--headless", "exit status", "--provider=\"local\"",
			"--redis=URL", "miniredis", "hybrid", "--instances", "--sync-interval"}},
		{"serve --help", []string{
			"Configuration\n", "Store\n", "Listeners\n", "Envoy\n", "Forward auth\n", "Security\n", "Operation\n",
			"--resp-client-ca=FILE", "$TRYPEMA_RESP_CLIENT_CA",
		}},
		{"sim --help", []string{"--instances=8", "virtual time", "exit status", "--vary"}},
	})
}

// demoDocument is what a program reads from trypema demo --json.
type demoDocument struct {
	Elapsed     float64 `json:"elapsed_ms"`
	Interrupted bool    `json:"interrupted"`
	Routes      []struct {
		Route    string  `json:"route"`
		Capacity uint64  `json:"capacity"`
		Bound    uint64  `json:"any_window_bound"`
		Fullest  uint64  `json:"largest_any_window"`
		Asked    float64 `json:"asked_per_second"`
		Offered  uint64  `json:"offered"`
		Admitted uint64  `json:"admitted"`
		Declined uint64  `json:"declined"`
		P50      int64   `json:"latency_p50_ns"`
		Max      int64   `json:"latency_max_ns"`
	} `json:"routes"`
	Guarantees []struct {
		Guarantee string `json:"guarantee"`
		Verdict   string `json:"verdict"`
	} `json:"guarantees"`
	OK bool `json:"ok"`
}

// TestDemoJSON: what is said of smoothness depends on the machine. Package demo judges it in virtual time.
func TestDemoJSON(t *testing.T) {
	code, stdout, stderr := clitest.Run(t.Context(), program(),
		strings.Fields("demo --headless --json --rate 50 --load 4 --duration 1200ms")...)
	if code != cli.ExitOK {
		t.Fatalf("exit status %d\n%s\n%s", code, stderr, stdout)
	}
	var d demoDocument
	if err := json.Unmarshal([]byte(stdout), &d); err != nil {
		t.Fatalf("%v in %s", err, stdout)
	}
	if !d.OK || d.Interrupted || d.Elapsed < 1200 || len(d.Routes) != 2 || d.Routes[0].Route != "/absolute" ||
		d.Routes[1].Route != "/suppressed" {
		t.Fatalf("unexpected document: %s", stdout)
	}
	for _, r := range d.Routes {
		if r.Capacity != 15 || r.Asked != 200 { // 50/s in a quarter of the duration
			t.Errorf("%s: capacity %d, want 15; %v/s asked for, want 200", r.Route, r.Capacity, r.Asked)
		}
		if r.Offered != r.Admitted+r.Declined || r.Offered == 0 {
			t.Errorf("%s: %d offered, but %d admitted and %d declined", r.Route, r.Offered, r.Admitted,
				r.Declined)
		}
		if r.Fullest > r.Bound || r.Fullest == 0 {
			t.Errorf("%s: %d in the fullest window, bound %d", r.Route, r.Fullest, r.Bound)
		}
		if r.P50 <= 0 || r.Max < r.P50 {
			t.Errorf("%s: p50 %dns, max %dns", r.Route, r.P50, r.Max)
		}
	}
	for _, g := range d.Guarantees {
		if g.Verdict == "broken" {
			t.Errorf("%s is broken", g.Guarantee)
		}
	}
	if len(d.Guarantees) != 6 {
		t.Errorf("%d guarantees, want 6: %s", len(d.Guarantees), stdout)
	}
	if lines := strings.Count(stderr, "\n"); lines < 2 {
		t.Errorf("%d lines of progress on stderr, want one a second:\n%s", lines, stderr)
	}
}

// interrupter ends a program at its second line.
type interrupter struct {
	bytes.Buffer
	cancel context.CancelFunc
}

func (i *interrupter) Write(p []byte) (int, error) {
	n, err := i.Buffer.Write(p)
	if bytes.Count(i.Bytes(), []byte("\n")) >= 2 {
		i.cancel()
	}
	return n, err
}

func TestDemoEndsCleanlyWhenInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var stdout bytes.Buffer
	stderr := interrupter{cancel: cancel}
	if code := program().Run(ctx, strings.Fields("demo --json --duration 1h"), &stdout, &stderr); code != cli.ExitOK {
		t.Fatalf("exit status %d\n%s", code, &stderr)
	}
	var d demoDocument
	if err := json.Unmarshal(stdout.Bytes(), &d); err != nil {
		t.Fatalf("%v in %s", err, &stdout)
	}
	if !d.Interrupted || d.Elapsed < 900 || d.Routes[0].Admitted == 0 { // a line for each second
		t.Errorf("unexpected document: %s", &stdout)
	}
}

func TestDemoTable(t *testing.T) {
	code, stdout, stderr := clitest.Run(t.Context(), program(), strings.Fields("demo --duration 300ms")...)
	if code != cli.ExitOK {
		t.Fatalf("exit status %d\n%s", code, stderr)
	}
	for _, want := range []string{"/absolute", "/suppressed", "offered", "× limit", "✓ /absolute G1 bound",
		"longest pause", "p99.9"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("table does not contain %q:\n%s", want, stdout)
		}
	}
	for line := range strings.Lines(stdout) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
			t.Errorf("line of %d columns: %s", n, line)
		}
	}
}

func TestRedisEmbedded(t *testing.T) {
	const said = "embedded miniredis, a stand-in whose speed means nothing"
	clitest.Prints(t, program, []clitest.Output{
		{"demo --provider redis --duration 300ms --rate 50 --json", []string{`"server": "` + said + `"`}},
		{"demo --provider redis --client rueidis --duration 300ms --rate 50", []string{"redis by rueidis: " + said}},
		{"demo --provider hybrid --instances 2 --duration 300ms --rate 50 --headless",
			[]string{"hybrid × 2 by go-redis: " + said}},
	})
}

func TestRedisThatCanNotBeUsed(t *testing.T) { clitest.NeedsRedis(t, program, "demo") }
