package policyfile_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/trypema/trypema/internal/proof/fixture"
	"github.com/trypema/trypema/internal/proof/leak"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/must"
	"github.com/trypema/trypema/policyfile"
)

func TestMain(m *testing.M) { leak.Main(m) }

// right is what the files below are, but for what is wrong with them.
const right = `policies:
  - name: api
    limits:
      - {rate: 10/s}
`

// limit is a file with one limit, in line 4.
func limit(fields string) string { return strings.Replace(right, "rate: 10/s", fields, 1) }

// The rules that files break, as errors end with them.
const (
	aPolicy = "it must be a mapping with name, group, strategy, cost, limits, shadow"
	aText   = "it must be a text, which is not empty"
	aCost   = "it must be a whole number, at least 1"
	aCount  = "it must be a whole number, at least 0"
	aRate   = "it must be a number above 0 per time, as in 10/s, 1000/h, 20/d or 5/15m; or unlimited"
	aWindow = "it must be a duration from 1ms to 36500d, as in 500ms, 1h30m or 7d"
)

// wrongFiles are files, and all that is said of them.
var wrongFiles = []struct{ name, file, want string }{
	{"nothing", "", `p.yaml: the file is empty; it must be a mapping with policies`},
	{"a comment", "# policies\n", `p.yaml: the file is empty; it must be a mapping with policies`},
	{"a document that is empty", "---\n", `p.yaml: the file is empty; it must be a mapping with policies`},
	{"null", "--- null\n", `p.yaml:1:5: the file is null; it must be a mapping with policies`},
	{"a text", "policies", `p.yaml:1:1: the file is "policies"; it must be a mapping with policies`},
	{"a list", "- name: api\n", `p.yaml:1:1: the file is a list; it must be a mapping with policies`},
	{"no policies", "{}", `p.yaml:1:1: policies is missing`},
	{"policies that are null", "policies:", `p.yaml:1:10: policies is null; it must be a list`},
	{"policies that are none", "policies: []", `p.yaml:1:11: policies is empty; there must be at least 1`},
	{"policies by name", "policies:\n  api: {limits: [{rate: 10/s}]}\n",
		`p.yaml:2:3: policies is a mapping; it must be a list`},
	{"two documents", right + "---\n" + right, `p.yaml:5:1: another document begins; there must be one`},
	{"too much", right + strings.Repeat("#", policyfile.MaxSize), `p.yaml: the file has more than 1048576 bytes`},

	{"no YAML", "policies: [\n", `p.yaml:2:1: it cannot be read as YAML: did not find expected node content`},
	{"a tab", "policies:\n\t- name: api\n",
		`p.yaml:2:1: it cannot be read as YAML: found character that cannot start any token`},
	{"too deep", strings.Repeat("[", 1000), `p.yaml:1:17: it cannot be read as YAML: exceeded max depth of 16`},
	{"a zero byte", "policies: []\n# \x00", `p.yaml:2:3: a control character, or what is not UTF-8, is in the file`},
	{"no UTF-8", "policies: []\n#\xff", `p.yaml:2:2: a control character, or what is not UTF-8, is in the file`},
	{"UTF-16", "\xff\xfep\x00", `p.yaml:1:1: the file is UTF-16; it must be UTF-8`},
	{"JSON cut short", `{"policies": [{"name": "api"`,
		`p.yaml:2:1: it cannot be read as YAML: did not find expected ',' or '}'`},

	{"an unknown anchor", "policies: *all\n",
		`p.yaml:1:11: it cannot be read as YAML: unknown anchor 'all' referenced`},
	{"an alias", "policies:\n  - &api\n    name: api\n    limits: [{rate: 10/s}]\n  - *api\n",
		`p.yaml:5:5: policy 2 is an alias, which is not followed; ` + aPolicy},
	{"a merge", "policies:\n  - name: api\n    limits:\n      - &ten {rate: 10/s}\n      - {<<: *ten, window: 1m}\n",
		"p.yaml:5:10: policy \"api\": limit 2 has a field <<; it may have name, rate, window, limit, unlimited\n" +
			`p.yaml:5:9: policy "api": limit 2: rate is missing`},
	{"an alias in itself", "policies: &all [*all]\n",
		`p.yaml:1:17: policy 1 is an alias, which is not followed; ` + aPolicy},

	{"an unknown field", right + "version: 1\n", `p.yaml:5:1: the file has a field "version"; it may have policies`},
	{"an unknown field of a policy", strings.Replace(right, "limits", "limit", 1),
		"p.yaml:3:5: policy \"api\" has a field \"limit\"; it may have name, group, strategy, cost, limits, shadow\n" +
			`p.yaml:2:5: policy "api": limits is missing`},
	{"an unknown field of a limit", limit("rate: 10/s, burst: 5"),
		`p.yaml:4:22: policy "api": limit 1 has a field "burst"; ` +
			`it may have name, rate, window, limit, unlimited`},
	{"a field in capitals", limit("Rate: 10/s"),
		`p.yaml:4:10: policy "api": limit 1 has a field "Rate"; ` +
			"it may have name, rate, window, limit, unlimited\n" +
			`p.yaml:4:9: policy "api": limit 1: rate is missing`},
	{"a field with a list for a name", "? [policies]\n: []\n",
		"p.yaml:1:3: the file has a field a list; it may have policies\np.yaml:1:1: policies is missing"},
	{"a field twice", limit("rate: 10/s,\n         rate: 1000/s"),
		`p.yaml:5:10: policy "api": limit 1 has the field rate twice; the first is in line 4`},
	{"a field twice in JSON", `{"policies": [{"name": "api", "cost": 1, "cost": 2, "limits": [{"rate": "10/s"}]}]}`,
		`p.yaml:1:42: policy "api" has the field cost twice; the first is in line 1`},

	{"a policy that is null", "policies:\n  -\n", `p.yaml:2:4: policy 1 is null; ` + aPolicy},
	{"a policy that is a text", "policies: [api]\n", `p.yaml:1:12: policy 1 is "api"; ` + aPolicy},
	{"no name", "policies:\n  - limits: [{rate: 10/s}]\n", `p.yaml:2:5: policy 1: name is missing`},
	{"an empty name", strings.Replace(right, "api", "''", 1), `p.yaml:2:11: policy 1: name is ""; ` + aText},
	{"a name that is a number", strings.Replace(right, "api", "42", 1), `p.yaml:2:11: policy 1: name is 42; ` + aText},
	{"a name that is a list", strings.Replace(right, "api", "[api]", 1),
		`p.yaml:2:11: policy 1: name is a list; ` + aText},
	{"a colon in a name", strings.Replace(right, "api", "a:b", 1),
		`p.yaml:2:11: policy "a:b": the name is "a:b"; it must have no colon`},
	{"a colon in a group", right + "    group: a:b\n",
		`p.yaml:5:12: policy "api": the group is "a:b"; it must have no colon`},
	{"an empty group", right + "    group:\n", `p.yaml:5:11: policy "api": group is null; ` + aText},
	{"a group, and no name", "policies:\n  - group: a:b\n    limits: [{rate: 10/s}]\n",
		"p.yaml:2:5: policy 1: name is missing\n" +
			`p.yaml:2:12: policy "?": the group is "a:b"; it must have no colon`},
	{"a name that is too long", strings.Replace(right, "api", strings.Repeat("n", 65), 1),
		`p.yaml:2:11: policy "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn": the name has 65 bytes; it must have from 1 to 64`},
	{"a name twice", right + "  - name: api\n    limits: [{rate: 1/s}]\n",
		`p.yaml:5:5: policy "api" is there twice; the first is in line 2`},

	{"no such strategy", right + "    strategy: lax\n",
		`p.yaml:5:15: policy "api": strategy is "lax"; it must be absolute or suppressed`},
	{"a strategy that is null", right + "    strategy:\n",
		`p.yaml:5:14: policy "api": strategy is null; it must be absolute or suppressed`},

	{"a cost of 0", right + "    cost: 0\n", `p.yaml:5:11: policy "api": cost is 0; ` + aCost},
	{"a negative cost", right + "    cost: -1\n", `p.yaml:5:11: policy "api": cost is -1; ` + aCost},
	{"a cost that is not whole", right + "    cost: 1.5\n", `p.yaml:5:11: policy "api": cost is 1.5; ` + aCost},
	{"a cost that is a text", right + "    cost: '5'\n", `p.yaml:5:11: policy "api": cost is "5"; ` + aCost},
	{"a cost in other digits", right + "    cost: 0x5\n", `p.yaml:5:11: policy "api": cost is 0x5; ` + aCost},
	{"a cost that may be octal", right + "    cost: 010\n", `p.yaml:5:11: policy "api": cost is 010; ` + aCost},
	{"a cost of NaN", right + "    cost: .nan\n", `p.yaml:5:11: policy "api": cost is .nan; ` + aCost},
	{"a cost beyond 64 bits", right + "    cost: 18446744073709551616\n",
		`p.yaml:5:11: policy "api": cost is 18446744073709551616; ` + aCost},
	{"a cost above the limit", right + "    cost: 11\n",
		`p.yaml:5:11: policy "api": cost is 11; ` +
			`it must be at most 10, which is all that limit "1s" can hold`},

	{"no limits", "policies: [{name: api}]\n", `p.yaml:1:12: policy "api": limits is missing`},
	{"limits that are none", "policies: [{name: api, limits: []}]\n",
		`p.yaml:1:32: policy "api": limits is empty; there must be at least 1`},
	{"limits that are no list", "policies: [{name: api, limits: {rate: 10/s}}]\n",
		`p.yaml:1:32: policy "api": limits is a mapping; it must be a list`},
	{"too many limits", "policies: [{name: api, limits: [1, 2, 3, 4, 5, 6, 7, 8, 9]}]\n",
		`p.yaml:1:32: policy "api": limits has 9 elements; there must be at most 8`},
	{"a limit that is a number", "policies: [{name: api, limits: [10]}]\n",
		`p.yaml:1:33: policy "api": limit 1 is 10; ` +
			`it must be a mapping with name, rate, window, limit, unlimited, or a text such as 10/s`},
	{"a limit that is a text of no limit", "policies: [{name: api, limits: [10/fortnight]}]\n",
		`p.yaml:1:33: policy "api": limit 1: limit is "10/fortnight"; it must be a number per time, ` +
			`as in 10/s, 1000/h, 20/d or 5/15m; or "none"; after a name and "=" if it has one`},
	{"a limit that is a text with a wrong name", "policies: [{name: api, limits: ['a\u200b=10/s']}]\n",
		`p.yaml:1:33: policy "api": limit 1: limit "a\u200b": ` +
			`the name must be printable UTF-8 without a space at either end`},
	{"a window twice in texts", "policies: [{name: api, limits: [10/m, 20/1m]}]\n",
		`p.yaml:1:39: policy "api": limits "1m0s" and "1m0s" both have the name "1m0s" or the window 1m0s; ` +
			`each must have its own`},
	{"a limit beside a rate", limit("rate: 10/s, limit: 10, window: 1s"),
		`p.yaml:4:29: policy "api": limit 1 has both rate and limit; ` +
			`it must have one of rate, limit and unlimited`},
	{"no limit beside a limit", limit("limit: 10, unlimited: true"),
		`p.yaml:4:32: policy "api": limit 1 has both limit and unlimited; ` +
			`it must have one of rate, limit and unlimited`},
	{"a limit without a window", limit("limit: 10"),
		`p.yaml:4:9: policy "api": limit 1: window is missing; it must be there unless the limit is 0`},
	{"a limit that is negative", limit("limit: -1, window: 1s"),
		`p.yaml:4:17: policy "api": limit 1: limit is -1; ` + aCount},
	{"a limit that is not whole", limit("limit: 1.5, window: 1s"),
		`p.yaml:4:17: policy "api": limit 1: limit is 1.5; ` + aCount},
	{"a limit of nothing", limit("limit:"), `p.yaml:4:16: policy "api": limit 1: limit is null; ` + aCount},
	{"a limit that may be octal", limit("limit: 00"), `p.yaml:4:17: policy "api": limit 1: limit is 00; ` + aCount},
	{"no limit that is one", limit("unlimited: false"),
		`p.yaml:4:21: policy "api": limit 1: unlimited is false; it must be true, or left out`},
	{"no limit that is a number", limit("unlimited: 1"),
		`p.yaml:4:21: policy "api": limit 1: unlimited is 1; it must be true, or left out`},
	{"no limit with a window", limit("unlimited: true, window: 1s"),
		`p.yaml:4:35: policy "api": limit 1 has a window; ` +
			`it must be left out, as an unlimited limit has none`},
	{"a shadow that is a text", right + "    shadow: 'true'\n",
		`p.yaml:5:13: policy "api": shadow is "true"; it must be true or false`},
	{"a shadow of nothing", right + "    shadow:\n",
		`p.yaml:5:12: policy "api": shadow is null; it must be true or false`},
	{"a cost above a block and a limit", "policies: [{name: api, cost: 11, limits: [0/s, 10/m]}]\n",
		`p.yaml:1:30: policy "api": cost is 11; ` +
			`it must be at most 10, which is all that limit "1m0s" can hold`},
	{"an empty name of a limit", limit("name: '', rate: 10/s"),
		`p.yaml:4:16: policy "api": limit 1: name is ""; ` + aText},
	{"a window twice", right + "      - {rate: 20/s}\n",
		`p.yaml:5:9: policy "api": limits "1s" and "1s" both have the name "1s" or the window 1s; ` +
			`each must have its own`},
	{"a name of a limit twice", limit("name: a, rate: 10/s") + "      - {name: a, rate: 20/m}\n",
		`p.yaml:5:9: policy "api": limits "a" and "a" both have the name "a" or the window 1m0s; ` +
			`each must have its own`},

	{"no rate", limit("name: burst"), `p.yaml:4:9: policy "api": limit "burst": rate is missing`},
	{"a rate that is null", limit("rate:"), rate(15, "null")},
	{"a rate that is a number", limit("rate: 10"), rate(16, "10")},
	{"a rate per what", limit("rate: 10/fortnight"), rate(16, `"10/fortnight"`)},
	{"a rate per nothing", limit("rate: 10/"), rate(16, `"10/"`)},
	{"a rate per no time", limit("rate: 10/0s"), rate(16, `"10/0s"`)},
	{"a rate per too little time", limit("rate: 10000/999us"), rate(16, `"10000/999us"`)},
	{"a rate per seconds and minutes", limit("rate: 10/s/m"), rate(16, `"10/s/m"`)},
	{"a rate without number", limit("rate: /s"), rate(16, `"/s"`)},
	{"a rate of 0", limit("rate: 0/s"), rate(16, `"0/s"`)},
	{"a rate that is too small for a number", limit("rate: 0." + strings.Repeat("0", 400) + "1/s"),
		rate(16, `"0.`+strings.Repeat("0", 38)+`"…`)},
	{"a negative rate", limit("rate: -10/s"), rate(16, `"-10/s"`)},
	{"a signed rate", limit("rate: +10/s"), rate(16, `"+10/s"`)},
	{"a rate of NaN", limit("rate: nan/s"), rate(16, `"nan/s"`)},
	{"the number NaN", limit("rate: .nan"), rate(16, `.nan`)},
	{"an infinite rate", limit("rate: inf/s"), rate(16, `"inf/s"`)},
	{"a rate that is too large for a number", limit("rate: 1" + strings.Repeat("0", 400) + "/s"),
		rate(16, `"1`+strings.Repeat("0", 39)+`"…`)},
	{"a rate that is too large in a second", limit("rate: 1" + strings.Repeat("0", 308) + "/1ms"),
		rate(16, `"1`+strings.Repeat("0", 39)+`"…`)},
	{"a rate with an exponent", limit("rate: 1e3/s"), rate(16, `"1e3/s"`)},
	{"a rate with spaces", limit("rate: 10 / s"), rate(16, `"10 / s"`)},
	{"a rate with half a fraction", limit("rate: 10./s"), rate(16, `"10./s"`)},
	{"no limit in capitals", limit("rate: Unlimited, window: 1h"), rate(16, `"Unlimited"`)},
	{"no window for no limit", limit("rate: unlimited"),
		`p.yaml:4:9: policy "api": limit 1: window is missing; it must be there if the rate is unlimited`},
	{"a rate below one", limit("rate: 1/h, window: 1m"),
		`p.yaml:4:16: policy "api": limit 1: rate is "1/h", less than one in a window of 1m0s; ` +
			`raise the rate or lengthen the window`},
	{"a rate below one in its own time", limit("rate: 0.5/s"),
		`p.yaml:4:16: policy "api": limit 1: rate is "0.5/s", less than one in a window of 1s; ` +
			`raise the rate or lengthen the window`},

	{"a window that is null", limit("rate: 10/s, window:"), window(29, "null")},
	{"a window without unit", limit("rate: 10/s, window: 60"), window(30, "60")},
	{"a window of 0", limit("rate: 10/s, window: 0s"), window(30, `"0s"`)},
	{"a negative window", limit("rate: 10/s, window: -1h"), window(30, `"-1h"`)},
	{"a negative day", limit("rate: 10/s, window: -1d"), window(30, `"-1d"`)},
	{"a day less an hour", limit("rate: 10/s, window: 1d-1h"), window(30, `"1d-1h"`)},
	{"two days", limit("rate: 10/s, window: 1d1d"), window(30, `"1d1d"`)},
	{"no days", limit("rate: 10/s, window: d"), window(30, `"d"`)},
	{"a window that is too short", limit("rate: 9999999/s, window: 999us"), window(35, `"999us"`)},
	{"a window that is too long", limit("rate: 10/s, window: 36500d1ns"), window(30, `"36500d1ns"`)},
	{"a window beyond any duration", limit("rate: 10/s, window: 9999999999h"), window(30, `"9999999999h"`)},
	{"days beyond any duration", limit("rate: 10/s, window: 99999999999999999999d"),
		window(30, `"99999999999999999999d"`)},
	{"days that wrap around", limit("rate: 10/s, window: 213505d"), window(30, `"213505d"`)},
	{"a signed window", limit("rate: 10/s, window: +1h"), window(30, `"+1h"`)},
	{"a signed day", limit("rate: 10/s, window: +1d"), window(30, `"+1d"`)},
	{"a window in months", limit("rate: 10/s, window: 1mo"), window(30, `"1mo"`)},

	{"several things", `policies:
  - name: free
    limits:
      - {name: second, rate: 10/fortnight}
      - {name: hour, rate: 1000/h, window: hour}
  - name: pro
    strategy: fast
    limits: [{rate: 100/s}]
`, `p.yaml:4:30: policy "free": limit "second": rate is "10/fortnight"; ` + aRate + `
p.yaml:5:44: policy "free": limit "hour": window is "hour"; ` + aWindow + `
p.yaml:7:15: policy "pro": strategy is "fast"; it must be absolute or suppressed`},
}

// rate is what is said of a wrong one in line 4.
func rate(column int, shown string) string {
	return fmt.Sprintf(`p.yaml:4:%d: policy "api": limit 1: rate is %s; `+aRate, column, shown)
}

func window(column int, shown string) string {
	return fmt.Sprintf(`p.yaml:4:%d: policy "api": limit 1: window is %s; `+aWindow, column, shown)
}

func TestWrongFiles(t *testing.T) {
	if _, err := policyfile.Parse("p.yaml", []byte(right)); err != nil {
		t.Fatal(err)
	}
	for _, wrong := range wrongFiles {
		list, err := policyfile.Parse("p.yaml", []byte(wrong.file))
		if err == nil || err.Error() != wrong.want || list != nil {
			t.Errorf("%s: %v; it says\n%v\nwant\n%s", wrong.name, list, err, wrong.want)
		}
	}
}

// What is wrong can be had one by one, and not without end.
func TestErrors(t *testing.T) {
	_, err := policyfile.Parse("p.yaml", []byte("policies: ["+strings.Repeat("api,\n", 1000)+"]"))
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatal(err)
	}
	errs := joined.Unwrap()
	var last *policyfile.Error
	if len(errs) != 51 || !errors.As(errs[50], &last) ||
		*last != (policyfile.Error{File: "p.yaml", Problem: "there is more that is wrong, after 50 errors"}) {
		t.Errorf("%d errors, the last is %v", len(errs), errs[len(errs)-1])
	}
	if !errors.As(errs[7], &last) || last.Line != 8 || last.Column != 1 {
		t.Errorf("%+v", last)
	}
}

// All that a file can say, and the same in JSON, with tabs.
func TestRightFile(t *testing.T) {
	want := []trypema.Policy{
		{Name: "free", Group: "plans", Limits: []trypema.Limit{
			{Name: "burst", Rate: trypema.PerSecond(10), Window: time.Second},
			{Rate: trypema.PerDay(1000), Window: 24 * time.Hour},
		}},
		{Name: "Straße 7", Strategy: trypema.StrategySuppressed, Cost: 3, Limits: []trypema.Limit{
			{Rate: trypema.PerMinute(2.5), Window: 90 * time.Minute},
			{Rate: trypema.Per(5, 15*time.Minute), Window: 15 * time.Minute},
			{Name: "week", Rate: trypema.Unlimited, Window: 7*24*time.Hour + 500*time.Millisecond},
			{Rate: trypema.PerHour(30), Window: time.Hour},
		}},
		{Name: "null", Limits: []trypema.Limit{
			{Rate: trypema.PerSecond(1e6), Window: time.Millisecond},
			{Rate: trypema.PerDay(1), Window: 36500 * 24 * time.Hour},
		}},
	}
	for name, file := range map[string]string{
		"YAML": `# the plans
policies:
  - name: free
    group: plans
    limits:
      - name: burst
        rate: 10/s
      - rate: 1000/d
  - {name: "Stra\u00DFe 7", cost: 3, strategy: suppressed, limits: [
      {rate: 2.5/m, window: 1h30m}, {rate: 5/15m}, {name: week, rate: unlimited, window: 7d500ms}, {rate: 30/h}]}
  - name: "null"
    strategy: absolute
    limits:
      - {window: 1ms, rate: 1000000/s}
      - {window: 36500d, rate: 1/1d}
...
`,
		"JSON": `{
	"policies": [
		{"name": "free", "group": "plans", "limits": [{"name": "burst", "rate": "10\/s"}, {"rate": "1000/d"}]},
		{
			"name":	"Stra\u00dfe 7", "cost": 3, "strategy": "suppressed",
			"limits": [
				{"rate": "2.5/m", "window": "1h30m"},
				{"rate": "5/15m"},
				{"name": "week", "rate": "unlimited", "window": "7d500ms"},
				{"rate": "30/h"}
			]
		},
		{"name":"null","strategy":"absolute","limits":[{"window":"1ms","rate":"1000000/s"},{"window":"36500d","rate":"1/1d"}]}
	]
}`,
	} {
		for _, ending := range []string{"\n", "\r\n"} {
			list, err := policyfile.Parse("p", []byte(strings.ReplaceAll(file, "\n", ending)))
			if err != nil || !reflect.DeepEqual(list, want) {
				t.Errorf("%s: %v\n%+v\nwant\n%+v", name, err, list, want)
			}
		}
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policies.yaml")
	if _, err := policyfile.Load(path); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("a file that is not there: %v", err)
	}
	if _, err := policyfile.Load(filepath.Dir(path)); err == nil ||
		!strings.Contains(err.Error(), filepath.Dir(path)) {
		t.Errorf("a folder: %v", err)
	}
	for _, size := range []int{policyfile.MaxSize, policyfile.MaxSize + 1} {
		write(t, path, right+strings.Repeat("#", size-len(right)))
		if list, err := policyfile.Load(path); (err == nil) != (size == policyfile.MaxSize) ||
			err != nil && (list != nil || err.Error() != path+": the file has more than 1048576 bytes") {
			t.Errorf("%d bytes: %v, %v", size, list, err)
		}
	}
	write(t, path, limit("rate: 0/s"))
	if list, err := policyfile.Load(path); err == nil || !strings.HasPrefix(err.Error(), path+":4:16: ") ||
		list != nil {
		t.Errorf("%v, %v", list, err)
	}
}

func write(t testing.TB, path, text string) {
	t.Helper()
	must.OK(t, os.WriteFile(path, []byte(text), 0o600))
}

// Whatever the file, Parse does not panic; what it takes, limiters take; and what is wrong is somewhere in
// the file.
func FuzzParse(f *testing.F) {
	f.Add([]byte(right))
	for _, wrong := range wrongFiles {
		if len(wrong.file) < 1<<10 { // longer ones are slow to change, and say no more
			f.Add([]byte(wrong.file))
		}
	}
	for _, d := range documents {
		f.Add([]byte(d.in))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := policyfile.Parse("p", data)
		if err == nil {
			limits := fixture.Local(t, trypema.Options{})
			p := fixture.Policies(t, limits, list...)
			for _, name := range p.Names() {
				if d, err := p.Allow(t.Context(), name, "k"); err != nil ||
					!d.Allowed && d.Outcome != trypema.OutcomeSuppressed {
					t.Fatalf("the first call by %q: %+v, %v", name, d, err)
				}
			}
			return
		}
		joined, ok := err.(interface{ Unwrap() []error })
		if !ok || len(joined.Unwrap()) == 0 || list != nil {
			t.Fatal(list, err)
		}
		if json.Valid(data) && strings.Contains(err.Error(), "read as YAML") {
			t.Fatalf("JSON is taken for YAML: %v", err)
		}
		lines := 2 // the one after the end of the last is where something may be missing
		for _, end := range []string{"\n", "\r", "\u0085", "\u2028", "\u2029"} {
			lines += strings.Count(string(data), end)
		}
		for _, err := range joined.Unwrap() {
			var one *policyfile.Error
			if !errors.As(err, &one) || one.Problem == "" || strings.Contains(one.Problem, "\n") ||
				one.Line < 0 || one.Line > lines {
				t.Fatalf("%#v", err)
			}
		}
	})
}

// Blocks, limits that keep nothing, policies in shadow, and the short form of a limit.
func TestForms(t *testing.T) {
	of := func(limits ...trypema.Limit) trypema.Policy { return trypema.Policy{Limits: limits} }
	none, perMinute, perSecond := trypema.NoLimit, trypema.AtMost(100, time.Minute), trypema.AtMost(10, time.Second)
	day, blocked := trypema.AtMost(1000, 24*time.Hour), trypema.AtMost(0, time.Millisecond)
	for text, want := range map[string]trypema.Policy{
		"limits: [100/m]":                            of(perMinute),
		"limits: [100/m, burst=10/s, day=1000/1d]":   of(perMinute, perSecond.Named("burst"), day.Named("day")),
		"limits: [{limit: 100, window: 1m}]":         of(perMinute),
		"limits: [{limit: 1, window: 7d, name: a}]":  of(trypema.AtMost(1, 7*24*time.Hour).Named("a")),
		"limits: [{limit: 0}]":                       of(blocked.Named("blocked")),
		"limits: [{limit: 0, name: off}, 10/s]":      of(blocked.Named("off"), perSecond),
		"limits: [{limit: 0, window: 1h}]":           of(trypema.AtMost(0, time.Hour)),
		"limits: [0/h]":                              of(trypema.AtMost(0, time.Hour)),
		"limits: [{unlimited: true}]":                of(none),
		"limits: [none, {unlimited: true, name: b}]": of(none, none.Named("b")),
		"limits: [unlimited/1h]":                     of(trypema.Limit{Rate: trypema.Unlimited, Window: time.Hour}),
		"shadow: true, limits: [10/s]":               {Shadow: true, Limits: []trypema.Limit{perSecond}},
		"shadow: false, limits: [10/s]":              of(perSecond),
	} {
		want.Name = "api"
		list, err := policyfile.Parse("p.yaml", []byte("policies: [{name: api, "+text+"}]"))
		if err != nil || len(list) != 1 || !reflect.DeepEqual(list[0], want) {
			t.Errorf("%s is %+v, %v; want %+v", text, list, err, want)
		}
	}
	// They are what they say, once a provider has them.
	list, err := policyfile.Parse("p.json", []byte(`{"policies": [
		{"name": "banned", "limits": [{"limit": 0}]},
		{"name": "staff", "limits": [{"unlimited": true}]},
		{"name": "trial", "shadow": true, "limits": ["1/h"]}]}`))
	must.OK(t, err)
	limits := fixture.Local(t, trypema.Options{})
	policies := fixture.Policies(t, limits, list...)
	for policy, want := range map[string]string{
		"banned": "rejected false blocked", "staff": "allowed false ", "trial": "allowed true 1h0m0s",
	} {
		var got string
		for range 2 {
			d, err := policies.Allow(t.Context(), policy, "a")
			must.OK(t, err)
			got = fmt.Sprint(d.Outcome, " ", d.Shadowed, " ", d.RefusedBy)
		}
		if got != want {
			t.Errorf("%s: %s, want %s", policy, got, want)
		}
	}
}
