package groupkey_test

import (
	"strings"
	"testing"

	"github.com/trypema/trypema/internal/groupkey"
)

func form(group, key string) string {
	if group == "" {
		return groupkey.Plain(key)
	}
	return groupkey.Prefix(group) + key
}

func TestForms(t *testing.T) {
	for _, test := range []struct{ group, key, shown string }{
		{"", "", ""},
		{"", "bob", "bob"},
		{"", "free:bob", "free:bob"},
		{"", "\xff", "\xff"},
		{"", "\xfffree:bob", "\xfffree:bob"},
		{"", "\xff:bob", "\xff:bob"},
		{"free", "bob", "free:bob"},
		{"free", "", "free:"},
		{"free", "a:b", "free:a:b"},
		{"\xff", "\xff:bob", "\xff:\xff:bob"},
	} {
		f := form(test.group, test.key)
		if group, key := groupkey.Split(f); group != test.group || key != test.key {
			t.Errorf("(%q, %q) comes back as (%q, %q)", test.group, test.key, group, key)
		}
		if got := groupkey.Shown(f); got != test.shown {
			t.Errorf("(%q, %q) is shown as %q, want %q", test.group, test.key, got, test.shown)
		}
	}
}

// All groups and keys of up to three of the bytes that mean something: each form comes back as what it was
// made of, so no two are the same.
func TestFormsAreUnique(t *testing.T) {
	words := []string{""}
	for from := 0; len(words[from]) < 3; from++ {
		for _, b := range []string{"\xff", ":", "a"} {
			words = append(words, words[from]+b)
		}
	}
	for _, group := range words {
		if strings.Contains(group, ":") {
			continue // it is refused
		}
		for _, key := range words {
			if g, k := groupkey.Split(form(group, key)); g != group || k != key {
				t.Errorf("(%q, %q) comes back as (%q, %q)", group, key, g, k)
			}
		}
	}
}
