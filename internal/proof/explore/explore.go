// Package explore says how far tests look. Only tests use it.
//
// "make test" looks at the same cases each time: its seeds are fixed, so it never fails by chance. "make
// test-long" sets TRYPEMA_EXPLORE=1: its seeds are random, and it runs more of them. Both print the seed.
// TRYPEMA_SEED replays one:
//
//	TRYPEMA_SEED=16482043683754387199 go test -run TestLedger ./internal/thirdparty/onredis
package explore

import (
	"hash/fnv"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
)

// Long reports whether tests explore.
func Long() bool { return os.Getenv("TRYPEMA_EXPLORE") == "1" }

// ReadsRepository says that a test reads files of the repository outside of its module, such as documents.
// The go command does not watch these, and would answer the test from its cache after they have changed. It
// watches this variable, which scripts/test.sh sets to a sum of the files.
func ReadsRepository() { _ = os.Getenv("TRYPEMA_FILES") }

// Size returns how much a test does: little in "make test", much in "make test-long", a fifth of little under
// -short.
func Size(little, much int) int {
	switch {
	case Long():
		return much
	case testing.Short():
		return max(little/5, 1)
	}
	return little
}

// Runs is Size for tests that try one seed after the other, beginning with Seed: where TRYPEMA_SEED replays
// one, it is 1.
func Runs(few, many int) int {
	if os.Getenv("TRYPEMA_SEED") != "" {
		return 1
	}
	return Size(few, many)
}

// Length is Size for how long one run is. Where TRYPEMA_SEED replays a run, it is much: "make test-long" may
// have found something late in it.
func Length(little, much int) int {
	if os.Getenv("TRYPEMA_SEED") != "" {
		return much
	}
	return Size(little, much)
}

// Seed returns the seed of a test, and logs it. It is TRYPEMA_SEED if that is set, random in "make
// test-long", and else always the same for a test of this name.
func Seed(t testing.TB) uint64 {
	t.Helper()
	seed := fixed(t.Name())
	if Long() {
		seed = rand.Uint64()
	}
	if s := os.Getenv("TRYPEMA_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("TRYPEMA_SEED is %q; it must be a whole number below 2⁶⁴", s)
		}
		seed = n
	}
	t.Logf("seed %d", seed)
	return seed
}

func fixed(name string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(name))
	return h.Sum64()
}
