package policyfile_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/trypema/trypema/policyfile"
)

// plain is a file that is right, and named is the same with another name.
const plain = "policies:\n  - name: free\n    limits:\n      - {rate: 10/s}\n"

func named(name string) string { return strings.Replace(plain, "free", name, 1) }

// inJSON is plain with other values, which are JSON, for its name and its rate.
func inJSON(name, rate string) string {
	return `{"policies":[{"name":` + name + `,"limits":[{"rate":` + rate + `}]}]}`
}

// What is said of wrong names, rates and line separators.
const (
	printable = "printable UTF-8 without a space at either end"
	rateRule  = "a number above 0 per time, as in 10/s, 1000/h, 20/d or 5/15m; or unlimited"
	separator = "is in the file; versions of YAML differ in whether it ends a line"
)

// asPlain is what plain is read as.
const asPlain = `"free" 10 in 1s`

// documents are what a parser of YAML 1.2 or of JSON takes, and some that it does not. Each is read, as what
// it wants, or refused with a place and a reason.
var documents = []struct{ name, in, want string }{
	{"plain", plain, asPlain},
	{"a BOM", "\ufeff" + plain, asPlain},
	{"a BOM and a mark", "\ufeff---\n" + plain, asPlain},
	{"a BOM and JSON", "\ufeff" + inJSON(`"free"`, `"10/s"`), asPlain},
	{"CRLF", strings.ReplaceAll(plain, "\n", "\r\n"), asPlain},
	{"CR", strings.ReplaceAll(plain, "\n", "\r"), asPlain},
	{"no newline at the end", strings.TrimSuffix(plain, "\n"), asPlain},
	{"a comment first", "# plans\n\n" + plain, asPlain},
	{"a comment behind a value", strings.Replace(plain, "free", "free # of charge", 1), asPlain},

	{"a leading mark", "---\n" + plain, asPlain},
	{"a leading mark with a comment", "--- # plans\n" + plain, asPlain},
	{"two leading marks", "---\n---\n" + plain, asPlain},
	{"a trailing mark", plain + "---\n", asPlain},
	{"trailing marks", plain + "---\n---\n---\n", asPlain},
	{"a trailing mark and a comment", plain + "---\n# that is all\n", asPlain},
	{"a trailing mark without newline", plain + "---", asPlain},
	{"an end", plain + "...\n", asPlain},
	{"an end and a mark", plain + "...\n---\n# nothing\n", asPlain},
	{"an end and a comment", plain + "...\n# nothing\n", asPlain},
	{"a second document", plain + "---\n" + plain, `p.yaml:5:1: another document begins; there must be one`},
	{"a second document that is null", plain + "---\nnull\n",
		`p.yaml:5:1: another document begins; there must be one`},
	{"a second document after an empty one", plain + "---\n---\n" + plain,
		`p.yaml:6:1: another document begins; there must be one`},
	{"text behind an end", plain + "...\nmore\n", `p.yaml:6:1: another document begins; there must be one`},
	{"nothing but marks", "---\n---\n...\n", `p.yaml: the file is empty; it must be a mapping with policies`},
	{"JSON behind YAML", plain + "---\n" + inJSON(`"free"`,
		`"10/s"`), `p.yaml:5:1: another document begins; there must be one`},

	{"%YAML 1.0", "%YAML 1.0\n---\n" + plain, asPlain},
	{"%YAML 1.1", "%YAML 1.1\n---\n" + plain, asPlain},
	{"%YAML 1.2", "%YAML 1.2\n---\n" + plain, asPlain},
	{"%YAML 1.2 behind a comment", "# plans\n\n%YAML 1.2 # the newest\r\n---\n" + plain, asPlain},
	{"%YAML 1.3", "%YAML 1.3\n---\n" + plain, asPlain},
	{"%YAML 2.0", "%YAML 2.0\n---\n" + plain,
		`p.yaml:1:1: it cannot be read as YAML: found incompatible YAML document`},
	{"%YAML 1.2 twice", "%YAML 1.2\n%YAML 1.2\n---\n" + plain,
		`p.yaml:2:1: it cannot be read as YAML: found incompatible YAML document`},
	{"%YAML", "%YAML\n---\n" + plain,
		`p.yaml:1:6: it cannot be read as YAML: did not find expected version number`},
	{"%TAG", "%TAG ! tag:example.com,2000:\n---\n" + plain, asPlain},
	{"a directive that is unknown", "%OTHER x\n---\n" + plain,
		`p.yaml:1:7: it cannot be read as YAML: found unknown directive name`},
	{"%YAML 1.2 in a text", plain + "    strategy: \"\n%YAML 1.2\n\"\n",
		`p.yaml:5:15: policy "free": strategy is " %YAML 1.2 "; it must be absolute or suppressed`},

	{"JSON", inJSON(`"free"`, `"10/s"`), asPlain},
	{"JSON with blanks", "\n \t" + inJSON(`"free"`, `"10/s"`) + "\n\n  \n", asPlain},
	{"JSON with an escaped slash", inJSON(`"free"`, `"10\/s"`), asPlain},
	{"JSON with an escape", inJSON(`"fr\u00e9e"`, `"10/s"`), `"frée" 10 in 1s`},
	{"JSON with surrogates", inJSON(`"fr\ud83d\ude00ee"`, `"10/s"`), `"fr😀ee" 10 in 1s`},
	{"JSON with half a surrogate", inJSON(`"fr\ud83dee"`,
		`"10/s"`), `p.yaml:1:22: policy "fr�ee": the name is "fr�ee"; it must be ` + printable},
	{"JSON with surrogates in wrong order", inJSON(`"fr\ude00\ud83dee"`,
		`"10/s"`), `p.yaml:1:22: policy "fr��ee": the name is "fr��ee"; it must be ` + printable},
	{"JSON with an escaped zero", inJSON(`"fr\u0000ee"`,
		`"10/s"`), `p.yaml:1:22: policy "fr\x00ee": the name is "fr\x00ee"; it must be ` + printable},
	{"JSON with a line separator", inJSON("\"fr\u2028ee\"",
		`"10/s"`), `p.yaml:1:22: policy "fr\u2028ee": the name is "fr\u2028ee"; it must be ` + printable},
	{"JSON with DEL", inJSON("\"fr\x7fee\"",
		`"10/s"`), `p.yaml:1:25: a control character, or what is not UTF-8, is in the file`},
	{"JSON with a number for a name", inJSON(`5`,
		`"10/s"`), `p.yaml:1:22: policy 1: name is 5; it must be a text, which is not empty`},
	{"JSON with true for a name", inJSON(`true`,
		`"10/s"`), `p.yaml:1:22: policy 1: name is true; it must be a text, which is not empty`},
	{"JSON with null for a name", inJSON(`null`,
		`"10/s"`), `p.yaml:1:22: policy 1: name is null; it must be a text, which is not empty`},
	{"JSON with a list for a name", inJSON(`[]`,
		`"10/s"`), `p.yaml:1:22: policy 1: name is a list; it must be a text, which is not empty`},
	{"JSON with a mapping for a name", inJSON(`{}`,
		`"10/s"`), `p.yaml:1:22: policy 1: name is a mapping; it must be a text, which is not empty`},
	{"JSON with a number for a rate", inJSON(`"free"`, `10`),
		`p.yaml:1:47: policy "free": limit 1: rate is 10; it must be ` + rateRule},
	{"JSON with a name of YAML", inJSON(`"null"`, `"10/s"`), `"null" 10 in 1s`},
	{"JSON with a name twice", `{"policies":[],"policies":[]}`,
		"p.yaml:1:16: the file has the field policies twice; the first is in line 1\n" +
			"p.yaml:1:13: policies is empty; there must be at least 1"},
	{"JSON with a field in another case", `{"Policies":[]}`,
		"p.yaml:1:2: the file has a field \"Policies\"; it may have policies\np.yaml:1:1: policies is missing"},
	{"JSON with a cost", `{"policies":[{"name":"free","cost":5,"limits":[{"rate":"10/s"}]}]}`,
		`"free" cost 5 10 in 1s`},
	{"JSON with a cost of 5.0", `{"policies":[{"name":"free","cost":5.0,"limits":[{"rate":"10/s"}]}]}`,
		`p.yaml:1:36: policy "free": cost is 5.0; it must be a whole number, at least 1`},
	{"JSON with a cost of 1e1", `{"policies":[{"name":"free","cost":1e1,"limits":[{"rate":"10/s"}]}]}`,
		`p.yaml:1:36: policy "free": cost is 1e1; it must be a whole number, at least 1`},
	{"JSON with a cost that is a text", `{"policies":[{"name":"free","cost":"5","limits":[{"rate":"10/s"}]}]}`,
		`p.yaml:1:36: policy "free": cost is "5"; it must be a whole number, at least 1`},
	{"JSON with a key of 2,000 characters", `{"policies":[],"` + strings.Repeat("k", 2000) + `":1}`,
		"p.yaml:1:16: the file has a field \"kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk\"…; " +
			"it may have policies\np.yaml:1:13: policies is empty; there must be at least 1"},
	{"JSON that is a list", `[]`, `p.yaml:1:1: the file is a list; it must be a mapping with policies`},
	{"JSON that is a text", `"policies"`,
		`p.yaml:1:1: the file is "policies"; it must be a mapping with policies`},
	{"JSON that is null", `null`, `p.yaml:1:1: the file is null; it must be a mapping with policies`},
	{"JSON that is a number", ` 5`, `p.yaml:1:2: the file is 5; it must be a mapping with policies`},
	{"JSON that is nested", strings.Repeat("[", 17) + strings.Repeat("]", 17),
		`p.yaml:1:17: it cannot be read as JSON: exceeded max depth of 16`},
	{"JSON that is nested as deep as may be", strings.Repeat("[", 16) + strings.Repeat("]", 16),
		`p.yaml:1:1: the file is a list; it must be a mapping with policies`},
	{"JSON that is nested in a policy", "{\"policies\":[\n  {\"name\":" +
		strings.Repeat("[", 20) + strings.Repeat("]", 20) + "}]}",
		`p.yaml:2:24: it cannot be read as JSON: exceeded max depth of 16`},
	{"JSON with places after a character of two bytes", "{\"policies\":\n[{\"name\":\"fr\u00e9e\",  \"limits\": 5}]}",
		`p.yaml:2:29: policy "frée": limits is 5; it must be a list`},
	{"JSON with a comment is YAML",
		"{\"policies\":\n # plans\n [{\"name\":\"free\",\"limits\":[{\"rate\":\"10/s\"}]}]}", asPlain},
	{"JSON with a comma too many is YAML", `{"policies":[{"name":"free","limits":[{"rate":"10/s"},]},]}`, asPlain},
	{"JSON with a colon in the next line",
		"{\"policies\"\n:[{\"name\":\"free\",\"limits\":[{\"rate\":\"10/s\"}]}]}", asPlain},
	{"JSON in single quotes is YAML", `{'policies':[{'name':'free','limits':[{'rate':'10/s'}]}]}`, asPlain},
	{"JSON that is cut short", `{"policies":[{"name":"free"`,
		`p.yaml:2:1: it cannot be read as YAML: did not find expected ',' or '}'`},
	{"surrogates in YAML", "# in JSON they are one character\n" + named(`"fr\ud83d\ude00ee"`),
		`p.yaml:3:16: it cannot be read as YAML: found invalid Unicode character escape code`},

	{"a name of on", named("on"), `"on" 10 in 1s`},
	{"a name of no", named("no"), `"no" 10 in 1s`},
	{"a name of y", named("y"), `"y" 10 in 1s`},
	{"a name of true", named("true"),
		`p.yaml:2:11: policy 1: name is true; it must be a text, which is not empty`},
	{"a name of 1e3", named("1e3"),
		`p.yaml:2:11: policy 1: name is 1e3; it must be a text, which is not empty`},
	{"a name of 0x10", named("0x10"),
		`p.yaml:2:11: policy 1: name is 0x10; it must be a text, which is not empty`},
	{"a name of 0o7", named("0o7"),
		`p.yaml:2:11: policy 1: name is 0o7; it must be a text, which is not empty`},
	{"a name of 1_000", named("1_000"),
		`p.yaml:2:11: policy 1: name is 1_000; it must be a text, which is not empty`},
	{"a name of a date", named("2024-01-01"),
		`p.yaml:2:11: policy 1: name is 2024-01-01; it must be a text, which is not empty`},
	{"a name of null", named("null"),
		`p.yaml:2:11: policy 1: name is null; it must be a text, which is not empty`},
	{"a name of ~", named("~"), `p.yaml:2:11: policy 1: name is null; it must be a text, which is not empty`},
	{"a name of .inf", named(".inf"),
		`p.yaml:2:11: policy 1: name is .inf; it must be a text, which is not empty`},
	{"a name of <<", named("<<"), `p.yaml:2:11: policy 1: name is <<; it must be a text, which is not empty`},
	{"a name of =", named("="), `"=" 10 in 1s`},
	{"a name of 12:30:45", named("12:30:45"),
		`p.yaml:2:11: policy "12:30:45": the name is "12:30:45"; it must have no colon`},
	{"a name with the tag of texts", named("!!str 5"), `"5" 10 in 1s`},
	{"a name with a tag of its own", named("!custom free"),
		`p.yaml:2:11: policy 1: name is "free" with the tag "!custom"; it must be a text, which is not empty`},
	{"a name with a long tag", named("!<tag:example.com,2000:name> free"),
		`p.yaml:2:11: policy 1: name is "free" with the tag "tag:example.com,2000:name"; ` +
			`it must be a text, which is not empty`},
	{"a name with a binary tag", named("!!binary ZnJlZQ=="),
		`p.yaml:2:11: policy 1: name is ZnJlZQ==; it must be a text, which is not empty`},
	{"a name that is folded", named(">-\n      free\n      plan"), `"free plan" 10 in 1s`},
	{"a name that is literal", named("|\n      free"),
		`p.yaml:2:11: policy "free\n": the name is "free\n"; it must be ` + printable},
	{"a name that is literal, and stripped", named("|-\n      free"), asPlain},
	{"a name over two lines", named("free\n      plan"), `"free plan" 10 in 1s`},

	{"a blank behind the name", named(`"free "`),
		`p.yaml:2:11: policy "free ": the name is "free "; it must be ` + printable},
	{"a blank before the name", named(`" free"`),
		`p.yaml:2:11: policy " free": the name is " free"; it must be ` + printable},
	{"a blank within the name", named(`free plan`), `"free plan" 10 in 1s`},
	{"a tab in the name", named(`"free\tplan"`),
		`p.yaml:2:11: policy "free\tplan": the name is "free\tplan"; it must be ` + printable},
	{"a newline in the name", named(`"free\nplan"`),
		`p.yaml:2:11: policy "free\nplan": the name is "free\nplan"; it must be ` + printable},
	{"a zero in the name", named(`"free\0"`),
		`p.yaml:2:11: policy "free\x00": the name is "free\x00"; it must be ` + printable},
	{"a no-break space behind the name", named("free\u00a0"),
		`p.yaml:2:11: policy "free\u00a0": the name is "free\u00a0"; it must be ` + printable},
	{"a no-break space for a blank", strings.Replace(plain, "name: ", "name:\u00a0", 1),
		`p.yaml:3:11: it cannot be read as YAML: mapping values are not allowed in this context`},
	{"a zero-width space", named("free\u200b"),
		`p.yaml:2:11: policy "free\u200b": the name is "free\u200b"; it must be ` + printable},
	{"a zero-width joiner", named("fr\u200dee"),
		`p.yaml:2:11: policy "fr\u200dee": the name is "fr\u200dee"; it must be ` + printable},
	{"a soft hyphen", named("fr\u00adee"),
		`p.yaml:2:11: policy "fr\u00adee": the name is "fr\u00adee"; it must be ` + printable},
	{"a BOM in a name", named("free\ufeff"),
		`p.yaml:2:11: policy "free\ufeff": the name is "free\ufeff"; it must be ` + printable},
	{"from right to left", named("\u202eeerf"),
		`p.yaml:2:11: policy "\u202eeerf": the name is "\u202eeerf"; it must be ` + printable},
	{"a line separator behind the name", named("free\u2028"),
		`p.yaml:2:15: a line separator of Unicode ` + separator},
	{"a next line behind the name", named("free\u0085"),
		`p.yaml:2:15: a line separator of Unicode ` + separator},
	{"a paragraph separator in a comment", "# \u00e9 \u2029\n" + plain,
		`p.yaml:1:5: a line separator of Unicode ` + separator},
	{"an emoji", named("👍"), `"👍" 10 in 1s`},
	{"a combining accent", named("cafe\u0301"), `"café" 10 in 1s`},
	{"a blank behind a group", plain + "    group: \"plans \"\n",
		`p.yaml:5:12: policy "free": the group is "plans "; it must be ` + printable},
	{"a blank behind the name of a limit", strings.Replace(plain, "rate", "name: \"burst \", rate", 1),
		`p.yaml:4:16: policy "free": limit "burst ": name is "burst "; it must be ` + printable},
	{"a zero-width space in the name of a limit", strings.Replace(plain, "rate", "name: bu\u200brst, rate", 1),
		`p.yaml:4:16: policy "free": limit "bu\u200brst": name is "bu\u200brst"; it must be ` + printable},
	{"a blank behind a rate", strings.Replace(plain, "10/s",
		`"10/s "`, 1), `p.yaml:4:16: policy "free": limit 1: rate is "10/s "; it must be ` + rateRule},
	{"a strategy with a tag", plain + "    strategy: !custom absolute\n",
		`p.yaml:5:15: policy "free": strategy is "absolute" with the tag "!custom"; it must be absolute or suppressed`},
	{"a strategy in quotes", plain + "    strategy: 'absolute'\n", asPlain},

	{"an anchor that is not used", strings.Replace(plain, "limits:", "limits: &l", 1), asPlain},
	{"an anchor that is used", strings.Replace(plain, "limits:", "limits: &l", 1) + "  - name: b\n    limits: *l\n",
		`p.yaml:6:13: policy "b": limits is an alias, which is not followed; it must be a list`},
	{"a merge", "policies:\n  - &d\n    name: a\n    limits: [{rate: 10/s}]\n  - <<: *d\n    name: b\n",
		"p.yaml:5:5: policy \"b\" has a field <<; it may have name, group, strategy, cost, limits, shadow\n" +
			"p.yaml:5:5: policy \"b\": limits is missing"},
	{"a field of the reader's own", "x-defaults: {rate: 10/s}\n" + plain,
		`p.yaml:1:1: the file has a field "x-defaults"; it may have policies`},
	{"a field in quotes", strings.Replace(plain, "name", `"name"`, 1), asPlain},
	{"a field that is asked for", strings.Replace(plain, "name:", "? name\n    :", 1), asPlain},
	{"a tab for a blank", strings.Replace(plain, "name: ", "name:\t", 1), asPlain},
	{"a tab before a comment", strings.Replace(plain, "free", "free\t# of charge", 1), asPlain},
	{"a tab for indentation", "policies:\n\t- name: free\n",
		`p.yaml:2:1: it cannot be read as YAML: found character that cannot start any token`},
	{"no indentation of a list", "policies:\n- name: free\n  limits:\n  - rate: 10/s\n", asPlain},
	{"a control character on line 3 of CR", "policies:\r\r# \x01",
		`p.yaml:3:3: a control character, or what is not UTF-8, is in the file`},
	{"a control character on line 3 of CRLF", "policies:\r\n\r\n# \u00e9\x01",
		`p.yaml:3:4: a control character, or what is not UTF-8, is in the file`},
}

func TestDocuments(t *testing.T) {
	for _, d := range documents {
		if got := asRead(d.in); got != d.want {
			t.Errorf("%s: %s\nwant %s", d.name, got, d.want)
		}
	}
}

func asRead(file string) (s string) {
	list, err := policyfile.Parse("p.yaml", []byte(file))
	if err != nil {
		return err.Error()
	}
	for _, p := range list {
		l := p.Limits[0]
		capacity, _ := l.Rate.Capacity(l.Window)
		s += fmt.Sprintf("%q", p.Name)
		if p.Cost > 0 {
			s += fmt.Sprint(" cost ", p.Cost)
		}
		s += fmt.Sprint(" ", capacity, " in ", l.Window)
	}
	return s
}

// What JSON is read as, errors and their places included, is what the parser of YAML makes of it, where that
// takes it.
func TestJSONIsYAML(t *testing.T) {
	compared := 0
	for _, d := range documents {
		switch {
		case !json.Valid([]byte(d.in)):
			continue
		case regexp.MustCompile("surrogate|separator|2,000").MatchString(d.name):
			continue // which it does not take
		}
		compared++
		asYAML := asRead(d.in + "\n# a comment, which is not JSON\n")
		if want := strings.ReplaceAll(asRead(d.in), "read as JSON", "read as YAML"); asYAML != want {
			t.Errorf("%s: as YAML %s\nas JSON %s", d.name, asYAML, want)
		}
	}
	if compared < 20 {
		t.Errorf("%d documents were compared, want more", compared)
	}
}
