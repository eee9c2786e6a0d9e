// Package rustpeer drives rate limiters that are written in Rust, by the program in internal/bench/rust. Each
// limiter has a process of its own, which makes the calls of a workload by its own threads, and is told by
// pipe when to begin and to end. So a measurement can let limiters of both languages take turns.
package rustpeer

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/trypema/trypema/internal/proof/explore"
)

// MissingError says why no limiter in Rust can be had here.
type MissingError struct{ Why string }

func (e *MissingError) Error() string { return e.Why }

// build is the one build of a process, whose result does not change.
var build struct {
	sync.Mutex
	done bool
	dir  string
	err  error
}

// Build builds the program, and the module redis-cell, unless that has been done, and returns the folder of
// what was built. It takes a minute or two the first time. The error is a *MissingError where cargo or the
// sources are not there. A test builds only where it explores, and without optimization, as it does not
// measure.
func Build(ctx context.Context) (dir string, err error) {
	build.Lock()
	defer build.Unlock()
	if build.done {
		return build.dir, build.err
	}
	dir, err = compile(ctx)
	if ctx.Err() != nil {
		return "", ctx.Err() // the next one may have the time
	}
	build.done, build.dir, build.err = true, dir, err
	return dir, err
}

func compile(ctx context.Context) (string, error) {
	profile := "release"
	if testing.Testing() {
		if !explore.Long() {
			return "", &MissingError{"tests build nothing in Rust unless TRYPEMA_EXPLORE=1 (make test-long)"}
		}
		profile = "quick"
	}
	dir, err := source()
	if err != nil {
		return "", err
	}
	cargo, err := exec.LookPath("cargo")
	if err != nil {
		return "", &MissingError{"cargo, which builds the limiters in Rust, is not on PATH"}
	}
	if err := run(ctx, cargo, dir, "--profile", profile); err != nil {
		return "", err
	}
	// which wants a C compiler; without it there is no such module
	_ = run(ctx, cargo, dir, "--profile", profile, "--package", "redis-cell")
	return filepath.Join(dir, "target", profile), nil
}

func run(ctx context.Context, cargo, dir string, args ...string) error {
	var said bytes.Buffer
	c := exec.CommandContext(ctx, cargo, append([]string{"build", "--locked", "--quiet"}, args...)...)
	c.Dir, c.Stdout, c.Stderr = dir, &said, &said
	if err := c.Run(); err != nil {
		return fmt.Errorf("cargo build in %s: %w\n%s", dir, err, lastLines(said.Bytes()))
	}
	return nil
}

// source is the folder of the program, beside that of this file.
func source() (string, error) {
	_, file, _, _ := runtime.Caller(0)
	dir := filepath.Join(filepath.Dir(filepath.Dir(file)), "rust")
	if _, err := os.Stat(filepath.Join(dir, "Cargo.toml")); err != nil {
		return "", &MissingError{"the sources of the limiters in Rust are not where they were: " + err.Error()}
	}
	return dir, nil
}

// lastLines is the end of a text, where the errors of a build are.
func lastLines(text []byte) []byte {
	const most = 2000
	text = bytes.TrimSpace(text)
	return text[max(0, len(text)-most):]
}

// Cell are the modules for a Redis server among what was built: redis-cell, or none.
func Cell(dir string) (paths []string) {
	if dir == "" {
		return nil
	}
	for _, name := range []string{"libredis_cell.so", "libredis_cell.dylib"} {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			paths = append(paths, path)
		}
	}
	return paths
}
