package onserve

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/must"
	"github.com/trypema/trypema/internal/thirdparty/redisserver"
)

// reference returns the path of envoyproxy/ratelimit. At length, it is compiled into a folder of the user's
// cache if it is not there, which takes minutes.
func reference(t testing.TB) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	must.OK(t, err)
	dir := filepath.Join(cache, "trypema-tests", "go")
	path := filepath.Join(dir, "service_cmd")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	if !explore.Long() || os.Getenv("INSTALL") == "0" {
		t.Skip("envoyproxy/ratelimit is not installed; make test-long installs it, unless INSTALL=0")
	}
	c := exec.CommandContext(t.Context(), "go", "install",
		"github.com/envoyproxy/ratelimit/src/service_cmd@v1.4.1-0.20260122083618-3fb702589d36")
	c.Env = append(os.Environ(), "GOBIN="+dir, "GOWORK=off", "GOFLAGS=")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("envoyproxy/ratelimit cannot be installed: %v: %s", err, out)
	}
	return path
}

// word is a descriptor of a random configuration.
type word struct {
	key, value string
	limit      string
	flags      string
	below      []*word
}

// randomConfig makes a domain.
func randomConfig(r *rand.Rand, domain string) (string, []*word) {
	var b strings.Builder
	fmt.Fprintf(&b, "domain: %s\ndescriptors:\n", domain)
	names := 0
	var level func(depth int) []*word
	level = func(depth int) (all []*word) {
		taken := make(map[string]bool)
		for range 2 + r.IntN(3) {
			w := &word{key: pick(r, "a", "b", "c")}
			w.value = pick(r, "", "", "x", "y", "x*", "y*", "xq*") // this version has no other patterns
			if taken[w.key+"_"+w.value] {
				continue
			}
			taken[w.key+"_"+w.value] = true
			if r.IntN(5) > 0 {
				names++
				w.limit = fmt.Sprintf("unit: %s, requests_per_unit: %d, name: n%d",
					pick(r, "day", "DAY", "month", "year"), r.IntN(7), names)
				switch r.IntN(8) {
				case 0:
					w.limit = "unlimited: true"
				case 1:
					if names > 1 {
						w.limit += fmt.Sprintf(", replaces: [{name: n%d}]", 1+r.IntN(names-1))
					}
				}
				if r.IntN(6) == 0 {
					w.flags += ", shadow_mode: true"
				}
			}
			if strings.Contains(w.value, "*") && r.IntN(2) == 0 {
				w.flags += ", share_threshold: true"
			}
			if depth < 3 && r.IntN(3) == 0 {
				w.below = level(depth + 1)
			}
			all = append(all, w)
		}
		return all
	}
	var write func(all []*word, indent string)
	write = func(all []*word, indent string) {
		for _, w := range all {
			fmt.Fprintf(&b, "%s- key: %s\n", indent, w.key)
			if w.value != "" {
				fmt.Fprintf(&b, "%s  value: %q\n", indent, w.value)
			}
			for flag := range strings.SplitSeq(strings.TrimPrefix(w.flags, ", "), ", ") {
				if flag != "" {
					fmt.Fprintf(&b, "%s  %s\n", indent, flag)
				}
			}
			if w.limit != "" {
				fmt.Fprintf(&b, "%s  rate_limit: {%s}\n", indent, w.limit)
			}
			if len(w.below) > 0 {
				fmt.Fprintf(&b, "%s  descriptors:\n", indent)
				write(w.below, indent+"    ")
			}
		}
	}
	all := level(1)
	write(all, "  ")
	return b.String(), all
}

func pick(r *rand.Rand, of ...string) string { return of[r.IntN(len(of))] }

// randomRequest makes a request for a domain. Its descriptors begin with different keys, so that no two have
// the same counter: here their costs add up, there the first is counted before the second.
func randomRequest(r *rand.Rand, domain string, config []*word) string {
	var all []string
	taken := make(map[string]bool)
	for range 1 + r.IntN(3) {
		var entries []string
		for at := config; len(at) > 0 && len(entries) < 4; {
			w := at[r.IntN(len(at))]
			if len(entries) == 0 {
				if taken[w.key] {
					break
				}
				taken[w.key] = true
			}
			value := strings.ReplaceAll(w.value, "*", pick(r, "", "q", "1"))
			if value == "" || r.IntN(6) == 0 {
				value = pick(r, "x", "y", "xqz", "other")
			}
			entries = append(entries, fmt.Sprintf(`{"key":%q,"value":%q}`, w.key, value))
			if r.IntN(3) == 0 {
				break
			}
			at = w.below
		}
		if len(entries) > 0 {
			all = append(all, fmt.Sprintf(`{"entries":[%s]}`, strings.Join(entries, ",")))
		}
	}
	return fmt.Sprintf(`{"domain":%q,"descriptors":[%s]}`, domain, strings.Join(all, ","))
}

// verdict is what both servers answer, but for the windows.
type verdict struct {
	Code     string             `json:"overallCode"`
	Statuses []descriptorStatus `json:"statuses"`
}

type descriptorStatus struct {
	Code  string `json:"code"`
	Limit *struct {
		Requests uint32 `json:"requestsPerUnit"`
		Unit     string `json:"unit"`
		Name     string `json:"name"`
	} `json:"currentLimit"`
	Remaining uint32 `json:"limitRemaining"`
	Reset     string `json:"durationUntilReset"`
}

// TestBesideEnvoyproxy: on random configurations and requests each field of the answers is that of
// envoyproxy/ratelimit, but for what is better on purpose:
//   - windows roll, so durationUntilReset is not the time until the day, month or year ends;
//   - a request that is refused takes nothing, while the other server counts it in all limits that match: what
//     is left after a refusal is not compared;
//   - in a request that is refused, a limit that has room says what is left without the request;
//   - descriptors of a request that share a counter are refused together.
//
// That version has no metadata, no patterns but those that end with a star, and another quota_mode.
func TestBesideEnvoyproxy(t *testing.T) {
	path := reference(t)
	r := rand.New(rand.NewPCG(explore.Seed(t), 0))
	domains := explore.Size(40, 1000)
	dir := t.TempDir()
	must.OK(t, os.MkdirAll(filepath.Join(dir, "ratelimit", "config"), 0o700))
	configs := make([][]*word, domains)
	for i := range domains {
		text, words := randomConfig(r, fmt.Sprintf("d%d", i))
		configs[i] = words
		must.OK(
			t,
			os.WriteFile(filepath.Join(dir, "ratelimit", "config", fmt.Sprintf("d%d.yaml", i)), []byte(text),
				0o600),
		)
	}
	redis := redisserver.Start(t)
	port := func(address string) string { _, p, _ := net.SplitHostPort(address); return p }
	web := free(t)
	c := exec.CommandContext(context.Background(), path)
	c.Env = append(os.Environ(), "USE_STATSD=false", "DISABLE_STATS=true", "REDIS_SOCKET_TYPE=tcp",
		"REDIS_URL="+redis.Addr(), "RUNTIME_ROOT="+dir, "RUNTIME_SUBDIRECTORY=ratelimit",
		"RUNTIME_WATCH_ROOT=false", "RUNTIME_IGNOREDOTFILES=true", "HOST=127.0.0.1", "GRPC_HOST=127.0.0.1",
		"DEBUG_HOST=127.0.0.1", "PORT="+port(web), "GRPC_PORT="+port(free(t)), "DEBUG_PORT="+port(free(t)),
		"LOG_LEVEL=info")
	theirs := launch(t, c)
	eventually(t, "envoyproxy/ratelimit", theirs, func() error {
		a, err := get(t, "http://"+web+"/healthcheck")
		if err == nil && a.code != 200 {
			err = fmt.Errorf("%d %s", a.code, a.body)
		}
		return err
	})
	ours := serve(t, "--config", filepath.Join(dir, "ratelimit", "config"))
	ask := func(url, request string) (v verdict) {
		t.Helper()
		a := post(t, "http://"+url+"/json", request)
		if err := json.Unmarshal([]byte(a.body), &v); err != nil {
			t.Fatalf("%s: %d %s", request, a.code, a.body)
		}
		for i := range v.Statuses {
			v.Statuses[i].Reset = ""
		}
		return v
	}
	requests, refusals := 0, 0
	for i := range domains {
		for range 40 {
			request := randomRequest(r, fmt.Sprintf("d%d", i), configs[i])
			want, got := ask(web, request), ask(ours.http, request)
			requests++
			isOver := want.Code == "OVER_LIMIT" ||
				slices.ContainsFunc(want.Statuses, func(s descriptorStatus) bool {
					return s.Code == "OVER_LIMIT"
				})
			if want.Code == "OVER_LIMIT" { // what is left is not compared
				for j := range want.Statuses {
					want.Statuses[j].Remaining = 0
				}
				for j := range got.Statuses {
					got.Statuses[j].Remaining = 0
				}
			}
			a, _ := json.Marshal(want)
			b, _ := json.Marshal(got)
			if !bytes.Equal(a, b) {
				config, _ := os.ReadFile(
					filepath.Join(dir, "ratelimit", "config", fmt.Sprintf("d%d.yaml", i)),
				)
				t.Fatalf("%s\n theirs %s\n   ours %s\n%s", request, a, b, config)
			}
			if isOver {
				refusals++
				break // from here on they have counted what we have not
			}
		}
	}
	if requests < 3*domains || refusals < domains/4 {
		t.Errorf("%d requests, %d refusals: too few to tell", requests, refusals)
	}
	t.Logf("%d requests in %d domains, %d refusals", requests, domains, refusals)
}
