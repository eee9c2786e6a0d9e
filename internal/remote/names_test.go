package remote_test

import (
	"strings"
	"testing"
	"time"

	"github.com/trypema/trypema/internal/remote"
)

// hashTag is what Redis Cluster hashes of a key: what is between the first opening brace and the first closing one after it, if
// that is anything.
func hashTag(name string) string {
	_, rest, open := strings.Cut(name, "{")
	if tag, _, closed := strings.Cut(rest, "}"); open && closed && tag != "" {
		return tag
	}
	return name
}

// FuzzNames: different keys, strategies and windows never share a Redis key; and all windows of a key are in one slot, as one
// script needs them to be.
func FuzzNames(f *testing.F) {
	for _, keys := range [][2]string{{"k", "k2"}, {"a}:a:10s", "a"}, {"{}", "{"}, {"}", "}}"}, {"a}b", "a}c"}, {"a:b", "a"}, {"\x00", "\xff"}} {
		f.Add("trypema", keys[0], keys[1], int64(time.Second), int64(time.Minute))
		f.Add("a:b", keys[0], keys[1], int64(time.Second), int64(1500*time.Millisecond))
	}
	f.Fuzz(func(t *testing.T, prefix, one, two string, w, other int64) {
		if prefix == "" || strings.ContainsAny(prefix, "{}") || one == "" || two == "" {
			t.Skip("they are refused")
		}
		type place struct {
			key, letter string
			window      time.Duration
		}
		seen := map[string]place{}
		for _, key := range []string{one, two} {
			tags := map[string]bool{}
			for _, letter := range []string{"a", "s", "ha", "hs"} {
				for _, window := range []time.Duration{time.Duration(w), time.Duration(other)} {
					p := place{key, letter, window}
					names := remote.NewNames(prefix, letter, window)
					name := names.Of(key)
					if before, there := seen[name]; there && before != p {
						t.Fatalf("%+v and %+v are both %q", before, p, name)
					}
					if got := names.Key(name); got != key {
						t.Fatalf("%q is the key %q, want %q", name, got, key)
					}
					seen[name] = p
					tags[hashTag(name)] = true
				}
			}
			if len(tags) != 1 {
				t.Fatalf("%q has the hash tags %v", key, tags)
			}
		}
	})
}
