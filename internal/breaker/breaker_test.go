package breaker_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema/internal/breaker"
)

func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, last := errors.New("first"), errors.New("last")
		var changes []error
		b := breaker.NewSet(time.Second, false, nil, func(cause error) { changes = append(changes, cause) }).Of("")
		is := func(step string, wantProbe bool, want error) {
			t.Helper()
			if gone, cause := b.Gone(), b.Cause(); gone != (want != nil) || !errors.Is(cause, want) {
				t.Errorf("%s: Gone %v, Cause %v; want %v", step, gone, cause, want)
			}
			if probe, cause := b.Down(); probe != wantProbe || !errors.Is(cause, want) {
				t.Errorf("%s: Down %v, %v; want %v, %v", step, probe, cause, wantProbe, want)
			}
		}
		fail := func(errs ...error) {
			for _, err := range errs {
				b.Failure(err)
			}
		}

		is("at first", false, nil)
		fail(first, first)
		b.Success()
		fail(first, first)
		is("never three in a row", false, nil)
		fail(last)
		is("three in a row", false, last)
		fail(first, first, first)
		is("still gone", false, last)
		time.Sleep(time.Second - time.Nanosecond)
		is("just before it is asked again", false, last)
		time.Sleep(time.Nanosecond)
		is("when it is asked again", true, last)
		is("once is enough", false, last)
		time.Sleep(time.Second)
		is("and again", true, last)
		b.Success()
		is("back", false, nil)
		fail(first, first)
		is("counted anew", false, nil)
		fail(first)
		is("gone again", false, first)
		b.Success()
		b.Success()

		if want := []error{last, nil, first, nil}; !slices.Equal(changes, want) {
			t.Errorf("changes %v, want %v", changes, want)
		}
	})
}

func TestNobodyIsTold(t *testing.T) {
	b := breaker.NewSet(time.Second, false, nil, nil).Of("")
	for range 3 {
		b.Failure(errors.New("gone"))
	}
	b.Success()
	if b.Gone() {
		t.Error("gone after a success")
	}
}

// A connection that broke is no reason if there is a better one.
func TestReason(t *testing.T) {
	said, refused := errors.New("NOAUTH"), &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	reset := &net.OpError{Op: "read", Err: errors.New("connection reset by peer")}
	for _, test := range []struct {
		failures []error
		want     error
	}{
		{[]error{said, io.EOF, io.EOF}, said},
		{[]error{said, fmt.Errorf("wrapped: %w", reset), said}, said},
		{[]error{io.EOF, reset, refused}, refused},
		{[]error{io.EOF, refused, reset}, refused},
		{[]error{reset, io.EOF, io.EOF}, reset},
		{[]error{refused, refused, said}, said},
	} {
		b := breaker.NewSet(time.Second, false, nil, nil).Of("")
		b.Failure(said)
		b.Success() // what was before that is no reason
		for _, err := range test.failures {
			b.Failure(err)
		}
		if got := b.Cause(); !errors.Is(got, test.want) {
			t.Errorf("after %v: %v, want %v", test.failures, got, test.want)
		}
	}
}

// A patient breaker believes a Redis that went again soon after it came back once it has answered often
// enough in a row, or once, when nothing has failed for a while. It has it asked one time after the other
// meanwhile, as long as it answers.
func TestPatience(t *testing.T) {
	failure := errors.New("lost")
	for _, test := range []struct {
		name    string
		patient bool
		calm    int    // answers between the two outages
		steps   string // s: success, f: failure, each 10ms after the last; p: nothing for four times retry
		want    string // after each step: g for gone, b for back
	}{
		{"impatient", false, 0, "s", "b"},
		{"patient", true, 0, "ssssssssssssssss", "gggggggggggggggb"},
		{"patient, with a failure in between", true, 63, "sssssssssssssssfssssssssssssssss",
			"gggggggggggggggggggggggggggggggb"},
		{"patient, and it was well for long", true, 64, "s", "b"},
		{"patient, without traffic", true, 0, "ssps", "gggb"},
		{"patient, and it fails when it is asked again", true, 0, "spfsps", "gggggb"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				changes := 0
				b := breaker.NewSet(time.Second, test.patient, nil, func(error) { changes++ }).Of("")
				outage := func() {
					for range 3 {
						b.Failure(failure)
					}
				}
				outage()
				if b.Success(); b.Gone() {
					t.Fatal("gone after the first outage")
				}
				for range test.calm {
					b.Success()
				}
				outage()
				for i, step := range test.steps {
					switch time.Sleep(10 * time.Millisecond); step {
					case 's':
						b.Success()
					case 'f':
						b.Failure(failure)
					default:
						time.Sleep(4 * time.Second)
					}
					if gone := b.Gone(); gone != (test.want[i] == 'g') {
						t.Fatalf("step %d: gone %v", i, gone)
					}
					// It may be asked at once after an answer, but not twice.
					if probe, cause := b.Down(); step == 's' && probe != (cause != nil) {
						t.Fatalf("step %d: Down %v, %v", i, probe, cause)
					} else if again, _ := b.Down(); again {
						t.Fatalf("step %d: asked twice at once", i)
					}
				}
				if changes != 4 {
					t.Errorf("%d changes, want 4", changes)
				}
			})
		})
	}
}
