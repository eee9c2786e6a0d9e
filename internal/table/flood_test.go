package table

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/table/entries"
)

// chosen are lists of keys as somebody might choose them who wants them to collide: they differ in little. Of
// each length there are random ones to compare with.
func chosen(n int) map[string][]string {
	list := func(key func(i int) string) []string {
		keys := make([]string, n)
		for i := range keys {
			keys[i] = key(i)
		}
		return keys
	}
	prefix := strings.Repeat("tenant/", 8)
	small, large := binary.LittleEndian, binary.BigEndian
	return map[string][]string{
		"numbers in a row":       list(func(i int) string { return fmt.Sprintf("%08d", i) }),
		"numbers, as bytes":      list(func(i int) string { return string(large.AppendUint64(nil, uint64(i))) }),
		"numbers of high bits":   list(func(i int) string { return string(small.AppendUint64(nil, uint64(i)<<40)) }),
		"two bits in 1024":       list(func(i int) string { return twoBits(1024, i%1024, i/1024*7+i) }),
		"a long prefix":          list(func(i int) string { return prefix + fmt.Sprintf("%08d", i) }),
		"a long end":             list(func(i int) string { return fmt.Sprintf("%08d", i) + prefix }),
		"addresses of a network": list(func(i int) string { return fmt.Sprintf("2001:db8:%x:%x::", i>>16, i&0xffff) }),
		"a zero byte more each":  list(func(i int) string { return string(make([]byte, i%500)) + string(rune(i/500)) }),
	}
}

// twoBits is n bits, of which two are set.
func twoBits(n, i, j int) string {
	b := make([]byte, n/8)
	b[i%n/8] |= 1 << (i % 8)
	b[j%n/8] ^= 1 << (j % 8)
	return string(b)
}

// filled is a table with keys.
func filled(t *testing.T, keys []string) *Table[state, struct{}] {
	table := newTable(t, math.MaxInt64, 0)
	for _, key := range keys {
		sh, _ := table.Acquire(table.Hash(key), key, 0)
		sh.Unlock()
	}
	return table
}

// crowded returns how many slots are looked at for a key that is there, on average, how many at most, and how
// many times the keys of the mean shard the fullest one holds.
func (t *Table[S, M]) crowded() (mean float64, longest int, fullest float64) {
	looks, keys := 0, 0
	for i := range t.shards {
		sh := &t.shards[i]
		ix := sh.index.Load()
		for h := Handle(0); h < sh.end; h = h.Next() {
			hash := *ix.Hash(h)
			home := entries.Home(hash)
			found, next := ix.Probe(hash, home)
			for found != h {
				found, next = ix.Probe(hash, next)
			}
			looks += int(next - home)
			longest = max(longest, int(next-home))
		}
		keys += sh.n
		fullest = max(fullest, float64(sh.n))
	}
	return float64(looks) / float64(keys), longest, fullest / (float64(keys) / float64(len(t.shards)))
}

// Keys that are chosen to collide do not: they lie as random keys of the same lengths do, so a call looks at
// as many slots.
func TestChosenKeysCostNoMore(t *testing.T) {
	const n = 5_000
	rng := rand.New(rand.NewPCG(explore.Seed(t), 0))
	for name, keys := range chosen(n) {
		random := make([]string, n)
		for i, key := range keys {
			b := make([]byte, len(key), len(key)+8)
			for j := range b {
				b[j] = byte(rng.Uint32())
			}
			random[i] = string(b)
			if len(key) < 8 { // too short for so many
				random[i] = string(binary.BigEndian.AppendUint64(b, rng.Uint64()))
			}
		}
		table, other := filled(t, keys), filled(t, random)
		mean, longest, fullest := table.crowded()
		otherMean, otherLongest, _ := other.crowded()
		// Of random keys the fullest shard never holds seven standard deviations more than the mean one.
		if most := 1 + 7*math.Sqrt(float64(len(table.shards))/n); mean > 1.5*otherMean ||
			longest > 4*otherLongest || fullest > most {
			t.Errorf("%s: %.2f slots for a key, at most %d, and %.2f times the keys in the fullest shard; "+
				"of random keys %.2f, at most %d",
				name, mean, longest, fullest, otherMean, otherLongest)
		}
		t.Logf("%-24s %.2f slots for a key, at most %d; of random keys %.2f, at most %d", name, mean, longest,
			otherMean, otherLongest)
	}
}

// An attacker cannot know which keys collide: each table places them in its own way. Of so many keys, chance
// alone never puts twice as many as expected into the same place: that is 13 standard deviations.
func TestHashIsSeeded(t *testing.T) {
	const n = 200_000
	a, b := newTable(t, 1, 0), newTable(t, 1, 0)
	shards, slots := 0, 0
	for i := range n {
		key := name(i)
		x, y := a.Hash(key), b.Hash(key)
		if x>>a.shift == y>>b.shift {
			shards++
		}
		if entries.Home(x)%1024 == entries.Home(y)%1024 {
			slots++
		}
	}
	if want := n / len(a.shards); shards > 2*want || slots > 2*n/1024 {
		t.Errorf("of %d keys %d are in the same shard of two tables, and %d in the same slot of 1024", n,
			shards, slots)
	}
}

// Keys of 64 KiB that differ in their last byte are different keys, even if their hashes are the same.
func TestLongKeysDifferInTheirLastByte(t *testing.T) {
	table := newTable(t, math.MaxInt64, 0)
	long := strings.Repeat("x", 1<<16)
	for round := range uint64(2) {
		for i := range byte(explore.Size(64, 255)) {
			key := long + string([]byte{i})
			sh, h := table.Acquire(42, key, 0)
			got := sh.State(h).value
			sh.State(h).value = uint64(i) + 1
			sh.Unlock()
			if got != round*(uint64(i)+1) {
				t.Fatalf("key %d holds %d", i, got)
			}
		}
	}
	if table.Len() != explore.Size(64, 255) {
		t.Errorf("%d keys", table.Len())
	}
}
