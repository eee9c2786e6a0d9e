package replay

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/cli/flags"
	"github.com/trypema/trypema/internal/cli/screen"
	"github.com/trypema/trypema/internal/proof/fixture"
	"github.com/trypema/trypema/internal/proof/must"
)

// run runs the command, and returns its report.
func run(t *testing.T, c Command) *Report {
	t.Helper()
	c.JSON = true
	if c.Key == "" {
		c.Key = keyIP
	}
	if c.Strategy == "" {
		c.Strategy = "absolute"
	}
	if c.MaxKeys == 0 {
		c.MaxKeys = 1000
	}
	var out, errs bytes.Buffer
	must.OK(t, c.Run(t.Context(), screen.Streams{Name: "trypema", Out: &out, Err: &errs}))
	var r Report
	must.OK(t, json.Unmarshal(out.Bytes(), &r))
	if errs.Len() > 0 {
		t.Errorf("complaints: %s", &errs)
	}
	return &r
}

// file writes a log and returns its name.
func file(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "access.log")
	must.OK(t, os.WriteFile(name, []byte(text), 0o600))
	return name
}

// call is a line of a log, in the common format.
func call(at time.Time, ip string) string {
	return fmt.Sprintf("%s - - [%s] \"GET / HTTP/1.1\" 200 1\n", ip, at.Format("02/Jan/2006:15:04:05 -0700"))
}

var began = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// TestFormats: lines of all formats, with the time and the key that each has.
func TestFormats(t *testing.T) {
	const (
		ip   = "203.0.113.9"
		unix = 1530570180 // 2018-07-02T22:23:00Z
	)
	for _, x := range []struct {
		name, text, format, ip, user, path string
	}{
		{"common", `203.0.113.9 - ann [02/Jul/2018:22:23:00 +0000] "GET /a/b?c=d HTTP/1.0" 200 2326`,
			"common or combined", ip, "ann", "/a/b"},
		{"combined", `203.0.113.9 - - [03/Jul/2018:00:23:00 +0200] "GET /a/b HTTP/1.0" 200 2326 ` +
			`"http://x/y" "Mozilla \"quoted\""`,
			"common or combined", ip, "", "/a/b"},
		{"IPv6", `2001:db8::1 - - [02/Jul/2018:22:23:00 +0000] "GET /a/b HTTP/1.0" 200 2326`,
			"common or combined", "2001:db8::1", "", "/a/b"},
		{"no request", `203.0.113.9 - - [02/Jul/2018:22:23:00 +0000] "-" 408 0`, "common or combined", ip, "", ""},
		{"Envoy", `[2018-07-02T22:23:00.000Z] "POST /a/b HTTP/2" 204 - 154 0 226 100 ` +
			`"198.51.100.7, 203.0.113.9" "agent" "id" "host" "10.0.2.1:80"`,
			"Envoy", ip, "", "/a/b"},
		{"ALB", `https 2018-07-02T22:23:00.000000Z app/lb/50dc 203.0.113.9:2817 10.0.0.1:80 ` +
			`0.086 0.048 0.037 200 200 0 57 "GET https://x.example:443/a/b?c HTTP/1.1" "curl" - -`,
			"ALB", ip, "", "/a/b"},
		{"nginx JSON", `{"time_iso8601":"2018-07-02T22:23:00+00:00","remote_addr":"203.0.113.9",` +
			`"remote_user":"ann","request":"GET /a/b?c HTTP/1.1"}`,
			"JSON lines", ip, "ann", "/a/b"},
		{"nginx JSON, msec", `{"msec":1530570180.000,"remote_addr":"203.0.113.9","request_uri":"/a/b?c"}`,
			"JSON lines", ip, "", "/a/b"},
		{"Caddy", `{"level":"info","ts":1530570180.0,"request":{"remote_ip":"203.0.113.9",` +
			`"client_ip":"203.0.113.9","uri":"/a/b?c=d"},"status":200}`,
			"JSON lines", ip, "", "/a/b"},
		{"Envoy JSON", `{"start_time":"2018-07-02T22:23:00.000Z",` +
			`"downstream_remote_address":"203.0.113.9:4711","path":"/a/b"}`,
			"JSON lines", ip, "", "/a/b"},
		{"JSON, milliseconds", `{"timestamp":1530570180000,"ip":"203.0.113.9","user":"ann","url":"/a/b"}`,
			"JSON lines", ip, "ann", "/a/b"},
	} {
		for key, want := range map[string]string{keyIP: x.ip, keyUser: x.user, keyPath: x.path} {
			p := newParser([]byte(x.text), key)
			var l line
			err := p.parse(p, []byte(x.text), &l)
			if p.format != x.format {
				t.Errorf("%s is read as %s", x.name, p.format)
			}
			if (err == nil) != (want != "") || err == nil && string(l.key) != want {
				t.Errorf("%s: the %s is %q, %v, want %q", x.name, key, l.key, err, want)
			}
			if l.at != unix*int64(time.Second) {
				t.Errorf("%s: the time is %v", x.name, time.Unix(0, l.at).UTC())
			}
		}
	}
	text := []byte(`{"ts":1,"request":{"method":"GET","n":7},"tenant":"acme"}`)
	p := newParser(text, "tenant+request.method+request.n")
	var l line
	if err := p.parse(p, text, &l); err != nil || string(l.key) != "acme GET 7" {
		t.Errorf("%q, %v", l.key, err)
	}
}

// TestWrongLines are counted and shown, and the others are read.
func TestWrongLines(t *testing.T) {
	text := "nonsense\n\n" + call(began, "a") + "a - - [31/Feb/2026:03:04:05 +0000] \"GET / HTTP/1.1\" 200 1\n" +
		strings.Repeat("x", 3<<20) + "\n" + call(began.Add(time.Second), "a") +
		"a - - [02/Jan/2026:03:04:99 +0000] \"\"\n" + call(began, "b")
	r := run(t, Command{Files: []string{file(t, text)}, Limit: []string{"1/h"}})
	if notes := r.notes(); len(notes) != 6 || notes[0] != "4 of 7 lines cannot be read, such as" ||
		notes[5] != "1 lines were too late to be put in order (--reorder): they count up to 1s after their time." {
		t.Errorf("%q", notes)
	}
	if r.Lines != 7 || r.Wrong != 4 || r.Calls != 3 || r.Keys != 2 || r.Rules[0].Denied != 1 ||
		len(r.WrongLines) != 4 ||
		r.WrongLines[1].Line != 4 || r.TimesBack != 1 || r.FarthestBackSeconds != 1 || !r.Complete {
		t.Errorf("%+v", r)
	}
	for _, year := range []string{"1969", "2256", "9999"} { // what no log has, and no int64 of ns may hold
		for _, text := range []string{
			"a - - [02/Jan/" + year + ":03:04:05 +0000]", `{"ip":"a","ts":"` + year + `-01-02T03:04:05Z"}`,
		} {
			p := newParser([]byte(text), keyIP)
			if err := p.parse(p, []byte(text), new(line)); err == nil {
				t.Errorf("%s is read", text)
			}
		}
	}
	c := Command{Files: []string{file(t, "nonsense\n")}, Limit: []string{"1/h"}, Key: keyIP,
		Strategy: "absolute", MaxKeys: 1000}
	var out bytes.Buffer
	err := c.Run(t.Context(), screen.Streams{Out: &out, Err: &out})
	if err == nil || !strings.Contains(err.Error(), ":1: there is no time in it") {
		t.Error(err)
	}
	c.Files = []string{file(t, "")}
	if err := c.Run(t.Context(), screen.Streams{Out: &out, Err: &out}); err == nil {
		t.Error("an empty log is no error")
	}
}

// TestGzip: a log that is packed is read like one that is not.
func TestGzip(t *testing.T) {
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	fmt.Fprint(w, call(began, "a")+call(began.Add(time.Second), "a"))
	must.OK(t, w.Close())
	r := run(t, Command{Files: []string{file(t, packed.String()), file(t, call(began.Add(time.Minute), "a"))},
		Limit: []string{"1/m"}})
	if r.Calls != 3 || r.Rules[0].Denied != 1 || len(r.Files) != 2 {
		t.Errorf("%+v", r)
	}
}

// TestBrokenOff: of a log that breaks off, what there is up to there is reported, and the error is returned.
func TestBrokenOff(t *testing.T) {
	packed, err := os.ReadFile("testdata/nasa.log.gz")
	must.OK(t, err)
	name := file(t, string(packed[:len(packed)/2]))
	c := Command{Files: []string{name}, Limit: []string{"10/m"}, Key: keyIP, Strategy: "absolute", MaxKeys: 1000}
	var out bytes.Buffer
	err = c.Run(t.Context(), screen.Streams{Out: &out, Err: &out})
	if err == nil || !strings.Contains(err.Error(), name+":") || !strings.Contains(err.Error(), "unexpected EOF") {
		t.Error(err)
	}
	const stopped = "Stopped before the end: this is what there is so far.\n"
	if said := out.String(); !strings.HasPrefix(said, stopped) || !strings.Contains(said, "│ 10/m, absolute") {
		t.Error(said)
	}
}

// randomLog is calls of some keys, which come in bursts.
func randomLog(rng *rand.Rand, n int) (at []time.Time, keys []string) {
	now := began
	for range n {
		if rng.IntN(10) == 0 {
			now = now.Add(time.Duration(rng.IntN(90)) * time.Second)
		}
		at, keys = append(at, now), append(keys, fmt.Sprint("k", rng.IntN(4)))
	}
	return at, keys
}

// TestExact compares with an exact list of events, in whole seconds as logs have them.
func TestExact(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	at, keys := randomLog(rng, 5000)
	var text strings.Builder
	admitted := make(map[string][]time.Time)
	denied := uint64(0)
	for i, now := range at {
		text.WriteString(call(now, keys[i]))
		short, long := 0, 0
		for _, e := range slices.Backward(admitted[keys[i]]) {
			if now.Sub(e) >= time.Minute { // and so is each one before it
				break
			}
			if now.Sub(e) < 10*time.Second {
				short++
			}
			long++
		}
		if short < 5 && long < 12 {
			admitted[keys[i]] = append(admitted[keys[i]], now)
		} else {
			denied++
		}
	}
	r := run(t, Command{Files: []string{file(t, text.String())}, Limit: []string{"5/10s,12/m"}})
	if x := r.Rules[0]; x.Denied != denied || x.MostInAWindow != 1 || x.KeysLimited != 4 {
		t.Errorf("%+v, want %d denied", x, denied)
	}
	if b, f := r.Rules[0].TokenBucket, r.Rules[0].FixedWindow; b.MostInAWindow <= 1 || f.MostInAWindow <= 1 {
		t.Errorf("token bucket %+v, fixed window %+v: none passes the limit", b, f)
	}
}

// TestAsTheLibrary compares with what a Local decides, call by call.
func TestAsTheLibrary(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	at, keys := randomLog(rng, 3000)
	one, err := parseRule("7/10s,30/m", trypema.StrategyAbsolute)
	must.OK(t, err)
	e := newEngine([]*rule{one}, false, 100, 1)
	synctest.Test(t, func(t *testing.T) {
		local := fixture.Local(t, trypema.Options{})
		b := fixture.Bind(t, local, trypema.StrategyAbsolute, trypema.AtMost(7, 10*time.Second),
			trypema.AtMost(30, time.Minute))
		for i, now := range at {
			if i > 0 {
				time.Sleep(now.Sub(at[i-1]))
			}
			d, err := b.Allow(t.Context(), keys[i])
			must.OK(t, err)
			before := e.results[0].denied
			e.see(&line{at: now.UnixNano(), key: []byte(keys[i])})
			if got := e.results[0].denied == before; got != d.Allowed {
				t.Fatalf("call %d, of %s at %v: %v, but Local says %+v", i, keys[i], now, got, d)
			}
		}
	})
}

// TestSuggestion: a proposed limit leaves as many keys alone as it says.
func TestSuggestion(t *testing.T) {
	var text strings.Builder
	for k := range 100 { // key k calls k+1 times in a second
		for range k + 1 {
			text.WriteString(call(began, fmt.Sprint("k", k)))
		}
	}
	p := 95.0
	name := file(t, text.String())
	r := run(t, Command{Files: []string{name}, Suggest: &p})
	if s := r.Suggestions; len(s) != 1 || s[0].Limit != "95/s" || s[0].KeysOver != 5 || s[0].Busiest != 100 {
		t.Errorf("%+v", s)
	}
	r = run(t, Command{Files: []string{name}, Limit: []string{r.Suggestions[0].Limit}})
	if r.Rules[0].KeysLimited != 5 || r.Rules[0].Denied != 1+2+3+4+5 {
		t.Errorf("%+v", r.Rules[0])
	}
}

// TestMaxKeys: more keys than may be held are forgotten, and what was counted of them stays.
func TestMaxKeys(t *testing.T) {
	var text strings.Builder
	for i := range 1000 {
		at := began.Add(time.Duration(i) * time.Second)
		text.WriteString(call(at, fmt.Sprint("k", i)) + call(at, fmt.Sprint("k", i)))
	}
	percent := 90.0
	r := run(t, Command{Files: []string{file(t, text.String())}, Limit: []string{"1/10s"}, MaxKeys: 100,
		Suggest: &percent})
	if s := r.Suggestions; len(s) < 2 || s[0] != (Suggestion{"2/s", 0, 2}) {
		t.Errorf("%+v", s)
	}
	if r.Keys != 1000 || r.KeysForgotten < 850 || r.Rules[0].Denied != 1000 ||
		r.Rules[0].KeysLimited != 1000 || len(r.Rules[0].Worst) != worstKeys {
		t.Errorf("%+v", r)
	}
}

// TestWrongFlags: each complaint names the flag, the value and the rule, before a log is read.
func TestWrongFlags(t *testing.T) {
	right := Command{Files: []string{"missing"}, Limit: []string{"1/s"}, Key: keyIP, Strategy: "both", MaxKeys: 100}
	for _, x := range []struct {
		change func(c *Command)
		want   string
	}{
		{func(c *Command) { c.Limit = nil }, "--limit"},
		{func(c *Command) { c.Limit = []string{"often"} }, `--limit is often; it must be a number per time, as in`},
		{func(c *Command) { c.Limit = []string{"1/s,2/s"} }, "--limit is 1/s,2/s"},
		{func(c *Command) { c.Strategy = "strict" }, "--strategy"},
		{func(c *Command) { c.Key = "" }, "--key"},
		{func(c *Command) { c.MaxKeys = 1 }, "--max-keys"},
		{func(c *Command) { x := 101.0; c.Suggest = &x }, "--suggest"},
	} {
		c := right
		x.change(&c)
		var out bytes.Buffer
		err := c.Run(t.Context(), screen.Streams{Out: &out, Err: &out})
		if !flags.IsWrong(err) || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%v, want %s", err, x.want)
		}
	}
	var out bytes.Buffer
	err := right.Run(t.Context(), screen.Streams{Out: &out, Err: &out})
	if err == nil || !strings.Contains(err.Error(), "missing") {
		t.Error(err)
	}
}

// TestSeries: the slots of a picture grow with the log, and none of the calls is lost.
func TestSeries(t *testing.T) {
	s := series{admitted: make([][]uint64, 1)}
	at := began.UnixNano()
	n := uint64(0)
	for step := time.Second; step < 50*365*24*time.Hour; step *= 2 {
		at += int64(step)
		n++
		s.offer(at)
		s.admit(0, at)
		sum, sumAdmitted := uint64(0), uint64(0)
		for i := range s.offered {
			sum += s.offered[i]
		}
		for _, count := range s.admitted[0] {
			sumAdmitted += count
		}
		newest := len(s.offered) - 1
		if sum != n || sumAdmitted != n || newest >= maxSlots || s.offered[newest] == 0 || s.offered[0] == 0 ||
			s.start%int64(s.slot()) != 0 || at-s.start-int64(newest)*int64(s.slot()) >= int64(s.slot()) {
			t.Fatalf("after %d calls, slots of %v from %v: %v, %v",
				n, s.slot(), time.Unix(0, s.start), s.offered, s.admitted)
		}
	}
	for i := range len(slots) - 1 {
		if slots[i+1]%slots[i] != 0 {
			t.Errorf("%v is no multiple of %v", slots[i+1], slots[i])
		}
	}
}

// TestSpread: a spread is a list of numbers in order.
func TestSpread(t *testing.T) {
	e := newEngine(nil, true, 100, 1)
	var list []uint64
	for i, n := range []uint64{7, 3, 3, 9, 1, 3} {
		list = append(list, n)
		if i%2 == 0 {
			e.maxima[0][n]++
		} else {
			e.keys[fmt.Sprint(i)] = &key{busiest: &busiest{most: [len(suggested)]uint64{n}}}
		}
	}
	slices.Sort(list)
	s := e.busiest()[0]
	for i, n := range list {
		if s.at(i) != n {
			t.Errorf("number %d is %d, want %d", i, s.at(i), n)
		}
	}
	for n, want := range map[uint64]int{0: 6, 1: 5, 3: 2, 5: 2, 8: 1, 9: 0, 10: 0} {
		if got := s.over(n); got != want {
			t.Errorf("%d are over %d, want %d", got, n, want)
		}
	}
	if s.len() != 6 || s.most() != 9 {
		t.Errorf("%+v", s)
	}
}

// TestSpanText: a length of time as people say it.
func TestSpanText(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"second": time.Second, "61 seconds": 61 * time.Second, "minute": time.Minute, "1.5 minutes": 90 * time.Second,
		"5 minutes": 5 * time.Minute, "hour": time.Hour, "3.5 days": 84 * time.Hour, "30 hours": 30 * time.Hour,
		"0s": 0,
	} {
		if got := spanText(d); got != want {
			t.Errorf("%v is %s, want %s", d, got, want)
		}
	}
}

// TestStopped: Ctrl-C prints what there is so far.
func TestStopped(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var text strings.Builder
	for i := range 3 * batchLen {
		text.WriteString(call(began.Add(time.Duration(i)*time.Second), "a"))
	}
	c := Command{Files: []string{file(t, text.String())}, Limit: []string{"1/m"}, Key: keyIP,
		Strategy: "absolute", MaxKeys: 100}
	var out bytes.Buffer
	err := c.Run(ctx, screen.Streams{Out: &out, Err: &out})
	if err != nil || !strings.Contains(out.String(), "Stopped before the end") {
		t.Errorf("%v: %s", err, &out)
	}
}

// TestPage: the page has the numbers, a plot of the keys and one for each rule, and nothing of a key that is
// not escaped.
func TestPage(t *testing.T) {
	text := strings.Repeat(call(began, "<b>"), 3) + call(began.Add(time.Hour), "b")
	name := filepath.Join(t.TempDir(), "page.html")
	p := 50.0
	run(t, Command{Files: []string{file(t, text)}, Limit: []string{"1/m"}, Strategy: "both", HTML: name, Suggest: &p})
	page, err := os.ReadFile(name)
	must.OK(t, err)
	for _, want := range []string{"4 calls of 2 keys", "<svg", "&lt;b&gt;", "token bucket",
		"1/m, absolute: 2 of 4 calls are denied (50.00 %), of 1 of 2 keys."} {
		if !strings.Contains(string(page), want) {
			t.Errorf("the page has no %q", want)
		}
	}
	if strings.Contains(string(page), "<b>") || strings.Count(string(page), "<svg") != 3 {
		t.Errorf("%s", page)
	}
	info, err := os.Stat(name)
	must.OK(t, err)
	if runtime.GOOS != "windows" && info.Mode().Perm() != 0o644 {
		t.Errorf("%v, want a file that all may read", info.Mode())
	}
	nowhere := filepath.Join(t.TempDir(), "none", "page.html")
	c := Command{
		Files: []string{file(t, text)}, Limit: []string{"1/m"}, Strategy: "both", Key: keyIP, MaxKeys: 1000,
		HTML: nowhere,
	}
	err = c.Run(t.Context(), screen.Streams{Out: io.Discard, Err: io.Discard})
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("--html is %q: ", nowhere)) ||
		strings.Contains(err.Error(), ".replay") {
		t.Errorf("a page in a folder that is not there: %v", err)
	}
}
