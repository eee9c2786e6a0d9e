package policyfile_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/fixture"
	"github.com/trypema/trypema/internal/proof/must"
	"github.com/trypema/trypema/policyfile"
)

// watched is a file that is being watched, in virtual time.
type watched struct {
	t    *testing.T
	path string

	mu      sync.Mutex
	rates   []trypema.Rate // what was applied
	reports []string
	taken   int   // how often it was reported that nothing is wrong
	refusal error // of apply
}

func watch(t *testing.T, file string, test func(w *watched)) {
	path := filepath.Join(t.TempDir(), "policies.yaml")
	if file != "" {
		write(t, path, file)
	}
	synctest.Test(t, func(t *testing.T) {
		w := &watched{t: t, path: path}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() {
			policyfile.Watch(ctx, path, time.Second, func(list ...trypema.Policy) error {
				w.mu.Lock()
				defer w.mu.Unlock()
				if w.refusal == nil {
					w.rates = append(w.rates, list[0].Limits[0].Rate)
				}
				return w.refusal
			}, func(err error) {
				w.mu.Lock()
				defer w.mu.Unlock()
				if err == nil {
					w.taken++
					return
				}
				w.reports = append(w.reports, strings.ReplaceAll(err.Error(), path, "p.yaml"))
			})
		})
		time.Sleep(time.Second / 2) // so that looks are between what the test does
		w.looks(1)
		test(w)
		cancel()
		running.Wait()
	})
}

// looks waits for so many.
func (w *watched) looks(n int) {
	time.Sleep(time.Duration(n) * time.Second)
	synctest.Wait()
}

// want compares what was done since the last time.
func (w *watched) want(rates []trypema.Rate, reports ...string) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Equal(w.rates, rates) || !slices.Equal(w.reports, reports) || w.taken != len(rates) {
		w.t.Errorf("applied %v, and reported %q and %d times that all is well; want %v and %q",
			w.rates, w.reports, w.taken, rates, reports)
	}
	w.rates, w.reports, w.taken = nil, nil, 0
}

func (w *watched) write(text string) { write(w.t, w.path, text) }

func file(rate string) string { return limit("rate: " + rate) }

func TestWatch(t *testing.T) {
	watch(t, file("10/s"), func(w *watched) {
		w.want([]trypema.Rate{10})
		w.looks(10)
		w.want(nil)
		w.write(file("20/s")) // as long as before
		w.looks(3)
		w.want([]trypema.Rate{20})
		w.write(file("10/s"))
		w.looks(3)
		w.want([]trypema.Rate{10})
	})
}

// A change is seen though the file says that it is as old and as long as before, and one that is no change is
// not.
func TestWatchLooksIntoTheFile(t *testing.T) {
	watch(t, file("10/s"), func(w *watched) {
		w.want([]trypema.Rate{10})
		before, err := os.Stat(w.path)
		must.OK(t, err)
		w.write(file("20/s"))
		must.OK(t, os.Chtimes(w.path, before.ModTime(), before.ModTime()))
		w.looks(3)
		w.want([]trypema.Rate{20})
		w.write(file("20/s"))
		w.looks(3)
		w.want(nil)
	})
}

func TestWatchReportsOnce(t *testing.T) {
	const zero = `p.yaml:4:16: policy "api": limit 1: rate is "0/s"; ` + aRate
	watch(t, file("10/s"), func(w *watched) {
		w.want([]trypema.Rate{10})
		w.write(file("0/s"))
		w.looks(10)
		w.want(nil, zero)
		w.write("")
		w.looks(10)
		w.want(nil, "p.yaml: the file is empty; it must be a mapping with policies")
		w.write(file("10/s")) // what it was before is taken again
		w.looks(3)
		w.want([]trypema.Rate{10})
		w.mu.Lock()
		w.refusal = errors.New("refused")
		w.mu.Unlock()
		w.write(file("20/s"))
		w.looks(10)
		w.want(nil, "refused")
	})
}

func TestWatchAFileThatIsNotThere(t *testing.T) {
	gone := "open p.yaml: no such file or directory"
	watch(t, "", func(w *watched) {
		w.looks(10)
		w.want(nil, gone)
		w.write(file("10/s"))
		w.looks(3)
		w.want([]trypema.Rate{10})
		for range 2 {
			must.OK(t, os.Remove(w.path))
			w.looks(10)
			w.want(nil, gone)
			w.write(file("10/s"))
			w.looks(3)
			w.want(nil)
		}
	})
}

// A file that is being written is not taken, though each part of it could be.
func TestWatchWaitsForTheEnd(t *testing.T) {
	watch(t, file("10/s"), func(w *watched) {
		w.want([]trypema.Rate{10})
		text := file("20/s")
		for i := range 5 {
			w.write(text)
			w.looks(1)
			text += fmt.Sprintf("  - {name: more%d, limits: [{rate: 1/s}]}\n", i)
		}
		w.want(nil)
		w.looks(2)
		w.want([]trypema.Rate{20})
	})
}

// A link that points elsewhere, as those of a ConfigMap do, is a change.
func TestWatchFollowsLinks(t *testing.T) {
	dir := t.TempDir()
	for _, rate := range []string{"10", "20"} {
		write(t, filepath.Join(dir, rate), file(rate+"/s"))
	}
	link := filepath.Join(dir, "policies.yaml")
	point := func(to string) {
		if err := errors.Join(os.Symlink(to, link+"~"), os.Rename(link+"~", link)); err != nil {
			t.Skip(err)
		}
	}
	point("10")
	synctest.Test(t, func(t *testing.T) {
		limits := fixture.Local(t, trypema.Options{})
		list, err := policyfile.Load(link)
		must.OK(t, err)
		p := fixture.Policies(t, limits, list...)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() {
			policyfile.Watch(ctx, link, 0, p.Swap, func(err error) {
				must.Report(t, err)
			})
		})
		for _, want := range []uint64{10, 20} {
			time.Sleep(25 * time.Second)
			if d, err := p.Peek(ctx, "api", "k", 0); err != nil || d.Limit != want {
				t.Errorf("%+v, %v, want a limit of %d", d, err, want)
			}
			point("20")
		}
		cancel()
		running.Wait()
	})
}

// Readers go on while the file goes from one to another, and back.
func TestWatchUnderLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policies.yaml")
	write(t, path, file("1000/d"))
	limits := fixture.Local(t, trypema.Options{})
	list, err := policyfile.Load(path)
	must.OK(t, err)
	p := fixture.Policies(t, limits, list...)
	ctx, cancel := context.WithCancel(t.Context())
	var swapped, admitted atomic.Int64
	var running sync.WaitGroup
	running.Go(func() {
		policyfile.Watch(ctx, path, 100*time.Microsecond, func(list ...trypema.Policy) error {
			swapped.Add(1)
			return p.Swap(list...)
		}, func(error) {}) // a file that was cut short is possible
	})
	for range 4 {
		running.Go(func() {
			for ctx.Err() == nil {
				d, err := p.Allow(ctx, "api", "k")
				if err != nil {
					t.Error(err)
					return
				}
				if d.Allowed {
					admitted.Add(1)
				}
			}
		})
	}
	for i := 0; swapped.Load() < 20; i++ {
		write(t, path, file([]string{"2000/d", "1000/d"}[i%2]))
		for deadline, before := time.Now().Add(50*time.Millisecond),
			swapped.Load(); swapped.Load() == before && time.Now().Before(deadline); {
			time.Sleep(100 * time.Microsecond)
		}
	}
	cancel()
	running.Wait()
	used, err := p.Usage(t.Context(), "api", "k")
	if n := uint64(admitted.Load()); err != nil || used[0].Total != n || n < 1000 || n > 2000 {
		t.Errorf("admitted %d, in use %+v, %v", n, used, err)
	}
}

// Without a function to report to, success and failure are in the log.
func TestWatchLogs(t *testing.T) {
	said, before := new(strings.Builder), slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(said, nil)))
	defer slog.SetDefault(before)
	path := filepath.Join(t.TempDir(), "policies.yaml")
	write(t, path, file("10/s"))
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		time.AfterFunc(30*time.Second, func() { write(t, path, file("0/s")) })
		policyfile.Watch(ctx, path, time.Second, func(...trypema.Policy) error { return nil }, nil)
		policyfile.Watch(ctx, path, time.Second, nil, nil)
	})
	lines := strings.SplitAfter(said.String(), "\n")
	for i, want := range []string{
		`level=INFO msg="policyfile: the policies of the file are in use" file=` + path,
		`level=ERROR msg="policyfile: the policies stay as they are" file=` + path + ` err="` + path + `:4:16: `,
		`err="trypema: invalid options: policyfile.Watch got no function to apply policies"`,
		``,
	} {
		if i >= len(lines) || !strings.Contains(lines[i], want) {
			t.Fatalf("line %d of the log is not %q:\n%s", i+1, want, said)
		}
	}
}

// Without a function to apply policies by, that is reported, and Watch returns.
func TestWatchWithoutApply(t *testing.T) {
	var reports []error
	policyfile.Watch(t.Context(), "policies.yaml", 0, nil, func(err error) { reports = append(reports, err) })
	if len(reports) != 1 || !errors.Is(reports[0], trypema.ErrInvalidOptions) {
		t.Error(reports)
	}
}

// A panic of apply or report is for who called Watch, and for nothing else: it runs on that goroutine.
func TestWatchPanics(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policies.yaml")
	write(t, path, file("10/s"))
	for name, watch := range map[string]func(){
		"apply": func() {
			apply := func(...trypema.Policy) error { panic("broken") }
			policyfile.Watch(t.Context(), path, time.Microsecond, apply, nil)
		},
		"report": func() {
			apply := func(...trypema.Policy) error { return nil }
			policyfile.Watch(t.Context(), path+"~", time.Microsecond, apply, func(error) { panic("broken") })
		},
	} {
		func() {
			defer func() {
				if recover() != "broken" {
					t.Errorf("the panic of %s did not reach the caller", name)
				}
			}()
			watch()
		}()
	}
}
