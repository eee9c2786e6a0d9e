package peer

import (
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/trypema/trypema"
)

func TestMain(m *testing.M) {
	// ulule's store ends its cleaner when the garbage collector finds the store, which it need not do before the end.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/ulule/limiter/v3/drivers/store/memory.(*cleaner).Run"))
}

// TestEveryPeerHasTheSameLimit: a burst of twice the capacity is admitted to one half, for each key apart.
func TestEveryPeerHasTheSameLimit(t *testing.T) {
	const capacity = 1000
	limit := Limit{
		Capacity: capacity,
		Rate:     capacity / time.Hour.Seconds(), // what a bucket refills during the test is nothing
		Options:  trypema.Options{Window: time.Hour},
	}
	for _, name := range Names() {
		t.Run(name, func(t *testing.T) {
			l, err := Open(name, limit)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			}()
			for _, key := range []string{"a", "b"} {
				admitted := 0
				for range 2 * capacity {
					ok, err := l.Allow(key)
					if err != nil {
						t.Fatal(err)
					}
					if ok {
						admitted++
					}
				}
				if admitted != capacity {
					t.Errorf("key %s: %d admitted, want %d", key, admitted, capacity)
				}
			}
			if l.Len != nil && l.Len() != 2 {
				t.Errorf("holds %d keys, want 2", l.Len())
			}
		})
	}
}

func TestOpenUnknown(t *testing.T) {
	if _, err := Open("governor", Limit{}); err == nil {
		t.Error("no error")
	}
	if names := Names(); names[0] != Ours || slices.Contains(names, "") {
		t.Errorf("names are %v", names)
	}
}
