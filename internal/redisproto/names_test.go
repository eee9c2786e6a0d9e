package redisproto_test

import (
	"strings"
	"testing"
	"time"

	"github.com/trypema/trypema/internal/groupkey"
	"github.com/trypema/trypema/internal/redisproto"
)

// hashTag is what Redis Cluster hashes of a key: what is between the first opening brace and the first
// closing one after it, if that is anything.
func hashTag(name string) string {
	_, rest, open := strings.Cut(name, "{")
	if tag, _, closed := strings.Cut(rest, "}"); open && closed && tag != "" {
		return tag
	}
	return name
}

// was returns the name that the version before gave a key.
func was(prefix, letter string, window time.Duration, group, key string) string {
	if group != "" {
		key = group + ":" + key
	}
	return "{" + prefix + ":" + key + "}:" + letter + ":" + window.String()
}

// FuzzNames: no two prefixes, groups, keys, strategies and windows share a Redis key, and none has one that
// the version before gave to another; all windows of a key are in one slot, as one script needs them to be.
func FuzzNames(f *testing.F) {
	for _, keys := range [][2]string{
		{"k", "k2"}, {"a}:a:10s", "a"}, {"{}", "{"}, {"}", "}}"}, {"a}b", "a}c"}, {"a:b", "a"},
		{"\x00", "\xff"}, {"\xffb:a", "a"},
		{"k}:a:1s", "k"}, {"k}:a:1s:1s", "k"}, {"b:k", "k"},
	} {
		f.Add("trypema", "shop", "free", keys[0], keys[1], int64(time.Second), int64(time.Minute))
		f.Add("a:b", "a", "b", keys[0], keys[1], int64(time.Second), int64(1500*time.Millisecond))
		f.Add("a", "a:", "1s", keys[0], keys[1], int64(time.Second), int64(time.Minute))
		f.Add("a", "a1", "a", keys[0], keys[1], int64(time.Second), int64(time.Minute))
		f.Add("\xff", "a:b", "}", keys[0], keys[1], int64(time.Second), int64(time.Minute))
	}
	f.Fuzz(func(t *testing.T, prefix, prefix2, group, one, two string, w, other int64) {
		if prefix == "" || prefix2 == "" || strings.ContainsAny(prefix+prefix2, "{}") ||
			strings.Contains(group, ":") {
			t.Skip("they are refused")
		}
		type place struct {
			prefix, group, key, letter string
			window                     time.Duration
		}
		seen, before := map[string]place{}, map[string]place{}
		for _, prefix := range []string{prefix, prefix2} {
			for _, group := range []string{"", group} {
				for _, key := range []string{one, two} {
					if group == "" && key == "" {
						continue // it is refused
					}
					form := groupkey.Plain(key)
					if group != "" {
						form = groupkey.Prefix(group) + key
					}
					tags := map[string]bool{}
					for _, letter := range []string{"a", "s", "ha", "hs"} {
						for _, window := range []time.Duration{time.Duration(w), time.Duration(other)} {
							p := place{prefix, group, key, letter, window}
							names := redisproto.NewNames(prefix, letter, window)
							name := names.Of(form)
							if same, there := seen[name]; there && same != p {
								t.Fatalf("%+v and %+v are both %q", same, p, name)
							}
							if got := names.Form(name); got != form {
								t.Fatalf("%q is the key %q, want %q", name, got, form)
							}
							old := was(prefix, letter, window, group, key)
							plain := group == "" && !strings.Contains(prefix, ":")
							if (name == old) != plain {
								t.Fatalf("%+v is %q, and was %q", p, name, old)
							}
							seen[name], before[old] = p, p
							tags[hashTag(name)] = true
						}
					}
					if len(tags) != 1 {
						t.Fatalf("%q has the hash tags %v", key, tags)
					}
				}
			}
		}
		for name, p := range seen {
			plain := p.group == "" && !strings.Contains(p.prefix, ":")
			if old, there := before[name]; there && !plain {
				t.Fatalf("%+v is %q, as %+v was", p, name, old)
			}
		}
	})
}
