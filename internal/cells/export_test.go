package cells

import "github.com/trypema/trypema/internal/window"

func (w *Window) Empty() bool            { return w.empty() }
func (w *Window) Room() uint64           { return w.room() }
func (w *Window) In(i int) window.Counts { return w.in(i) }
