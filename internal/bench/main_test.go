package main

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/trypema/trypema/internal/bench/leak"
	"github.com/trypema/trypema/internal/bench/peer"
	"github.com/trypema/trypema/internal/cli"
	"github.com/trypema/trypema/internal/cli/clitest"
	"github.com/trypema/trypema/internal/proof/explore"
)

func TestMain(m *testing.M) { leak.Main(m) }

func TestWrongFlags(t *testing.T) {
	peers := strings.Join(peer.Names(), ", ")
	clitest.Refuses(t, program, []clitest.Refusal{
		{"--peer nobody", `--peer is "nobody"; it must be one of ` + peers},
		{"--compare ulule", "--compare is ulule; it must be at least two names with a comma between them"},
		{"--compare ulule,ulule", "--compare is ulule,ulule; it must be a list without repetition"},
		{"--compare trypema,x", `--compare is "x"; it must be one of ` + peers +
			`, trypema-local, trypema-redis, trypema-hybrid`},
		{"--compare trypema,ulule --duration 50ms", "--duration is 50ms; it must be at least 10ms for each round"},
		{"--peer redis_rate", "--peer is redis_rate; it must be left out unless --provider is redis"},
		{"--compare trypema,redis_rate",
			"--compare is redis_rate; it must be left out unless --provider is redis or hybrid"},
		{"--provider redis --peer ulule",
			"--peer is ulule; it must be one of trypema, redis_rate, redis-cell, rust-trypema-redis with " +
				"--provider redis"},
		{"--provider redis --peer redis_rate --client rueidis",
			"--client is rueidis; it must be left out with --peer redis_rate, which uses go-redis"},
		{"--compare trypema,trypema-hybrid",
			"--compare is trypema-hybrid; it must be left out unless --provider is redis or hybrid"},
		{"--peer trypema-local", `--peer is "trypema-local"; it must be one of ` + peers},
		{"--provider hybrid --peer redis_rate",
			"--peer is redis_rate; it must be one of trypema, rust-trypema-hybrid with --provider hybrid"},
		{"--provider hybrid --instances 0", "--instances is 0; it must be from 1 to 64"},
		{"--provider hybrid --instances 4 --workers 3",
			"--workers is 3; it must be at least one for each of --instances"},
		{"--sync-interval 5ms", "--sync-interval is 5ms; it must be left out unless --provider is hybrid"},
		{"--provider hybrid --sync-interval 20s", "--sync-interval is 20s; it must be from 1ms to --window (10s)"},
		{"--provider hybrid --window 0s --sync-interval 2s", "--window is 0s; it must be at least 1ms"},
		{"--provider redis --redis redis://h/x",
			"--redis is redis://h/x; it must be a URL whose path is the number of a database"},
		{"--rounds 0", "--rounds is 0; it must be from 1 to 1000"},
		{"--strategy both", `--strategy is "both"; it must be one of absolute, suppressed`},
		{"--keys cold", `--keys is "cold"; it must be one of hot, uniform, skewed`},
		{"--key-space 0", "--key-space is 0; it must be from 1 to 50000000"},
		{"--hot-fraction 1.1", "--hot-fraction is 1.1; it must be from 0 to 1"},
		{"--fresh --compare trypema,ulule",
			"--fresh is true; it must be left out with --provider redis or hybrid, and with limiters that " +
				"may keep the string of a call"},
		{"--many 0", "--many is 0; it must be from 1 to 1000"},
		{"--many 16 --mode target",
			"--many is 16; it must be left out with --provider redis or hybrid, and with --mode target"},
		{"--workers -2", "--workers is -2; it must be from 1 to 4096"},
		{"--mode fast", `--mode is "fast"; it must be one of max, target`},
		{"--qps 5", "--qps is 5; it must be left out unless --mode is target"},
		{"--mode target --qps 0", "--qps is 0; it must be above 0 and at most 1e9"},
		{"--burst 5", "--burst is 5; it must be left out unless --mode is target"},
		{"--mode target --burst 0", "--burst is 0; it must be from 1 to 1000000"},
		{"--json --csv", "--csv is true; it must be left out with --json"},
		{"--rate 1e18", "--rate is 1e+18; it must be at most 1000000000 events per --window (10s)"},
		{"--warm-up -1s", "--warm-up is -1s; it must be at least 0s"},
		{"--rate 0.01", "--rate is 36/h, less than one event in a window of 10s; raise the rate or lengthen --window"},
		{"serve --only x", `--only is "x"; it must be one of resp-pipelined, resp, resp-hybrid, grpc, ` +
			`grpc-redis, grpc-redis-keys, http, idle`},
		{"serve --rounds 0", "--rounds is 0; it must be from 1 to 1000"},
		{"serve --duration 1ms", "--duration is 1ms; it must be at least 100ms"},
		{"report --quick --full", "--full is true; it must be left out with --quick"},
		{"reprot", "unexpected argument reprot"},
	})
}

// A wrong name of a step is refused with the names of all steps, each of them once.
func TestReportOnlyWrongStep(t *testing.T) {
	for _, effort := range []string{"--quick", "--full", "--json"} {
		code, _, stderr := clitest.Run(t.Context(), program(), "report", effort, "--only", "hot-over,nosuch")
		_, list, found := strings.Cut(strings.TrimSpace(stderr), `bench: --only is "nosuch"; it must be one of `)
		names := strings.Split(list, ", ")
		slices.Sort(names)
		if code != cli.ExitWrong || !found || len(names) < 20 ||
			len(slices.Compact(slices.Clone(names))) != len(names) {
			t.Errorf("%s: exit status %d, stderr %q", effort, code, stderr)
		}
	}
}

func TestHelp(t *testing.T) {
	clitest.Helps(t, program, []clitest.Output{
		{"--help", []string{"Usage: bench <command>", "measure", "report"}},
		{"measure -h", []string{"--compare=A,B,…", "xtime-syncmap", "redis-cell", "canonical", "--client",
			"trypema-hybrid"}},
		{"serve --help", []string{"--quick", "--install", "--throttlecrab", "exit status"}},
		{"serve --list", []string{"resp-pipelined", "grpc-redis-keys", "idle"}},
		{"ratios --help", []string{"--rounds", "--only", "quartiles"}},
		{"report --help", []string{"--quick", "--list", "cargo", "exit status"}},
	})
}

// TestInterruptedFails: without arguments, it measures the canonical workload.
func TestInterruptedFails(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	code, stdout, stderr := clitest.Run(ctx, program())
	if code != cli.ExitBroken || stdout != "" || !strings.Contains(stderr, "interrupted") {
		t.Errorf("exit status %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

func TestRedisEmbedded(t *testing.T) {
	const said = "embedded miniredis, a stand-in whose speed means nothing"
	tests := []clitest.Output{
		{"--provider hybrid --key-space 5 --workers 2 --warm-up 0s --rounds 1 --duration 10ms --compare " +
			"trypema,trypema-local --csv", []string{"trypema-local,local"}},
		{"--provider redis --key-space 5 --workers 2 --warm-up 0s --rounds 1 --duration 10ms --compare " +
			"trypema,redis_rate --csv", []string{said}},
	}
	if explore.Long() { // with an accuracy pass, which takes its time
		tests = append(tests,
			clitest.Output{"--provider hybrid --instances 2 --key-space 50 --warm-up 0s --duration 200ms",
				[]string{"hybrid × 2 by go-redis: " + said}},
			clitest.Output{"--provider redis --key-space 50 --workers 4 --warm-up 0s --duration 200ms --json",
				[]string{`"server": "` + said + `"`}},
		)
	}
	clitest.Prints(t, program, tests)
}

func TestRedisThatCanNotBeUsed(t *testing.T) { clitest.NeedsRedis(t, program) }
