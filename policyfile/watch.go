package policyfile

import (
	"context"
	"time"

	"github.com/trypema/trypema"
)

// Watch looks at a file every so often, 10 seconds if that is 0, and hands its policies to apply when they have changed; and when it
// begins. It returns when the context ends, and starts nothing that would outlive it. With apply the Swap of Policies, what is in the
// file is what is in use:
//
//	go policyfile.Watch(ctx, "policies.yaml", 0, plans.Swap, func(err error) { log.Print(err) })
//
// A file that is wrong, can not be read, or is refused by apply changes nothing. It is reported once, until that changes. Neither
// function may be nil.
//
// The file is taken when two looks have seen the same bytes, so one that is just being written is not. It is read at each look, whatever
// its time says: a change that keeps time and size is seen, and so is a link that points elsewhere.
func Watch(ctx context.Context, path string, every time.Duration, apply func(...trypema.Policy) error, report func(error)) {
	if every <= 0 {
		every = 10 * time.Second
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	w := watcher{path: path, apply: apply, report: report}
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
	data, err := read(w.path)
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
		if err != nil {
			w.report(err)
		}
	}
}
