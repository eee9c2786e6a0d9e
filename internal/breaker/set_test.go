package breaker_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema/internal/breaker"
)

// Each server is gone by itself. What is told, and asked of the set, is that of all; and one that is gone and
// not asked for any more is forgotten, as its keys are elsewhere.
func TestSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failure := errors.New("lost")
		var told []string
		node := func(key string) string { return strings.TrimRight(key, "0123456789") }
		s := breaker.NewSet(time.Second, false, node, func(cause error) {
			if cause == nil {
				told = append(told, "")
				return
			}
			if !errors.Is(cause, failure) {
				t.Error(cause)
			}
			told = append(told, cause.Error())
		})
		fail := func(key string) {
			for range 3 {
				s.Of(key).Failure(failure)
			}
		}
		gone := func(step string, keys ...string) {
			t.Helper()
			if s.Gone() != (len(keys) > 0) || (s.Cause() != nil) != (len(keys) > 0) {
				t.Errorf("%s: Gone %v, Cause %v", step, s.Gone(), s.Cause())
			}
			for _, key := range []string{"a1", "a2", "b1", "1"} {
				if got, want := s.Of(key).Gone(), slices.Contains(keys, key); got != want {
					t.Errorf("%s: %q gone: %v, want %v", step, key, got, want)
				}
			}
		}
		gone("at first")
		fail("a1")
		gone("a", "a1", "a2")
		fail("1") // of no known server
		fail("b1")
		gone("all", "a1", "a2", "b1", "1")
		s.Of("a2").Success()
		gone("without a", "b1", "1")
		s.Of("2").Success()
		gone("b", "b1")
		s.Of("b2").Success()
		gone("all are back")

		fail("a1")
		for range 5 {
			time.Sleep(50 * time.Second)
			_, _ = s.Of("a1").Down()
			s.Of("b1").Success()
			gone("a is asked for", "a1", "a2")
		}
		time.Sleep(62 * time.Second)
		s.Of("b1").Success()
		gone("a was not asked for in a minute")

		if want := []string{"a: lost", "", "a: lost", ""}; !slices.Equal(told, want) {
			t.Errorf("told %q, want %q", told, want)
		}
		if n := s.Outages().Load(); n != 4 {
			t.Errorf("%d outages, want 4", n)
		}
	})
}
