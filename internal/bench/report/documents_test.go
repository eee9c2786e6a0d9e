package report

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/trypema/trypema/internal/bench/measure"
	"github.com/trypema/trypema/internal/proof/must"
)

// update writes the numbers: see make docs.
var update = flag.Bool("update", false, "write what was measured into the documents")

// quoted are the places of documents that quote the committed report. A number stands in braces, by its name:
// what it is, of which step, and of which limiter there; see quote.
var quoted = []struct{ file, text string }{
	{"README.md", "go-limiter made {ratio uniform-1m go-limiter} times our calls, and governor, in Rust, " +
		"{ratio uniform-1m governor} times; with 100,000 keys, governor {ratio uniform-100k governor} times"},
	{"README.md", "gets {ratio redis-alone redis-cell} times as many answers from redis-cell"},
	{"README.md", "With 100,000 busy keys it had {ratio hybrid-100k trypema-hybrid} of Local's throughput"},
	{"README.md", "`x/time/rate` takes {bytes memory-1m xtime-xsync}, httprate {bytes memory-1m httprate}"},
	{"docs/migrating.md", "is {share hot-over rust-trypema} times as fast here, 100,000 keys " +
		"{share uniform-100k rust-trypema} times"},
	{"docs/benchmarks.md", "made {ratio uniform-1m go-limiter} times our calls with a million keys. " +
		"**governor** made {ratio uniform-1m governor} times our calls then, and " +
		"{ratio uniform-100k governor} times with 100,000"},
	{"docs/benchmarks.md", "gets {ratio redis-alone redis-cell} times as many answers from redis-cell"},
	{"docs/benchmarks.md", "had {ratio hybrid-100k trypema-hybrid} of Local's throughput"},
	{"docs/benchmarks.md", "a key takes {bytes memory-1m trypema} bytes. httprate takes " +
		"{bytes memory-1m httprate}, throttled {bytes memory-1m throttled}, and `x/time/rate` in an " +
		"xsync.Map {bytes memory-1m xtime-xsync}."},
	{"docs/benchmarks.md", "a clock read takes {floor 0} ns, the hash of a key {floor 1} ns. A contended " +
		"addition takes {floor 3} ns, and a load that no cache has {load 134217728} ns."},
	{"docs/operating.md", "{cpu redis-10k trypema} µs a decision"},
	{"docs/operating.md", "Redis, one hot key | {cpu redis-hot trypema} µs"},
	{"docs/operating.md", "Redis, a lone caller | {cpu redis-alone trypema} µs"},
	{"docs/scale.md", "the Redis provider takes {cpu redis-10k trypema} µs of a server for a decision on many keys"},
	{"docs/scale.md", "a million decisions a second need {nodes redis-10k trypema} half used nodes"},
}

var (
	placeholder = regexp.MustCompile(`\\\{(.*?)\\\}`)
	results     = regexp.MustCompile(`(?m)^\| row of the report \| measured \|\n(?:\|.*\n)+`)
)

// TestQuotedNumbers: the numbers that documents quote are those of the committed report, and so is the table
// of results in docs/benchmarks.md, whose rows are some of what is promised.
func TestQuotedNumbers(t *testing.T) {
	const root = "../../../"
	d, err := load(unpacked(t, root+"docs/benchmarks"))
	must.OK(t, err)
	differs := t.Errorf
	if *update {
		differs = t.Logf
	}
	texts := make(map[string]string)
	for _, q := range quoted {
		if _, known := texts[q.file]; !known {
			text, err := os.ReadFile(root + q.file)
			must.OK(t, err)
			texts[q.file] = string(text)
		}
		var names []string
		pattern := placeholder.ReplaceAllStringFunc(regexp.QuoteMeta(q.text), func(found string) string {
			name := placeholder.FindStringSubmatch(found)[1]
			names = append(names, strings.ReplaceAll(name, `\`, ""))
			return `([\d.,]*\d)`
		})
		at := regexp.MustCompile(strings.ReplaceAll(pattern, " ", `\s+`)).FindStringSubmatchIndex(texts[q.file])
		if at == nil {
			t.Errorf("%s does not say %q", q.file, q.text)
			continue
		}
		for i, name := range slices.Backward(names) { // so that what stands before it stays where it is
			from, to := at[2*i+2], at[2*i+3]
			got := texts[q.file][from:to]
			if want := d.quote(name); got != want {
				differs("%s: %q is %s, but says %s", q.file, name, want, got)
				texts[q.file] = texts[q.file][:from] + want + texts[q.file][to:]
			}
		}
	}
	const page = "docs/benchmarks.md"
	promises := d.promises()
	table := results.FindString(texts[page])
	written := table
	for _, row := range strings.Split(strings.TrimSpace(table), "\n")[2:] {
		cells := strings.Split(strings.Trim(row, "| "), " | ")
		i := slices.IndexFunc(promises, func(p promise) bool { return p.What == cells[0] })
		if i < 0 {
			t.Errorf("%s: nothing is promised of %q", page, cells[0])
			continue
		}
		if want := promises[i].Got(); cells[1] != want {
			differs("%s: %q is %s, but says %s", page, cells[0], want, cells[1])
			written = strings.Replace(written, row, fmt.Sprintf("| %s | %s |", cells[0], want), 1)
		}
	}
	texts[page] = strings.Replace(texts[page], table, written, 1)
	if *update {
		for file, text := range texts {
			must.OK(t, os.WriteFile(root+file, []byte(text), 0o600))
		}
	}
}

// quote returns a number by its name:
//
//	ratio STEP LIMITER   its calls ÷ those of the first limiter of the step
//	share STEP LIMITER   the other way round
//	cpu STEP LIMITER     time of the server for a decision, in µs
//	nodes STEP LIMITER   servers for a million of these in a second, used to half
//	bytes STEP LIMITER   memory of a key
//	floor N, load N      what nothing can do without, in ns: a part by its number, a load from so many bytes
func (d *document) quote(name string) string {
	words := strings.Fields(name)
	if words[0] == "floor" || words[0] == "load" {
		n, _ := strconv.Atoi(words[1])
		floors := d.step("floors").Floors
		if words[0] == "floor" {
			return digits(measure.Median(floors.Parts[n].Cost))
		}
		i := slices.IndexFunc(floors.Reaches, func(r measure.Reach) bool { return r.Bytes == n })
		return digits(measure.Median(floors.Reaches[i].Cost))
	}
	step, limiter := words[1], words[2]
	if words[0] == "bytes" {
		return whole(measure.Median(d.footprint(step, limiter).BytesPerKey))
	}
	row := d.row(step, "", limiter)
	if row == nil {
		return notMeasured
	}
	switch words[0] {
	case "ratio":
		return digits(row.Ratio)
	case "share":
		return digits(1 / row.Ratio)
	case "cpu":
		return digits(*row.RedisCPU / 1000)
	case "nodes":
		return whole(*row.RedisCPU / 1e9 * 1e6 / 0.5)
	}
	return "?"
}

// digits writes a number with two or three digits.
func digits(x float64) string {
	if x < 1 {
		return fmt.Sprintf("%.2f", x)
	}
	return fmt.Sprintf("%.3g", x)
}
