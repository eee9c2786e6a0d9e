package redisproto

import "testing"

// A script is known by its source, in both of its forms, and by nothing that stands in it.
func TestNameOf(t *testing.T) {
	for _, form := range []*Scripts{plain, portable} {
		for _, test := range []struct {
			script Script
			want   string
		}{
			{form.Absolute, "absolute.lua"}, {form.Suppressed, "suppressed.lua"}, {form.Multi, "multi.lua"},
			{form.Commit, "commit.lua"}, {form.Set, "set.lua"}, {form.Settle, "settle.lua"}, {form.Mend, "mend.lua"},
			{Script{Source: form.Settle.Source + " "}, ""},
		} {
			if got := NameOf(test.script.Source); got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
		}
	}
}
