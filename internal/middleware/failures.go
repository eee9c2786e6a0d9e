package middleware

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

// Failures logs why calls could not be judged: the first one, and then at most one in each interval.
type Failures struct {
	logger *slog.Logger // nil for the default
	text   string
	made   time.Time
	logged atomic.Int64 // when, in ns since made; 0 for never
	others atomic.Int64 // since then
}

// logInterval is how often failures are logged.
const logInterval = time.Minute

// NewFailures returns what logs a text to a logger, slog.Default() if that is nil.
func NewFailures(logger *slog.Logger, text string) *Failures {
	return &Failures{logger: logger, text: text, made: time.Now()}
}

// Log logs an error, with how many there were since the last line.
func (f *Failures) Log(ctx context.Context, err error, more ...slog.Attr) {
	now, last := int64(time.Since(f.made))|1, f.logged.Load()
	if last != 0 && now-last < int64(logInterval) || !f.logged.CompareAndSwap(last, now) {
		f.others.Add(1)
		return
	}
	logger := f.logger
	if logger == nil {
		logger = slog.Default()
	}
	more = append(more, slog.Any("error", err), slog.Int64("others", f.others.Swap(0)))
	logger.LogAttrs(ctx, slog.LevelError, f.text, more...)
}
