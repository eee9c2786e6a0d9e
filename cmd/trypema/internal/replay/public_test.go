package replay

import (
	"bufio"
	"cmp"
	"compress/gzip"
	"fmt"
	"os"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/trypema/trypema/internal/proof/must"
)

// event is a call of a public log, as this test reads it.
type event struct {
	at  time.Duration // since 1970
	key string
}

var common = regexp.MustCompile(`^(\S+) \S+ \S+ \[([^\]]+)\]`)

// publicLog reads a log of testdata, and puts it in order.
func publicLog(t *testing.T, name string) (events []event) {
	t.Helper()
	f, err := os.Open(name)
	must.OK(t, err)
	defer f.Close() //nolint:errcheck // it was only read
	unzipped, err := gzip.NewReader(f)
	must.OK(t, err)
	lines := bufio.NewScanner(unzipped)
	for lines.Scan() {
		found := common.FindStringSubmatch(lines.Text())
		at, err := time.Parse("02/Jan/2006:15:04:05 -0700", found[2])
		must.OK(t, err)
		events = append(events, event{time.Duration(at.UnixNano()), found[1]})
	}
	if err := lines.Err(); err != nil || len(events) != 10_000 {
		t.Fatalf("%v, %d events", err, len(events))
	}
	slices.SortStableFunc(events, func(a, b event) int { return cmp.Compare(a.at, b.at) })
	return events
}

// bound is a limit as the exact list of events keeps it.
type bound struct {
	most   int
	window time.Duration
}

// within counts the newest of some instants in order, those that are after another one.
func within(all []time.Duration, after time.Duration) (n int) {
	for n < len(all) && all[len(all)-1-n] > after {
		n++
	}
	return n
}

// exactly returns which calls of each key are denied by limits that are kept together.
func exactly(events []event, bounds ...bound) (denied map[string]uint64, all uint64) {
	denied = make(map[string]uint64)
	admitted := make(map[string][]time.Duration)
	for _, e := range events {
		allowed := true
		for _, b := range bounds {
			allowed = allowed && within(admitted[e.key], e.at-b.window) < b.most
		}
		if allowed {
			admitted[e.key] = append(admitted[e.key], e.at)
		} else {
			denied[e.key]++
			all++
		}
	}
	return denied, all
}

// busiestExactly returns the most calls that each key made in a window, in order.
func busiestExactly(events []event, window time.Duration) (all []uint64) {
	calls := make(map[string][]time.Duration)
	most := make(map[string]uint64)
	for _, e := range events {
		calls[e.key] = append(calls[e.key], e.at)
		most[e.key] = max(most[e.key], uint64(within(calls[e.key], e.at-window)))
	}
	for _, n := range most {
		all = append(all, n)
	}
	slices.Sort(all)
	return all
}

// TestPublicLogs compares what is reported of two public logs with an exact list of their events: each
// denial, each of the worst keys. A proposed limit limits as many keys as it says.
func TestPublicLogs(t *testing.T) {
	for _, x := range []struct {
		file    string
		percent float64
		sorted  uint64
		limits  map[string][]bound
		denied  map[string]uint64 // as documents say
	}{
		{
			"testdata/apache.log.gz", 99, 9_448,
			map[string][]bound{
				"30/1m":         {{30, time.Minute}},
				"10/10s,100/1h": {{10, 10 * time.Second}, {100, time.Hour}},
				"2/1s":          {{2, time.Second}},
			},
			map[string]uint64{"30/1m": 456, "10/10s,100/1h": 153},
		},
		{
			"testdata/nasa.log.gz", 99.9, 0,
			map[string][]bound{"10/1m": {{10, time.Minute}}, "3/1s,40/1h": {{3, time.Second}, {40, time.Hour}}},
			map[string]uint64{"10/1m": 70},
		},
	} {
		events := publicLog(t, x.file)
		c := Command{Files: []string{x.file}, Suggest: &x.percent, Reorder: time.Minute, MaxKeys: 10_000}
		for text := range x.limits {
			c.Limit = append(c.Limit, text)
		}
		r := run(t, c)
		if r.Calls != 10_000 || r.Wrong != 0 || r.TimesBack != 0 || r.Sorted != x.sorted {
			t.Errorf("%s: %+v", x.file, r)
		}
		for _, rule := range r.Rules {
			denied, all := exactly(events, x.limits[rule.Limit]...)
			if rule.Denied != all || rule.KeysLimited != uint64(len(denied)) || rule.MostInAWindow > 1 {
				t.Errorf("%s: %+v, want %d calls of %d keys denied", x.file, rule, all, len(denied))
			}
			for _, k := range rule.Worst {
				if k.Denied != denied[k.Key] {
					t.Errorf("%s: %s: %+v, want %d denied", x.file, rule.Limit, k, denied[k.Key])
				}
			}
			if want := x.denied[rule.Limit]; want != 0 && want != rule.Denied {
				t.Errorf("%s: %s denies %d, want %d", x.file, rule.Limit, rule.Denied, want)
			}
		}
		if len(r.Suggestions) < 4 {
			t.Errorf("%s: %+v", x.file, r.Suggestions)
		}
		for i, s := range r.Suggestions {
			// A window of the library counts a call for up to a bucket more.
			longer := suggested[i] + time.Duration(spanOf(suggested[i]).Bucket)
			most, mostLonger := busiestExactly(events, suggested[i]), busiestExactly(events, longer)
			if n := uint64(len(most) - 1); s.Busiest < most[n] || s.Busiest > mostLonger[n] {
				t.Errorf("%s: %+v, want a busiest of %d to %d", x.file, s, most[n], mostLonger[n])
			}
			c.Limit, c.Suggest = []string{s.Limit}, nil
			if got := run(t, c).Rules[0].KeysLimited; got != s.KeysOver {
				t.Errorf("%s: %+v, but the limit limits %d keys", x.file, s, got)
			}
			if most := float64(s.KeysOver) / float64(r.Keys); most > 1-x.percent/100+1e-9 {
				t.Errorf("%s: %+v leaves less than %g %% of %d keys alone", x.file, s, x.percent, r.Keys)
			}
		}
	}
}

// TestOrder: late lines are put in order, those that are too late are handed on at once, and none is lost.
func TestOrder(t *testing.T) {
	const second = int64(time.Second)
	for _, x := range []struct {
		name    string
		by      time.Duration
		in, out []int64 // seconds
		sorted  uint64
	}{
		{"in order", time.Minute, []int64{1, 2, 3, 300, 301}, []int64{1, 2, 3, 300, 301}, 0},
		{"late by less", time.Minute, []int64{10, 70, 11, 70, 12}, []int64{10, 11, 12, 70, 70}, 2},
		{"late by the most", time.Minute, []int64{100, 160, 100}, []int64{100, 100, 160}, 1},
		{"too late", time.Minute, []int64{100, 200, 100, 200}, []int64{100, 100, 200, 200}, 0},
		{"too late, and more is held", time.Minute, []int64{200, 230, 100, 201}, []int64{100, 200, 201, 230}, 1},
		{"a second apart", 2 * time.Second, []int64{5, 4, 6, 5, 9, 3}, []int64{4, 5, 5, 6, 3, 9}, 2},
		{"not at all", 0, []int64{5, 4, 6}, []int64{5, 4, 6}, 0},
		{"a day on", time.Minute, []int64{2, 1, 86_400}, []int64{1, 2, 86_400}, 1},
	} {
		var got []int64
		o := newOrder(x.by, func(l *line) {
			got = append(got, l.at/second)
			if string(l.key) != fmt.Sprint(l.at/second) {
				t.Errorf("%s: the key of %d is %s", x.name, l.at/second, l.key)
			}
		})
		for _, at := range x.in {
			o.add(&line{at * second, fmt.Append(nil, at)})
		}
		o.flush()
		if !slices.Equal(got, x.out) || o.sorted != x.sorted || o.held != 0 {
			t.Errorf("%s: %v, want %v; %d sorted, want %d; %d held", x.name, got, x.out, o.sorted, x.sorted, o.held)
		}
	}
}

// TestOrderHoldsSoMany: more lines at once than are held are handed on early, and none is lost.
func TestOrderHoldsSoMany(t *testing.T) {
	n := 0
	o := newOrder(time.Hour, func(*line) { n++ })
	o.most = 10_000
	for i := range int64(12_000) {
		o.add(&line{at: i * int64(time.Millisecond), key: []byte{'k'}})
		if o.held > o.most {
			t.Fatalf("%d are held", o.held)
		}
	}
	handed := n
	if o.flush(); handed == 0 || n != 12_000 {
		t.Errorf("%d lines before the end, %d in all", handed, n)
	}
}
