package policyfile

import (
	"bytes"
	"encoding/json"
	"strings"

	"go.yaml.in/yaml/v4"
)

// jsonReader makes of JSON the nodes that YAML would be, with their places. JSON is nearly YAML, but not by a
// parser of YAML: escapes of two surrogates are one character only in JSON.
type jsonReader struct {
	data    []byte
	decoder *json.Decoder
	deep    *yaml.Node // what is nested too deep, if anything is

	offset, line, column int // of what was read last
}

// parseJSON returns the value that data holds, which is JSON, or the first one in it that is nested too deep.
func parseJSON(data []byte) (value, deep *yaml.Node) {
	r := jsonReader{data: data, decoder: json.NewDecoder(bytes.NewReader(data)), line: 1, column: 1}
	r.decoder.UseNumber()
	value = r.value(0)
	return value, r.deep
}

// value returns the next value. If there is none, or nothing more is to be read, it returns nil.
func (r *jsonReader) value(depth int) *yaml.Node {
	from := int(r.decoder.InputOffset())
	token, err := r.decoder.Token()
	if err != nil || token == json.Delim('}') || token == json.Delim(']') {
		return nil
	}
	r.advance(len(r.data) - len(bytes.TrimLeft(r.data[from:], " \t\r\n,:")))
	n := &yaml.Node{Kind: yaml.ScalarNode, Line: r.line, Column: r.column}
	switch token := token.(type) {
	case json.Delim:
		n.Kind, n.Tag = yaml.SequenceNode, "!!seq"
		if token == '{' {
			n.Kind, n.Tag = yaml.MappingNode, "!!map"
		}
		if depth == maxDepth {
			r.deep = n
			return nil
		}
		for v := r.value(depth + 1); v != nil; v = r.value(depth + 1) {
			n.Content = append(n.Content, v)
		}
		if r.deep != nil {
			return nil
		}
	case string:
		n.Tag, n.Value = "!!str", token
	case json.Number:
		n.Tag, n.Value = "!!int", token.String()
		if strings.ContainsAny(n.Value, ".eE") {
			n.Tag = "!!float"
		}
	case bool:
		n.Tag, n.Value = "!!bool", map[bool]string{true: "true", false: "false"}[token]
	default:
		n.Tag, n.Value = "!!null", "null"
	}
	return n
}

// advance counts lines and columns up to an offset.
func (r *jsonReader) advance(to int) {
	for _, c := range string(r.data[r.offset:to]) {
		r.column++
		if c == '\n' {
			r.line, r.column = r.line+1, 1
		}
	}
	r.offset = to
}
