package rustpeer

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trypema/trypema/internal/proof/leak"
	"github.com/trypema/trypema/internal/proof/must"
)

func TestMain(m *testing.M) { leak.Main(m) }

func open(t *testing.T, s Settings) (*Process, error) {
	t.Helper()
	p, err := Open(t.Context(), s)
	var missing *MissingError
	if errors.As(err, &missing) {
		t.Skip(missing)
	}
	return p, err
}

func settings(limiter string) Settings {
	return Settings{Limiter: limiter, Provider: "local", Capacity: 3, Rate: 3 / 600.,
		Window: 10 * time.Minute, Bucket: 6 * time.Second, HardLimitFactor: 1.5}
}

func TestProcess(t *testing.T) {
	for _, limiter := range []string{"governor", "trypema"} {
		t.Run(limiter, func(t *testing.T) {
			p, err := open(t, settings(limiter))
			must.OK(t, err)
			got, err := p.Allow(t.Context(), "a", "a", "b", "a", "a")
			if !slices.Equal(got, []bool{true, true, true, true, false}) || err != nil {
				t.Errorf("allowed %v, %v", got, err)
			}
			must.OK(t, p.Workload(t.Context(), 2, [][]uint32{{0, 1}, {1, 0}}))
			if n, err := p.Fill(t.Context(), 2); n != 2 || err != nil {
				t.Errorf("filled %d, %v", n, err)
			}
			r, err := p.Drive(t.Context(), Pass{Duration: 50 * time.Millisecond, SampleEvery: 7, Burst: 1, Fresh: true})
			if err != nil || len(r.Workers) != 2 || r.Elapsed < 50*time.Millisecond {
				t.Fatalf("%+v, %v", r, err)
			}
			var calls, allowed, denied uint64
			for _, w := range r.Workers {
				calls, allowed, denied = calls+w.Calls, allowed+w.Allowed, denied+w.Denied
			}
			if calls == 0 || calls != allowed+denied || allowed > 4 || r.Latency.Count() != int64(calls/7) {
				t.Errorf("%d calls, %d allowed, %d denied, %d timed", calls, allowed, denied, r.Latency.Count())
			}
			must.Report(t, p.Close())
			if _, err := p.Allow(t.Context(), "a"); err == nil {
				t.Error("it decides after Close")
			}
		})
	}
}

func TestWhatIsWrong(t *testing.T) {
	s := settings("nobody")
	if _, err := open(t, s); err == nil || !strings.Contains(err.Error(), `limiter is "nobody"`) {
		t.Errorf("error is %v", err)
	}
	p, err := open(t, settings("governor"))
	must.OK(t, err)
	must.OK(t, p.Workload(t.Context(), 1, [][]uint32{{0}}))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = p.Drive(ctx, Pass{Duration: time.Hour, SampleEvery: 7, Burst: 1})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error is %v", err)
	}
	if _, err := p.Allow(t.Context(), "a"); err == nil {
		t.Error("it answers after it was stopped")
	}
	must.Report(t, p.Close())
}
