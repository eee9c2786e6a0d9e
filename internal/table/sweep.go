package table

import "github.com/trypema/trypema/internal/table/sweep"

const sweepStep = 128 // entries under one hold of a lock

// Sweeper returns the timer that removes idle keys.
func (t *Table[S, M]) Sweeper() *sweep.Sweep { return &t.sweep }

// Empty reports whether there are no keys.
func (t *Table[S, M]) Empty() bool { return t.count.Load() == 0 }

// Visit removes the idle keys of a shard.
func (t *Table[S, M]) Visit(shard int) { t.shards[shard].sweep(t.clock()) }

// sweep removes the idle keys of a shard.
func (sh *Shard[S, M]) sweep(now int64) {
	for h := Handle(0); ; {
		sh.Lock()
		for step := 0; step < sweepStep && h < sh.end; step++ {
			sh.removeIfIdle(h, now)
			h = h.Next()
		}
		done := h >= sh.end
		if done {
			sh.compact()
		}
		sh.Unlock()
		if done {
			return
		}
	}
}
