package report

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trypema/trypema/internal/bench/leak"
	"github.com/trypema/trypema/internal/bench/measure"
	"github.com/trypema/trypema/internal/cli/latency"
	"github.com/trypema/trypema/internal/cli/screen"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/must"
)

func TestMain(m *testing.M) { leak.Main(m) }

func quiet(out io.Writer) screen.Streams { return screen.Streams{Out: out, Err: io.Discard} }

// TestEveryStepIsACommand: what a report says that it ran can be run.
func TestEveryStepIsACommand(t *testing.T) {
	for _, e := range efforts {
		seen, parsed := make(map[string]int), make(map[string]bool)
		for _, s := range e.steps() {
			seen[s.ID]++
			if s.pass != seen[s.ID] {
				t.Errorf("%s: pass %d of %s comes as number %d", e.Name, s.pass, s.ID, seen[s.ID])
			}
			for _, l := range s.lines {
				args := fmt.Sprint(e.args(l, s.kind), s.kind)
				if parsed[args] { // in a pass before
					continue
				}
				parsed[args] = true
				c, err := e.command(l, s.kind, "redis://localhost:1")
				if err == nil && s.kind != floors {
					err = c.Wrong()
				}
				if err != nil {
					t.Errorf("%s: %s: %v", e.Name, l.args, err)
				}
			}
		}
	}
}

func TestQuickIsShort(t *testing.T) {
	var total time.Duration
	for _, s := range quick.steps() {
		total += s.took
	}
	if total > 200*time.Second { // with a minute to build what is in Rust, and what an estimate is wrong by
		t.Errorf("it takes about %v, want so little that five minutes are enough", total)
	}
}

func TestWrongFlags(t *testing.T) {
	url := "http://x"
	for _, tt := range []struct {
		command Command
		says    string
	}{
		{Command{Out: ""}, "--out has no value"},
		{Command{Out: "x", Quick: true, Full: true}, "--full is true; it must be left out with --quick"},
		{Command{Out: "x", Only: []string{"nothing"}}, `--only is "nothing"; it must be one of floors, hot-over`},
		{Command{Out: "x", Redis: &url}, "--redis is http://x; it must be a URL that begins with"},
		{Command{Out: t.TempDir(), Redraw: true}, "--redraw is true; it must be left out unless there is a report"},
	} {
		err := tt.command.Run(t.Context(), quiet(io.Discard))
		if err == nil || !strings.HasPrefix(err.Error(), tt.says) {
			t.Errorf("%+v: %v, want %q", tt.command, err, tt.says)
		}
	}
}

// brief is a report of two small measurements.
func brief() (effort, []step) {
	return effort{Name: "quick", Rounds: 2, Each: 10 * time.Millisecond, Times: 1}, []step{
		{ID: "memory-1k", Title: "Memory", kind: memory, pass: 1,
			lines: []line{{args: "--keys uniform --key-space 1000 --compare trypema,xtime-syncmap"}}},
		{ID: "hot-over", Title: "One key", pass: 1,
			lines: []line{{args: "--keys hot --key-space 10 --warm-up 0s --compare trypema,ulule"}}},
	}
}

// TestReport measures two steps, is interrupted, goes on, and begins anew.
func TestReport(t *testing.T) {
	dir := t.TempDir()
	c := Command{Out: dir, Quick: true, JSON: true, brief: brief}
	if explore.Long() { // with all limiters
		c.brief, c.Only = nil, []string{"memory-1k", "memory-100k"}
	}
	measured := func(ctx context.Context, want error) *document {
		t.Helper()
		var out bytes.Buffer
		err := c.Run(ctx, quiet(&out))
		if errors.Is(err, errPartial) && want == nil { // without cargo, or a server
			t.Log(err)
			err = nil
		}
		if !errors.Is(err, want) {
			t.Fatalf("error is %v, want %v", err, want)
		}
		if want != nil && out.Len() == 0 {
			return nil
		}
		d := new(document)
		if err := json.Unmarshal(out.Bytes(), d); err != nil {
			t.Fatalf("%v in %s", err, &out)
		}
		return d
	}
	d := measured(t.Context(), nil)
	if d.Done != 2 || d.Expected != 2 || len(d.Steps) != 2 || len(d.Steps[0].Memory) < 3 {
		t.Fatalf("%d of %d measured: %+v", d.Done, d.Expected, d.Steps)
	}
	page, err := os.ReadFile(filepath.Join(dir, pageFile))
	if err != nil || !bytes.Contains(page, []byte("<svg")) || bytes.Contains(page, []byte("<script")) ||
		bytes.Contains(page, []byte("src=")) {
		t.Errorf("the page has no picture, or needs something else: %v", err)
	}
	if table, err := os.ReadFile(filepath.Join(dir, tableFile)); err != nil ||
		!bytes.Contains(table, []byte("| trypema |")) {
		t.Errorf("the table does not name us: %v\n%s", err, table)
	}

	// As if it had been interrupted after the first of the two.
	d.Steps, d.Done = d.Steps[:1], 1
	d.Steps[0].Title = "from before"
	must.OK(t, d.save(dir))
	stopped, stop := context.WithCancel(t.Context())
	stop()
	measured(stopped, errInterrupted)
	if d = measured(t.Context(), nil); d.Done != 2 || d.Steps[0].Title != "from before" || d.Interrupt != 1 {
		t.Errorf("it did not go on: %d done, %d interruptions, %s", d.Done, d.Interrupt, d.Steps[0].Title)
	}
	if d = measured(t.Context(), nil); d.Steps[0].Title == "from before" {
		t.Error("a complete report was not begun anew")
	}

	d.Steps, d.Done, d.Machine.Processor = d.Steps[:1], 1, "another"
	must.OK(t, d.save(dir))
	if err := c.Run(t.Context(), quiet(io.Discard)); err == nil ||
		!strings.Contains(err.Error(), "of another machine or version") {
		t.Errorf("another machine's report: %v", err)
	}
}

func TestFolderThatCanNotBeWritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	must.OK(t, os.WriteFile(file, nil, 0o600))
	c := Command{Out: file, Quick: true, Only: []string{"floors"}}
	if err := c.Run(t.Context(), quiet(io.Discard)); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("error is %v", err)
	}
	must.OK(t, os.WriteFile(file, []byte("[]"), 0o600))
	must.OK(t, os.Rename(file, filepath.Join(filepath.Dir(file), measurementsFile)))
	if _, err := load(filepath.Dir(file)); err == nil ||
		!strings.Contains(err.Error(), "is not the work of bench report") {
		t.Errorf("error is %v", err)
	}
}

// unpacked returns a folder with the measurements of a committed report.
func unpacked(t *testing.T, committed string) (dir string) {
	t.Helper()
	explore.ReadsRepository()
	dir = t.TempDir()
	packed, err := os.Open(filepath.Join(committed, measurementsFile+".gz"))
	must.OK(t, err)
	defer packed.Close() //nolint:errcheck // it is only read
	reader, err := gzip.NewReader(packed)
	must.OK(t, err)
	text, err := io.ReadAll(reader)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, measurementsFile), text, 0o600)
	}
	must.OK(t, err)
	return dir
}

// TestCommittedReport: tables and pictures of docs/benchmarks are what their measurements give.
func TestCommittedReport(t *testing.T) {
	const committed = "../../../docs/benchmarks"
	dir := unpacked(t, committed)
	c := Command{Out: dir, Redraw: true}
	must.OK(t, c.Run(t.Context(), quiet(io.Discard)))
	files, err := os.ReadDir(committed)
	if drawn, _ := os.ReadDir(dir); err != nil || len(files) < 40 ||
		len(files) != len(drawn)-1 { // the page is not among them
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, f := range files {
		if f.Name() == measurementsFile+".gz" {
			continue
		}
		want, err := os.ReadFile(filepath.Join(dir, f.Name()))
		got, unread := os.ReadFile(filepath.Join(committed, f.Name()))
		if err != nil || unread != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what the measurements give; report --redraw writes it (%v, %v)", f.Name(),
				err, unread)
		}
	}
}

func rows(names []string, ops ...float64) *measure.Comparison {
	c := &measure.Comparison{LeftOut: []string{"redis-cell: not here"}}
	for i, name := range names {
		x := measure.Compared{Limiter: name, OpsPerSecond: ops[i],
			Curve: []latency.Point{{Quantile: 0.5, Latency: 100}, {Quantile: 0.99, Latency: 900}}}
		for _, part := range []float64{0.5, 1, 2} {
			x.ByRound = append(x.ByRound, measure.Round{OpsPerSecond: part * ops[i], Ratio: ops[i] / ops[0]})
		}
		c.Limiters = append(c.Limiters, x)
	}
	return c
}

// known is a document of which all is known.
func known() *document {
	slow := rows([]string{"trypema", "xtime-syncmap", "governor"}, 100, 50, 0)
	slow.Limiters[2].Failed = "governor: 3 calls, but 1 allowed and 1 denied"
	growth := rows([]string{"trypema", "trypema"}, 90, 30)
	growth.Limiters[0].Case, growth.Limiters[1].Case, growth.Workers = "1000", "1000000", 2
	exact := measure.Accuracy{Limiter: "trypema", Capacity: 100, Window: 1000,
		Step: measure.Timeline{Bin: 500, Admitted: []int{1, 60}, Offered: []int{1, 600}, Pause: 12}}
	for _, load := range []float64{0.95, 1.05, 2, 10} {
		exact.Loads = append(exact.Loads,
			measure.Load{Load: load, OfferedToLimit: load, AdmittedToLimit: min(1, load), Admitted: 99,
				Exact: 100, Fullest: 101})
	}
	return &document{
		Effort: "quick", Done: 5, Expected: 7, Missing: []string{"everything with Redis: no server"},
		Steps: []result{
			{ID: "hot-over", Title: "One key", Commands: []string{"go run ./internal/bench --keys hot"},
				Comparison: slow},
			{ID: "growth", Title: "Growth", Comparison: growth},
			{ID: "accuracy", Title: "Accuracy",
				Accuracy: []measure.Accuracy{exact, {Limiter: "ulule", Failed: "too late"}}},
			{ID: "memory-1k", Title: "Memory",
				Memory: []measure.Footprint{{Keys: 1000, Collection: []float64{1}},
					{Limiter: "trypema", Keys: 1000, BytesPerKey: []float64{150}}}},
			{ID: "skewed", Failed: "out of order"},
			{ID: "odd", Title: "Of another version <one>"},
		},
	}
}

func TestPromises(t *testing.T) {
	verdicts := make(map[string]string)
	for _, p := range known().promises() {
		verdicts[p.What] = p.Got() + " " + p.Verdict()
	}
	for what, want := range map[string]string{
		"hot key over its limit ÷ x/time/rate in a sync.Map":          "2 × missed",
		"hot key over its limit ÷ governor":                           "not measured ", // its run failed
		"time of a call, 1,000,000 keys ÷ 1,000 keys":                 "3 × ✓",
		"Local: most in any window ÷ C":                               "1.01 missed",
		"Local: admitted ÷ by an exact log, 0.5 to 2 times the limit": "99 % ✓",
		"Redis: hot key, 256 callers ÷ redis-cell by go-redis":        "not measured ",
	} {
		if verdicts[what] != want {
			t.Errorf("%s: %q, want %q", what, verdicts[what], want)
		}
	}
}

// TestOpening: the sentences are what the measurements say.
func TestOpening(t *testing.T) {
	d := known()
	d.Machine = machine{Processor: "Z80", Processors: 2, Go: "go1.25"}
	d.Began = time.Date(2026, 11, 25, 14, 0, 0, 0, time.UTC)
	one, two, three := 1.0, 1.994, 0.9
	d.Steps = append(d.Steps,
		result{ID: "windows", Fullest: []measure.Fullest{{Limiter: "trypema", Ratio: &one},
			{Limiter: "ulule", Ratio: &two}, {Limiter: "rust-trypema", Ratio: &three}, {Limiter: "throttled"},
			{Limiter: "tollbooth", Ratio: &two, Failed: "late"}}},
		result{ID: "windows-redis",
			Fullest: []measure.Fullest{{Limiter: "trypema-hybrid", Ratio: &three},
				{Limiter: "redis-cell", Ratio: &two}}},
		result{ID: "uniform-100k", Comparison: rows([]string{"trypema", "xtime-syncmap", "governor"}, 100, 90, 250)},
		result{ID: "uniform-1m", Comparison: rows([]string{"trypema", "xtime-syncmap"}, 300, 15)},
		result{ID: "redis-alone", Comparison: rows([]string{"trypema", "redis_rate"}, 80, 100)},
		result{ID: "hybrid-hot", Comparison: rows([]string{"trypema-local", "trypema-hybrid",
			"rust-trypema-hybrid"}, 80, 50, 20)},
		result{ID: "tail", Comparison: rows([]string{"trypema", "ulule"}, 80, 90)}, // where all do what is asked for
	)
	want := []string{
		"Measured on 2 × Z80 with go1.25 on 2026-11-25: compare numbers within this report alone.",
		"In its fullest window Trypema admitted 1.00 × the limit; of 3 other limiters 2 admitted more than " +
			"the limit, up to 1.99 ×.",
		"Trypema decides faster than all others on 3 of 5 workloads, from one key, far over its limit " +
			"(2.0 × xtime-syncmap) to a million keys (20 × xtime-syncmap).",
		"It is slower than the fastest other limiter on 100,000 keys (0.40 × governor); and Redis: " +
			"a lone caller (0.80 × redis_rate).",
	}
	got := d.Opening()
	for i := range got {
		got[i] = strings.ReplaceAll(got[i], "\u00a0×", " ×") // no line begins with the sign
	}
	if len(got) != 5 || !slices.Equal(got[:4], want) {
		t.Errorf("%q, want %q", got, want)
	}
	var reached, missed int
	for _, p := range d.promises() {
		switch p.Verdict() {
		case "✓":
			reached++
		case "missed":
			missed++
		}
	}
	marks := fmt.Sprintf("Of the %d marks that its design sets, it reaches %d and misses %d.",
		reached+missed, reached, missed)
	if got[4] != marks || missed == 0 || reached == 0 {
		t.Errorf("%q, want %q", got[4], marks)
	}
	d.Steps = nil
	if got := d.Opening(); len(got) != 1 {
		t.Errorf("of nothing it says %q", got)
	}
}

// TestGroups: every step is shown in one group, under a title of its own.
func TestGroups(t *testing.T) {
	in := make(map[string]int)
	for _, g := range groups {
		for _, id := range g.steps {
			in[id]++
		}
	}
	named := make(map[string]string)
	for _, e := range efforts {
		for _, s := range e.steps() {
			if in[s.ID] != 1 {
				t.Errorf("%s is in %d groups", s.ID, in[s.ID])
			}
			if other, known := named[s.Title]; known && other != s.ID {
				t.Errorf("%s and %s are both called %s", s.ID, other, s.Title)
			}
			named[s.Title] = s.ID
		}
	}
	for id := range in {
		if _, known := titles[id]; !known {
			t.Errorf("no step is called %s", id)
		}
	}
}

func TestSpread(t *testing.T) {
	p := promise{values: []float64{3, 1, 2}, write: whole, atLeast: 2}
	if p.Got() != "2 (1 – 3)" || p.Verdict() != "✓" {
		t.Errorf("%s %s", p.Got(), p.Verdict())
	}
	if got := spread([]float64{1.2, 1.4, 1.3, 0.9}, tenths); got != "1.2 (0.9 – 1.4)" {
		t.Error(got)
	}
}

// TestPartialReport: what is missing, or has failed, is shown and not left out.
func TestPartialReport(t *testing.T) {
	d := known()
	figures, err := d.figures()
	must.OK(t, err)
	for _, f := range figures {
		var svg struct {
			XMLName xml.Name `xml:"svg"`
		}
		if err := xml.Unmarshal(f.svg, &svg); err != nil {
			t.Errorf("%s is no picture: %v", f.ID, err)
		}
	}
	page, table, err := d.pages(figures)
	must.OK(t, err)
	for _, text := range []string{string(page), string(table)} {
		for _, want := range []string{
			"This report is partial.", "2 of 7 measurements are missing", "everything with Redis: no server",
			"skewed failed: out of order",
			"governor: 3 calls, but 1 allowed and 1 denied", "ulule: too late", "redis-cell: not here",
			"go run ./internal/bench --keys hot", "failed",
		} {
			if !strings.Contains(text, want) {
				t.Errorf("it does not say %q", want)
			}
		}
	}
	if bytes.Contains(page, []byte("<one>")) || !bytes.Contains(page, []byte("Of another version &lt;one&gt;")) {
		t.Error("a title is taken for a tag, or a step of another version is not shown")
	}
	if len(d.Partial()) == 0 || d.broken() != nil {
		t.Errorf("partial %v, broken %v", d.Partial(), d.broken())
	}
	d.Steps[0].Comparison.Limiters[0].Failed = "trypema: 5 admitted"
	if err := d.broken(); err == nil || !strings.Contains(err.Error(), "5 admitted") {
		t.Errorf("ours failed, and it says %v", err)
	}
}

// TestPasses: a later pass adds its rounds to those of the first, and nothing to limiters that it left out.
func TestPasses(t *testing.T) {
	d := new(document)
	s := step{ID: "hot-over", pass: 1}
	d.add(s, result{ID: s.ID, Comparison: rows([]string{"trypema", "ulule"}, 10, 5)})
	s.pass = 2
	if d.has(s) {
		t.Error("the second pass is done before it was")
	}
	d.add(s, result{ID: s.ID, Comparison: rows([]string{"trypema"}, 20)})
	x := d.step(s.ID).Comparison.Limiters
	if !d.has(s) || d.Done != 2 || len(x[0].ByRound) != 6 || len(x[1].ByRound) != 3 || x[0].OpsPerSecond != 15 {
		t.Errorf("unexpected: %+v", x)
	}
	if len(d.Steps) != 1 {
		t.Errorf("%d steps", len(d.Steps))
	}
}
