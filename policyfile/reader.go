package policyfile

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
	"go.yaml.in/yaml/v4/plugin/loaderlimits"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/invalid"
	"github.com/trypema/trypema/internal/pertime"
)

const (
	maxDepth  = 16 // of what is nested; a file of policies needs five
	maxErrors = 50
)

// reader makes policies of a file, and collects what is wrong with it.
type reader struct {
	file  string
	errs  []error
	wrong int // also counts those that are no longer collected
}

func (r *reader) errorAt(line, column int, format string, args ...any) {
	r.wrong++
	switch {
	case r.wrong == maxErrors+1:
		line, column, format, args = 0, 0, "there is more that is wrong, after %d errors", []any{maxErrors}
	case r.wrong > maxErrors:
		return
	}
	r.errs = append(r.errs, &Error{r.file, line, column, fmt.Sprintf(format, args...)})
}

// errorIn is an error at an offset.
func (r *reader) errorIn(data []byte, at int, format string, args ...any) {
	before := data[:at]
	count := func(end string) int { return bytes.Count(before, []byte(end)) }
	line := 1 + count("\n") + count("\r") - count("\r\n")
	r.errorAt(line, 1+utf8.RuneCount(before[1+bytes.LastIndexAny(before, "\r\n"):]), format, args...)
}

func (r *reader) errorf(at *yaml.Node, format string, args ...any) {
	r.errorAt(at.Line, at.Column, format, args...)
}

// said is what the other package found wrong, without its name.
func said(err error) string { return strings.TrimPrefix(err.Error(), "trypema: ") }

// shown is how a value is told in an error.
func shown(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.AliasNode:
		return "an alias, which is not followed"
	case n.Tag == "!!null":
		return "null"
	case !strings.HasPrefix(n.Tag, "!!"):
		return fmt.Sprintf("%.40q with the tag %.40q", n.Value, n.Tag)
	case len(n.Value) > 40:
		return fmt.Sprintf("%.40q…", n.Value)
	case n.Tag == "!!str" || strings.ContainsAny(n.Value, "\r\n"):
		return strconv.Quote(n.Value)
	}
	return n.Value
}

// called is what an element of a list is called in errors: by its name or, if it has none, by its number.
func called(n *yaml.Node, kind string, i int) string {
	if n.Kind == yaml.MappingNode {
		for j := 0; j < len(n.Content); j += 2 {
			if name := n.Content[j+1]; n.Content[j].Value == "name" && name.Tag == "!!str" && name.Value != "" {
				return kind + " " + shown(name)
			}
		}
	}
	return kind + " " + strconv.Itoa(i+1)
}

// fields returns the fields of a mapping by their names.
func (r *reader) fields(n *yaml.Node, what string, known ...string) map[string]*yaml.Node {
	if n.Kind != yaml.MappingNode {
		r.errorf(n, "%s is %s; it must be a mapping with %s", what, shown(n), strings.Join(known, ", "))
		return nil
	}
	fields := make(map[string]*yaml.Node)
	for i := 0; i < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case key.Kind != yaml.ScalarNode || !slices.Contains(known, key.Value):
			r.errorf(key, "%s has a field %s; it may have %s", what, shown(key), strings.Join(known, ", "))
		case fields[key.Value] != nil:
			r.errorf(key, "%s has the field %s twice; the first is in line %d", what, key.Value,
				fields[key.Value].Line)
		default:
			fields[key.Value] = value
		}
	}
	return fields
}

// list returns the elements of a list, of which there must be from 1 to most.
func (r *reader) list(n *yaml.Node, what string, most int) []*yaml.Node {
	switch {
	case n.Kind != yaml.SequenceNode:
		r.errorf(n, "%s is %s; it must be a list", what, shown(n))
	case len(n.Content) == 0:
		r.errorf(n, "%s is empty; there must be at least 1", what)
	case len(n.Content) > most:
		r.errorf(n, "%s has %d elements; there must be at most %d", what, len(n.Content), most)
	default:
		return n.Content
	}
	return nil
}

// text returns a text that is not empty, or says the rule.
func (r *reader) text(n *yaml.Node, what, rule string) (s string, ok bool) {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!str" && n.Value != "" {
		return n.Value, true
	}
	r.errorf(n, "%s is %s; it must be %s", what, shown(n), rule)
	return "", false
}

// illegible are the characters that no text has, and what stands for bytes that are none.
func illegible(c rune) bool {
	return c == utf8.RuneError || unicode.IsControl(c) && !strings.ContainsRune("\t\n\r\u0085", c)
}

// document returns the value of the only document in data that is not empty, or nil.
func (r *reader) document(data []byte) *yaml.Node {
	if len(data) > MaxSize {
		r.errorAt(0, 0, "the file has more than %d bytes", MaxSize)
		return nil
	}
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
		r.errorAt(1, 1, "the file is UTF-16; it must be UTF-8")
		return nil
	}
	if at := bytes.IndexFunc(data, illegible); at >= 0 {
		r.errorIn(data, at, "a control character, or what is not UTF-8, is in the file")
		return nil
	}
	data = bytes.TrimPrefix(data, []byte("\uFEFF"))
	if json.Valid(data) {
		value, deep := parseJSON(data)
		if deep != nil {
			r.errorf(deep, "it cannot be read as JSON: exceeded max depth of %d", maxDepth)
			return nil
		}
		return value
	}
	if at := bytes.IndexAny(data, "\u0085\u2028\u2029"); at >= 0 {
		r.errorIn(data, at,
			"a line separator of Unicode is in the file; versions of YAML differ in whether it ends a line")
		return nil
	}
	return r.yaml(data)
}

// version is a directive of a document of YAML 1.2, or another minor version. The parser, which reads 1.2,
// knows that of 1.1 only.
var version = regexp.MustCompile(`\A((?:[ \t]*(?:#.*)?\r?\n)*)%(YAML[ \t]+1\.[0-9]+[ \t]*(?:#.*)?\r?\n)`)

// yaml returns the value of the only document in data that is not empty, or nil.
func (r *reader) yaml(data []byte) (value *yaml.Node) {
	data = version.ReplaceAll(data, []byte("$1#$2"))
	depth := yaml.WithPlugin(loaderlimits.New(loaderlimits.DepthValue(maxDepth)))
	loader, err := yaml.NewLoader(bytes.NewReader(data), depth)
	for err == nil {
		var document yaml.Node
		if err = loader.Load(&document); err != nil {
			break
		}
		switch {
		case len(document.Content) == 0 || empty(document.Content[0]):
		case value == nil:
			value = document.Content[0]
		default:
			r.errorf(&document, "another document begins; there must be one")
			return nil
		}
	}
	var wrong *yaml.LoadError
	switch {
	case errors.Is(err, io.EOF) && value != nil:
		return value
	case errors.Is(err, io.EOF):
		r.errorAt(0, 0, "the file is empty; it must be a mapping with policies")
	case errors.As(err, &wrong):
		r.errorAt(wrong.Mark.Line, wrong.Mark.Column, "it cannot be read as YAML: %s", wrong.Message)
	default:
		r.errorAt(0, 0, "it cannot be read as YAML: %s", err)
	}
	return nil
}

// empty reports whether a document has nothing in it: it is what stands before, after or between the marks
// --- and ...
func empty(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" && n.Value == "" }

func (r *reader) policies(data []byte) (list []trypema.Policy) {
	top := r.document(data)
	if top == nil {
		return nil
	}
	fields := r.fields(top, "the file", "policies")
	switch {
	case fields == nil:
		return nil
	case fields["policies"] == nil:
		r.errorf(top, "policies is missing")
		return nil
	}
	lines := make(map[string]int)
	for i, n := range r.list(fields["policies"], "policies", MaxSize) {
		p := r.policy(n, called(n, "policy", i))
		if line := lines[p.Name]; line > 0 {
			r.errorf(n, "policy %q is there twice; the first is in line %d", p.Name, line)
		} else if p.Name != "" {
			lines[p.Name] = n.Line
		}
		list = append(list, p)
	}
	return list
}

func (r *reader) policy(n *yaml.Node, what string) (p trypema.Policy) {
	fields := r.fields(n, what, "name", "group", "strategy", "cost", "limits", "shadow")
	if fields == nil {
		return p
	}
	before := r.wrong
	if n, ok := r.required(n, fields, what, "name"); ok {
		if s, ok := r.text(n, what+": name", textRule); ok && r.right(n, trypema.Policy{Name: s}) {
			p.Name = s
		}
	}
	if n := fields["group"]; n != nil {
		if s, ok := r.text(n, what+": group", textRule); ok &&
			r.right(n, trypema.Policy{Name: cmp.Or(p.Name, "?"), Group: s}) {
			p.Group = s
		}
	}
	if n := fields["strategy"]; n != nil {
		p.Strategy = r.strategy(n, what)
	}
	if n := fields["cost"]; n != nil {
		p.Cost = r.whole(n, what+": cost", 1)
	}
	if n := fields["shadow"]; n != nil {
		p.Shadow = r.boolean(n, what+": shadow", "true or false") == "true"
	}
	if n, ok := r.required(n, fields, what, "limits"); ok {
		p.Limits = r.limits(n, what, p.Strategy)
	}
	if r.wrong > before {
		return p
	}
	if err := p.Check(); err != nil { // of which only the cost is left
		if cost := fields["cost"]; cost != nil {
			n = cost
		}
		r.errorf(n, "%s", said(err))
	}
	return p
}

// right reports whether a policy without limits is right in all else.
func (r *reader) right(n *yaml.Node, p trypema.Policy) bool {
	p.Limits = []trypema.Limit{{Rate: 1, Window: time.Second}}
	err := p.Check()
	if err != nil {
		r.errorf(n, "%s", said(err))
	}
	return err == nil
}

func (r *reader) required(
	of *yaml.Node, fields map[string]*yaml.Node, what, field string,
) (n *yaml.Node, ok bool) {
	n = fields[field]
	if n == nil {
		r.errorf(of, "%s: %s is missing", what, field)
	}
	return n, n != nil
}

func (r *reader) strategy(n *yaml.Node, what string) trypema.Strategy {
	for _, s := range []trypema.Strategy{trypema.StrategyAbsolute, trypema.StrategySuppressed} {
		if n.Kind == yaml.ScalarNode && n.Tag == "!!str" && n.Value == s.String() {
			return s
		}
	}
	r.errorf(n, "%s: strategy is %s; it must be absolute or suppressed", what, shown(n))
	return trypema.StrategyAbsolute
}

// whole returns a whole number, of at least the least.
func (r *reader) whole(n *yaml.Node, what string, least uint64) uint64 {
	// To YAML 010 is 8 or 10, as its version may be.
	if n.Kind == yaml.ScalarNode && n.Tag == "!!int" && (n.Value == "0" || !strings.HasPrefix(n.Value, "0")) {
		if i, err := strconv.ParseUint(n.Value, 10, 64); err == nil && i >= least {
			return i
		}
	}
	r.errorf(n, "%s is %s; it must be a whole number, at least %d", what, shown(n), least)
	return 0
}

// boolean returns "true" or "false", or "" for a value that is no boolean or breaks the rule.
func (r *reader) boolean(n *yaml.Node, what, rule string) string {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!bool" {
		if b := strings.ToLower(n.Value); strings.Contains(rule, b) {
			return b
		}
	}
	r.errorf(n, "%s is %s; it must be %s", what, shown(n), rule)
	return ""
}

func (r *reader) limits(n *yaml.Node, what string, s trypema.Strategy) (limits []trypema.Limit) {
	for i, n := range r.list(n, what+": limits", trypema.MaxLimits) {
		l, ok := r.limit(n, what+": "+called(n, "limit", i))
		if !ok {
			continue
		}
		// Those before are right, so what is wrong is this one.
		if err := trypema.CheckLimits(s, append(limits, l)); err != nil {
			r.errorf(n, "%s: %s", what, said(err))
			continue
		}
		limits = append(limits, l)
	}
	return limits
}

// limit returns a limit: a mapping, or its short form, a text.
func (r *reader) limit(n *yaml.Node, what string) (l trypema.Limit, ok bool) {
	if n.Kind == yaml.ScalarNode {
		return r.shortLimit(n, what)
	}
	before := r.wrong
	fields := r.fields(n, what, "name", "rate", "window", "limit", "unlimited")
	if fields == nil {
		return l, false
	}
	if kinds := r.kinds(fields); len(kinds) > 1 {
		r.errorf(fields[kinds[1]], "%s has both %s and %s; it must have one of rate, limit and unlimited",
			what, kinds[0], kinds[1])
		return l, false
	}
	name := r.limitName(fields["name"], what)
	var window time.Duration
	if n := fields["window"]; n != nil {
		window = r.window(n, what)
	}
	switch {
	case fields["unlimited"] != nil:
		r.boolean(fields["unlimited"], what+": unlimited", "true, or left out")
		if n := fields["window"]; n != nil {
			r.errorf(n, "%s has a window; it must be left out, as an unlimited limit has none", what)
		}
		l = trypema.NoLimit
	case fields["limit"] != nil:
		most := r.whole(fields["limit"], what+": limit", 0)
		switch {
		case fields["window"] != nil:
		case most == 0: // which is the same in any window
			window, name = time.Millisecond, cmp.Or(name, "blocked")
		default:
			r.errorf(n, "%s: window is missing; it must be there unless the limit is 0", what)
		}
		if r.wrong == before {
			l = trypema.AtMost(most, window)
			r.capacity(fields["limit"], what, "limit", l)
		}
	default:
		rate, ok := r.required(n, fields, what, "rate")
		if !ok {
			return l, false
		}
		var per time.Duration
		l.Rate, per, ok = r.rate(rate, what)
		l.Window = cmp.Or(window, per)
		if ok && fields["window"] == nil && per == 0 {
			r.errorf(n, "%s: window is missing; it must be there if the rate is unlimited", what)
		}
		if r.wrong == before {
			r.capacity(rate, what, "rate", l)
		}
	}
	return l.Named(name), r.wrong == before
}

// limitName returns the name of a limit, which may have none.
func (r *reader) limitName(n *yaml.Node, what string) (name string) {
	if n == nil {
		return ""
	}
	name, _ = r.text(n, what+": name", textRule)
	if !invalid.Name(name) {
		r.errorf(n, "%s: name is %q; it must be %s", what, name, invalid.NameRule)
	}
	return name
}

// shortLimit returns a limit that is a text.
func (r *reader) shortLimit(n *yaml.Node, what string) (l trypema.Limit, ok bool) {
	s, ok := r.text(n, what, limitRule)
	if !ok {
		return l, false
	}
	l, err := trypema.ParseLimit(s)
	if err == nil && !invalid.Name(l.Name) {
		err = fmt.Errorf("the name is %q; it must be %s", l.Name, invalid.NameRule)
	}
	if err != nil {
		r.errorf(n, "%s: %s", what, said(err))
	}
	return l, err == nil
}

// kinds are the fields that say how much may pass.
func (r *reader) kinds(fields map[string]*yaml.Node) (all []string) {
	for _, name := range []string{"rate", "limit", "unlimited"} {
		if fields[name] != nil {
			all = append(all, name)
		}
	}
	return all
}

// capacity reports a limit that admits no call, unless it is meant to block all.
func (r *reader) capacity(n *yaml.Node, what, field string, l trypema.Limit) {
	if _, err := l.Capacity(); err != nil {
		r.errorf(n, "%s: %s is %s, less than one in a window of %v; raise the rate or lengthen the window",
			what, field, shown(n), l.Window)
	}
}

// rate returns a rate and the time that it is per, or 0 if it is unlimited.
func (r *reader) rate(n *yaml.Node, what string) (rate trypema.Rate, per time.Duration, ok bool) {
	s, ok := r.text(n, what+": rate", rateRule)
	if !ok {
		return 0, 0, false
	}
	if s == "unlimited" {
		return trypema.Unlimited, 0, true
	}
	number, per, ok := pertime.Parse(s)
	if rate = trypema.Per(number, per); ok && rate > 0 && rate <= trypema.Unlimited {
		return rate, per, true
	}
	r.errorf(n, "%s: rate is %s; it must be %s", what, shown(n), rateRule)
	return 0, 0, false
}

func (r *reader) window(n *yaml.Node, what string) time.Duration {
	if s, ok := r.text(n, what+": window", windowRule); ok {
		if d, ok := pertime.Duration(s); ok {
			return d
		}
		r.errorf(n, "%s: window is %s; it must be %s", what, shown(n), windowRule)
	}
	return 0
}

const (
	textRule   = "a text, which is not empty"
	rateRule   = "a number above 0 per time, as in 10/s, 1000/h, 20/d or 5/15m; or unlimited"
	windowRule = "a duration from 1ms to 36500d, as in 500ms, 1h30m or 7d"
	limitRule  = "a mapping with name, rate, window, limit, unlimited, or a text such as 10/s"
)
