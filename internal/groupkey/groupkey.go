// Package groupkey writes the group of a policy and a key as one string, the form in which providers hold
// keys. A key without a group, a plain key, is its own form unless it starts with the byte that forms with a
// group start with. So no two (group, key) have the same form, whatever bytes they consist of. A group has at
// least one byte, none of them a colon: trypema.Policy.Check holds it to that.
package groupkey

import "strings"

// mark is the first byte of every form that is not the key itself. No text starts with it: UTF-8 does not use
// this byte.
const mark = "\xff"

// Prefix returns what the forms of the keys of a group start with. The key follows.
func Prefix(group string) string { return mark + group + ":" }

// Plain returns the form of a key without a group.
func Plain(key string) string {
	if key != "" && key[0] == mark[0] {
		return mark + ":" + key
	}
	return key
}

// Split returns the group and the key of a form. The group of a plain key is "".
func Split(form string) (group, key string) {
	rest, marked := strings.CutPrefix(form, mark)
	if !marked {
		return "", form
	}
	group, key, _ = strings.Cut(rest, ":")
	return group, key
}

// Shown returns a form for people to read: the key, after its group and a colon if it has one.
func Shown(form string) string {
	rest, marked := strings.CutPrefix(form, mark)
	if !marked {
		return form
	}
	return strings.TrimPrefix(rest, ":")
}
