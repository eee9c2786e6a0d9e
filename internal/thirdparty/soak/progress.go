package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/mattn/go-isatty"
)

// progress tells a terminal every second how far a run has come, and others every minute.
type progress struct {
	w        io.Writer
	terminal bool
	told     time.Time
}

func newProgress(w io.Writer) *progress {
	f, ok := w.(*os.File)
	return &progress{w: w, terminal: ok && isatty.IsTerminal(f.Fd()), told: time.Now()}
}

const eraseLine = "\r\x1b[2K"

// set shows how things stand.
func (p *progress) set(text string) {
	switch {
	case p.terminal:
		fmt.Fprint(p.w, eraseLine+text)
	case time.Since(p.told) >= time.Minute:
		fmt.Fprintln(p.w, text)
		p.told = time.Now()
	}
}

// line writes a line that stays.
func (p *progress) line(text string) {
	p.clear()
	fmt.Fprintln(p.w, text)
}

func (p *progress) clear() {
	if p.terminal {
		fmt.Fprint(p.w, eraseLine)
	}
}
