package policyfile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/trypema/trypema"
)

// Watch looks at a file every so often, 10 seconds if that is 0, and hands its policies to apply when they
// have changed; and when it begins. It returns when the context ends, and leaves no goroutine behind. With
// Swap of Policies as apply, the policies in use are those in the file:
//
//	go policyfile.Watch(ctx, "policies.yaml", 0, plans.Swap, nil)
//
// A change is applied after two identical reads, so a file that is just being written is not. A file that is
// wrong, cannot be read, or is refused by apply changes nothing. The file is read at each look, whatever its
// time says: a change that keeps time and size is seen, and so is a link that points elsewhere. It must be a
// regular file, or a link to one: opening a pipe might never end.
//
// report gets the result of each change: nil once apply has taken it, and otherwise the error, once until
// that changes. If report is nil, both are logged to slog.Default(). If apply is nil, Watch reports that and
// returns.
func Watch(
	ctx context.Context, path string, every time.Duration, apply func(...trypema.Policy) error,
	report func(error),
) {
	if every <= 0 {
		every = 10 * time.Second
	}
	w := watcher{path: path, apply: apply, report: report}
	if report == nil {
		w.report = w.log
	}
	if apply == nil {
		w.report(fmt.Errorf("%w: policyfile.Watch got no function to apply policies", trypema.ErrInvalidOptions))
		return
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for ctx.Err() == nil {
		w.look()
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
}

// watcher remembers what was seen.
type watcher struct {
	path   string
	apply  func(...trypema.Policy) error
	report func(error)

	seen, taken *string // what the file held at the last look, and when it was last taken; nil before
	trouble     string  // the error of the last look, if it could not be read
}

func (w *watcher) look() {
	data, err := w.read()
	if err != nil {
		if w.trouble != err.Error() {
			w.trouble = err.Error()
			w.report(err)
		}
		return
	}
	w.trouble = ""
	text := string(data)
	switch {
	case w.seen == nil || *w.seen != text:
		w.seen = &text
	case w.taken == nil || *w.taken != text:
		w.taken = &text
		list, err := Parse(w.path, data)
		if err == nil {
			err = w.apply(list...)
		}
		w.report(err)
	}
}

// read returns what the file holds, if reading it cannot block.
func (w *watcher) read() ([]byte, error) {
	if info, err := os.Stat(w.path); err == nil && !info.Mode().IsRegular() {
		err := errors.New("it is " + kindOf(info.Mode()) + "; it must be a regular file")
		return nil, &fs.PathError{Op: "read", Path: w.path, Err: err}
	}
	return read(w.path)
}

// kindOf names what is not a regular file.
func kindOf(m fs.FileMode) string {
	switch {
	case m.IsDir():
		return "a folder"
	case m&fs.ModeNamedPipe != 0:
		return "a named pipe"
	case m&fs.ModeSocket != 0:
		return "a socket"
	}
	return "a device"
}

// log is the default of report.
func (w *watcher) log(err error) {
	if err != nil {
		slog.Error("policyfile: the policies stay as they are", "file", w.path, "err", err)
		return
	}
	slog.Info("policyfile: the policies of the file are in use", "file", w.path)
}
