package main

import (
	"slices"
	"sync"
	"time"

	"github.com/trypema/trypema/internal/proof/anywindow"
)

// watch judges what is admitted of one key, in any window, for as long as it takes, in memory that does not
// grow: in pieces that overlap by more than a window.
type watch struct {
	key    string
	window time.Duration
	bound  uint64 // on what a window may hold

	mu   sync.Mutex // guards the below
	log  []anywindow.Admission
	most uint64 // in any window so far
	new  uint64 // the most in the last piece
}

func (w *watch) add(from, to time.Time, cost uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = append(w.log, anywindow.Admission{From: from, To: to, Cost: cost})
}

// late is how long after the end of a call it may be added.
const late = time.Second

// judge judges what has been added by now. A window that has ended by now−late is judged for good; of what
// may lie in others, nothing has ended before that less a window.
func (w *watch) judge(now time.Time) {
	w.mu.Lock()
	log := slices.Clone(w.log)
	keep := now.Add(-late - w.window)
	w.log = slices.DeleteFunc(w.log, func(a anywindow.Admission) bool { return a.To.Before(keep) })
	w.mu.Unlock()
	most := anywindow.Most(log, w.window) // without the lock, which callers want
	w.mu.Lock()
	defer w.mu.Unlock()
	w.new = most
	w.most = max(w.most, most)
}

func (w *watch) fullest() (ever, lately uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.most, w.new
}
