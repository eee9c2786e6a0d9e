package tally

import (
	"cmp"
	"hash/maphash"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"
)

const (
	// Most is how many keys are told apart.
	Most = 128
	// MaxKeyLen is how much of a key is kept.
	MaxKeyLen = 256
	// HalfLife is how long it takes until a denial counts half.
	HalfLife = time.Minute
)

// top knows the keys that were denied most of late, by the Space-Saving sketch of Metwally, Agrawal and El
// Abbadi: a key that has no place takes that of the key with the smallest count, and its count, of which no
// more is known than that it may be an error. All counts are halved in each HalfLife. Once every place has
// been taken nothing is allocated any more, but for longer keys.
type top struct {
	seed maphash.Seed

	mu     sync.Mutex
	hashes [Most]uint64 // apart from the rest, so that looking for one reads little
	counts [Most]uint64
	errors [Most]uint64 // how much of the count may be of others
	keys   [Most][]byte
	n      int
	halved time.Time
}

func (t *top) init() { t.seed, t.halved = maphash.MakeSeed(), time.Now() }

func (t *top) add(key string, n uint64, now time.Time) {
	key = key[:min(len(key), MaxKeyLen)]
	hash := maphash.String(t.seed, key)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.halveLocked(now)
	i := slices.Index(t.hashes[:t.n], hash)
	switch {
	case i >= 0 && string(t.keys[i]) == key:
		t.counts[i] += n
		return
	case t.n < Most:
		i = t.n
		t.n++
	default:
		i = 0
		for j, count := range &t.counts {
			if count < t.counts[i] {
				i = j
			}
		}
	}
	t.hashes[i] = hash
	t.errors[i] = t.counts[i]
	t.counts[i] += n
	t.keys[i] = append(t.keys[i][:0], key...)
}

// halveLocked halves the counts as often as is due.
func (t *top) halveLocked(now time.Time) {
	times := now.Sub(t.halved) / HalfLife
	if times <= 0 {
		return
	}
	t.halved = t.halved.Add(times * HalfLife)
	for i := range t.counts {
		t.counts[i] >>= times
		t.errors[i] >>= times
	}
}

// denied returns how often each key was denied of late at least.
func (t *top) denied(now time.Time) map[string]uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.halveLocked(now)
	keys := make(map[string]uint64, t.n)
	for i := range t.n {
		if n := t.counts[i] - t.errors[i]; n > 0 {
			keys[string(t.keys[i])] = n
		}
	}
	return keys
}

// Ranked yields the n keys with the largest numbers, beginning with the largest.
func Ranked(keys map[string]uint64, n int) iter.Seq2[string, uint64] {
	names := slices.SortedFunc(maps.Keys(keys), func(a, b string) int {
		return cmp.Or(cmp.Compare(keys[b], keys[a]), cmp.Compare(a, b))
	})
	names = names[:min(max(n, 0), len(names))]
	return func(yield func(string, uint64) bool) {
		for _, name := range names {
			if !yield(name, keys[name]) {
				return
			}
		}
	}
}
