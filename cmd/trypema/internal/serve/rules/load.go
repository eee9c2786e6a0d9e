package rules

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
	"go.yaml.in/yaml/v4/plugin/loaderlimits"

	"github.com/trypema/trypema/policyfile"
)

const (
	// MaxSize bounds one file.
	MaxSize = 16 << 20
	// MaxFiles bounds the number of files.
	MaxFiles = 1000
	// maxAliased is about how many values the aliases of a file may stand for.
	maxAliased = 50_000

	maxNesting = 4*MaxDepth + 16 // of YAML
	maxErrors  = 50
)

// Error is one thing that is wrong with the configuration.
type Error = policyfile.Error

// Options say how files are read.
type Options struct {
	// MergeDomains has several files add to one domain. Without it, a domain that is in two files is an
	// error.
	MergeDomains bool
}

// File is a file that was read.
type File struct {
	Name string
	Data []byte
}

// Read returns the files at some paths. Of a folder these are its files with a name that ends in .yaml, .yml
// or .json and does not start with a dot. Symbolic links are followed.
func Read(paths ...string) ([]File, error) {
	var names []string
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return nil, plain(err)
		}
		if !info.IsDir() {
			names = append(names, path)
			continue
		}
		entries, err := os.ReadDir(path)
		if err != nil {
			return nil, plain(err)
		}
		found := false
		for _, e := range entries {
			switch filepath.Ext(e.Name()) {
			case ".yaml", ".yml", ".json":
				if name := filepath.Join(path, e.Name()); !strings.HasPrefix(e.Name(), ".") && !isDir(name) {
					names, found = append(names, name), true
				}
			}
		}
		if !found {
			return nil, &Error{
				File:    path,
				Problem: "the folder has no file whose name ends in .yaml, .yml or .json",
			}
		}
	}
	if len(names) > MaxFiles {
		return nil, fmt.Errorf("there are %d files; there must be at most %d", len(names), MaxFiles)
	}
	files := make([]File, 0, len(names))
	for _, name := range names {
		data, err := readFile(name)
		if err != nil {
			return nil, err
		}
		files = append(files, File{name, data})
	}
	return files, nil
}

func isDir(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}

func readFile(name string) ([]byte, error) {
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
		return nil, &Error{File: name, Problem: "it is no regular file"} // a pipe could block
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, plain(err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	data, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return nil, plain(err)
	}
	return data, nil
}

// plain returns what went wrong with a file, in the form of an Error.
func plain(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return &Error{File: path.Path, Problem: path.Err.Error()}
	}
	return err
}

// Compile makes a set of files. It returns everything that is wrong with them, joined.
func Compile(files []File, o Options) (*Set, error) {
	set := &Set{domains: make(map[string]*node)}
	l := loader{set: set, options: o, owner: make(map[string]string), policy: make(map[string]string)}
	for _, f := range files {
		l.file(f)
		set.Files = append(set.Files, f.Name)
	}
	if len(files) == 0 {
		l.errs = append(l.errs, errors.New("there is no file of configuration"))
	}
	if len(l.errs) > 0 {
		return nil, errors.Join(l.errs...)
	}
	return set, nil
}

type loader struct {
	set     *Set
	options Options
	owner   map[string]string // the file of each domain
	name    string            // the file that is read
	errs    []error
	visited int // values that were looked at, some twice
	most    int
	policy  map[string]string // the file of each policy
}

func (l *loader) errorf(n *yaml.Node, format string, args ...any) {
	switch {
	case len(l.errs) > maxErrors:
		return
	case len(l.errs) == maxErrors:
		l.errs = append(l.errs, fmt.Errorf("there is more that is wrong, after %d errors", maxErrors))
		return
	}
	e := &Error{File: l.name, Problem: fmt.Sprintf(format, args...)}
	if n != nil {
		e.Line, e.Column = n.Line, n.Column
	}
	l.errs = append(l.errs, e)
}

func (l *loader) file(f File) {
	l.name, l.visited, l.most = f.Name, 0, 3*len(f.Data)+maxAliased
	top := l.document(f.Data)
	if top == nil {
		return
	}
	if isPolicies(top) {
		l.policies(f)
		return
	}
	l.domain(top)
}

// isPolicies reports whether a file is one of policies.
func isPolicies(top *yaml.Node) bool {
	if top.Kind != yaml.MappingNode {
		return false
	}
	for i := 0; i < len(top.Content); i += 2 {
		if top.Content[i].Value == "policies" {
			return true
		}
	}
	return false
}

func (l *loader) policies(f File) {
	list, err := policyfile.Parse(f.Name, f.Data)
	if err != nil {
		l.errs = append(l.errs, err)
		return
	}
	for _, p := range list {
		if in := l.policy[p.Name]; in != "" {
			l.errorf(nil, "policy %q is in %s, too; a policy must be in one file", p.Name, in)
			continue
		}
		l.policy[p.Name] = f.Name
		l.set.Policies = append(l.set.Policies, p)
	}
}

// document returns the value of the only document of a file.
func (l *loader) document(data []byte) (value *yaml.Node) {
	if len(data) > MaxSize {
		l.errorf(nil, "the file has more than %d bytes", MaxSize)
		return nil
	}
	if !utf8.Valid(data) {
		l.errorf(nil, "the file is not UTF-8")
		return nil
	}
	depth := yaml.WithPlugin(loaderlimits.New(loaderlimits.DepthValue(maxNesting)))
	loader, err := yaml.NewLoader(bytes.NewReader(data), depth)
	for err == nil {
		var document yaml.Node
		if err = loader.Load(&document); err != nil {
			break
		}
		switch {
		case len(document.Content) == 0 || isEmpty(document.Content[0]):
		case value == nil:
			value = document.Content[0]
		default:
			l.errorf(&document, "another document begins; there must be one")
			return nil
		}
	}
	var wrong *yaml.LoadError
	switch {
	case errors.Is(err, io.EOF) && value != nil:
		return value
	case errors.Is(err, io.EOF):
		l.errorf(nil, "the file is empty; it must have a domain, or policies")
	case errors.As(err, &wrong):
		l.errorf(&yaml.Node{Line: wrong.Mark.Line, Column: wrong.Mark.Column},
			"it cannot be read as YAML: %s", wrong.Message)
	default:
		l.errorf(nil, "it cannot be read as YAML: %s", err)
	}
	return nil
}

func isEmpty(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.Tag == "!!null" && n.Value == ""
}

// field is a key of a mapping with its value.
type field struct{ key, value *yaml.Node }

// resolve follows an alias. It returns nil, and reports it, if the file has become too large by aliases.
func (l *loader) resolve(n *yaml.Node) *yaml.Node {
	for n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if l.visited++; l.visited == l.most {
		l.errorf(n, "the aliases of the file stand for more than %d values", maxAliased)
	}
	if l.visited >= l.most {
		return nil
	}
	return n
}

// present returns a value that may be left out, or nil: a null stands for what is left out.
func (l *loader) present(f field) *yaml.Node {
	if f.value == nil {
		return nil
	}
	n := l.resolve(f.value)
	if n == nil || n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return nil
	}
	return n
}

// fields returns the fields of a mapping by their names. known are those that may be there.
func (l *loader) fields(n *yaml.Node, what string, known ...string) map[string]field {
	n = l.resolve(n)
	if n == nil {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		l.errorf(n, "%s is %s; it must be a mapping with %s", what, shown(n), strings.Join(known, ", "))
		return nil
	}
	all := make(map[string]field, len(n.Content)/2)
	l.collect(n, what, known, all, 0)
	return all
}

// collect adds the fields of a mapping to all, and those that << merges into it.
func (l *loader) collect(n *yaml.Node, what string, known []string, all map[string]field, merged int) {
	var merges []*yaml.Node
	for i := 0; i < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		old, twice := all[key.Value]
		switch {
		case key.Kind == yaml.ScalarNode && key.Value == "<<" && key.Style == 0:
			merges = append(merges, value)
		case key.Kind != yaml.ScalarNode || key.Tag != "!!str":
			l.errorf(key, "%s has a field %s; it must be a text", what, shown(key))
		case !slices.Contains(known, key.Value):
			l.errorf(key, "%s has a field %s; it may have %s", what, shown(key), strings.Join(known, ", "))
		case twice && merged > 0: // what is there comes before what is merged
		case twice:
			l.errorf(key, "%s has the field %s twice; the first is in line %d", what, key.Value, old.key.Line)
		default:
			all[key.Value] = field{key, value}
		}
	}
	for _, m := range merges {
		m = l.resolve(m)
		if m == nil {
			return
		}
		list := []*yaml.Node{m}
		if m.Kind == yaml.SequenceNode {
			list = m.Content
		}
		for _, m := range list {
			if m = l.resolve(m); m == nil {
				return
			}
			if m.Kind != yaml.MappingNode || merged > maxNesting {
				l.errorf(m, "%s merges %s; it must be a mapping", what, shown(m))
				return
			}
			l.collect(m, what, known, all, merged+1)
		}
	}
}

// shown is how a value appears in an error.
func shown(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.AliasNode:
		return "an alias"
	case n.Tag == "!!null":
		return "null"
	case len(n.Value) > 60:
		return fmt.Sprintf("%.60q…", n.Value)
	case n.Tag == "!!str":
		return strconv.Quote(n.Value)
	}
	return n.Value
}

// text returns a text, or what YAML takes for a whole number or a boolean, as it is written. Null is "".
func (l *loader) text(f field, what string) string {
	n := l.present(f)
	if n == nil {
		return ""
	}
	if n.Kind == yaml.ScalarNode && (n.Tag == "!!str" || n.Tag == "!!int" || n.Tag == "!!bool") {
		return n.Value
	}
	l.errorf(n, "%s is %s; it must be a text, in quotes if YAML takes it for something else", what, shown(n))
	return ""
}

// boolean returns a boolean of YAML 1.1, which has yes and on.
func (l *loader) boolean(f field, what string) bool {
	n := l.present(f)
	if n == nil {
		return false
	}
	if n.Kind == yaml.ScalarNode && n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) == 0 {
		switch strings.ToLower(n.Value) {
		case "true", "yes", "on", "y":
			return true
		case "false", "no", "off", "n":
			return false
		}
	}
	l.errorf(n, "%s is %s; it must be true or false", what, shown(n))
	return false
}

// list returns the elements of a list; none if there is no list.
func (l *loader) list(f field, what string) []*yaml.Node {
	n := l.present(f)
	if n == nil {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		l.errorf(n, "%s is %s; it must be a list", what, shown(n))
		return nil
	}
	return n.Content
}

func (l *loader) domain(top *yaml.Node) {
	fields := l.fields(top, "the file", "domain", "descriptors")
	if fields == nil {
		return
	}
	name := l.text(fields["domain"], "domain")
	if name == "" {
		l.errorf(cmp.Or(fields["domain"].value, top),
			"domain is missing or empty; a file must have one, or policies")
		return
	}
	if in, ok := l.owner[name]; ok && !l.options.MergeDomains {
		l.errorf(fields["domain"].key, "domain %q is in %s, too; merge them with --merge-domains", name, in)
		return
	}
	at := l.set.domains[name]
	if at == nil {
		at = &node{children: make(map[string]*node)}
		l.set.domains[name], l.owner[name] = at, l.name
	}
	l.descriptors(at, fields["descriptors"], name, 1)
}

var descriptorKeys = []string{
	"key", "value", "rate_limit", "descriptors", "shadow_mode", "quota_mode", "detailed_metric",
	"value_to_metric", "share_threshold", "metadata",
}

func (l *loader) descriptors(at *node, f field, path string, depth int) {
	what := "descriptors of " + path
	list := l.list(f, what)
	if len(list) > 0 && depth > MaxDepth {
		l.errorf(list[0], "%s are nested more than %d deep", what, MaxDepth)
		return
	}
	for i, n := range list {
		l.descriptor(at, n, path, fmt.Sprintf("descriptor %d of %s", i+1, path), depth)
	}
}

func (l *loader) descriptor(at *node, n *yaml.Node, path, what string, depth int) {
	fields := l.fields(n, what, descriptorKeys...)
	if fields == nil {
		return
	}
	key, value := l.text(fields["key"], what+": key"), l.text(fields["value"], what+": value")
	if key == "" {
		l.errorf(n, "%s: key is missing or empty", what)
		return
	}
	composite := key
	if value != "" {
		composite += "_" + value
	}
	path += "." + composite
	if at.children[composite] != nil {
		l.errorf(n, "descriptor %s is there twice", path)
		return
	}
	next := &node{children: make(map[string]*node), composite: composite}
	next.valueToMetric = l.boolean(fields["value_to_metric"], path+": value_to_metric")
	isWild := strings.Contains(composite, "*")
	if l.boolean(fields["share_threshold"], path+": share_threshold") {
		if !isWild {
			l.errorf(fields["share_threshold"].key,
				"%s: share_threshold is true; the value must then have a *", path)
		}
		next.pattern = composite
	}
	r := &Rule{
		Path:     path,
		Shadow:   l.boolean(fields["shadow_mode"], path+": shadow_mode"),
		Quota:    l.boolean(fields["quota_mode"], path+": quota_mode"),
		Detailed: l.boolean(fields["detailed_metric"], path+": detailed_metric"),
		Metadata: l.metadata(fields["metadata"], path+": metadata"),
		Place:    fmt.Sprintf("%s:%d", l.name, n.Line),
		Index:    len(l.set.rules),
	}
	if l.limit(r, fields["rate_limit"], path+": rate_limit") {
		next.rule = r
		l.set.rules = append(l.set.rules, r)
	}
	at.children[composite] = next
	if isWild {
		at.wildcards.add(composite, next)
	}
	l.descriptors(next, fields["descriptors"], path, depth+1)
}

// limit reads what rate_limit has. It reports whether there is a limit; null is none.
func (l *loader) limit(r *Rule, f field, what string) bool {
	at := l.present(f)
	if at == nil {
		return false
	}
	fields := l.fields(at, what, "unit", "requests_per_unit", "unlimited", "name", "replaces")
	if fields == nil {
		return false
	}
	r.Name = l.text(fields["name"], what+": name")
	r.Unlimited = l.boolean(fields["unlimited"], what+": unlimited")
	unit := l.text(fields["unit"], what+": unit")
	r.Unit = parseUnit(unit)
	switch {
	case r.Unlimited && unit != "":
		l.errorf(fields["unit"].key, "%s: unit is %q; it must be left out if unlimited is true", what, unit)
	case !r.Unlimited && r.Unit == Unknown:
		l.errorf(cmp.Or(fields["unit"].value, at),
			"%s: unit is %q; it must be second, minute, hour, day, week, month or year", what, unit)
	}
	r.Requests = l.number(fields["requests_per_unit"], what+": requests_per_unit")
	for i, n := range l.list(fields["replaces"], what+": replaces") {
		one := fmt.Sprintf("%s: replaces %d", what, i+1)
		fields := l.fields(n, one, "name")
		if fields == nil {
			continue
		}
		switch name := l.text(fields["name"], one+": name"); name {
		case "":
			l.errorf(n, "%s: name is missing or empty", one)
		case r.Name:
			l.errorf(n, "%s: name is %q, that of the limit itself", one, name)
		default:
			r.Replaces = append(r.Replaces, name)
		}
	}
	return true
}

func (l *loader) number(f field, what string) uint32 {
	n := l.present(f)
	if n == nil {
		return 0
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!int" {
		if v, err := strconv.ParseUint(strings.ReplaceAll(n.Value, "_", ""), 0, 32); err == nil {
			return uint32(v)
		}
	}
	l.errorf(n, "%s is %s; it must be a whole number from 0 to 4294967295", what, shown(n))
	return 0
}

// metadata returns what a mapping holds, whatever that is.
func (l *loader) metadata(f field, what string) map[string]any {
	n := l.present(f)
	if n == nil {
		return nil
	}
	value, ok := l.value(n, what, 0).(map[string]any)
	if !ok {
		l.errorf(n, "%s is %s; it must be a mapping", what, shown(n))
	}
	if len(value) == 0 {
		return nil
	}
	return value
}

// value returns what a node holds, in the types of JSON.
func (l *loader) value(n *yaml.Node, what string, depth int) any {
	n = l.resolve(n)
	if n == nil || depth > maxNesting {
		return nil
	}
	switch n.Kind {
	case yaml.MappingNode:
		m := make(map[string]any, len(n.Content)/2)
		for i := 0; i < len(n.Content); i += 2 {
			key := l.resolve(n.Content[i])
			if key == nil || key.Kind != yaml.ScalarNode {
				l.errorf(n.Content[i], "%s has a field that is not a scalar", what)
				continue
			}
			m[key.Value] = l.value(n.Content[i+1], what, depth+1)
		}
		return m
	case yaml.SequenceNode:
		list := make([]any, 0, len(n.Content))
		for _, e := range n.Content {
			list = append(list, l.value(e, what, depth+1))
		}
		return list
	}
	switch n.Tag {
	case "!!null":
		return nil
	case "!!bool":
		return strings.EqualFold(n.Value, "true")
	case "!!int":
		if v, err := strconv.ParseInt(n.Value, 0, 64); err == nil {
			return float64(v)
		}
	case "!!float":
		if v, err := strconv.ParseFloat(n.Value, 64); err == nil {
			return v
		}
	}
	return n.Value
}

// Errors returns the errors that err joins, at whatever depth; none if it is nil.
func Errors(err error) []error {
	if err == nil {
		return nil
	}
	many, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, e := range many.Unwrap() {
		all = append(all, Errors(e)...)
	}
	return all
}
