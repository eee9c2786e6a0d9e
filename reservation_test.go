package trypema_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
)

// A store that keeps no expiries is told of each change once: the timer refunds the estimate, and a commit
// after that starts from nothing.
func TestReservationWithATimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type change struct{ was, is uint64 }
		var told []change
		admitted := trypema.Decision{Allowed: true, Outcome: trypema.OutcomeAllowed}
		r := trypema.NewReservation(admitted, 10, time.Minute, func(_ context.Context, was, is uint64) error {
			told = append(told, change{was, is})
			return nil
		})
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if want := []change{{10, 0}}; !slices.Equal(told, want) {
			t.Errorf("after the expiry: %v, want %v", told, want)
		}
		if err := r.Commit(t.Context(), 3); err != nil {
			t.Error(err)
		}
		if want := []change{{10, 0}, {0, 3}}; !slices.Equal(told, want) {
			t.Errorf("after the commit: %v, want %v", told, want)
		}
		if err := r.Commit(t.Context(), 3); !errors.Is(err, trypema.ErrSettled) || len(told) != 2 {
			t.Errorf("the second commit: %v, %v", err, told)
		}
	})
}
