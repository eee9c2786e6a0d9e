package middleware_test

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema/internal/middleware"
)

// The first failure is logged at once, and then one a minute, which says how many there were.
func TestFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text bytes.Buffer
		f := middleware.NewFailures(slog.New(slog.NewTextHandler(&text, nil)), "no decision")
		said := func(want string) {
			t.Helper()
			if got := text.String(); !strings.Contains(got, want) || want == "" && got != "" ||
				strings.Count(got, "\n") > 1 {
				t.Errorf("it says %q, want %q", got, want)
			}
			text.Reset()
		}
		log := func(n int) {
			for range n {
				f.Log(t.Context(), errors.New("gone"), slog.String("policy", "api"))
			}
		}
		said("")
		log(5)
		said(`level=ERROR msg="no decision" policy=api error=gone others=0`)
		time.Sleep(59 * time.Second)
		log(5)
		said("")
		time.Sleep(time.Second)
		log(1)
		said("others=9")
		time.Sleep(time.Hour)
		log(1)
		said("others=0")
	})
}
