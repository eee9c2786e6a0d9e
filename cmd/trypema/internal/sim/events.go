package sim

// kind says what happens at an event.
type kind uint8

const (
	arrival  kind = iota // a call for a key is made, to some instance
	delayed              // a call that was made while its instance paused
	tick                 // the timer of an instance fires
	request              // an exchange reaches Redis
	reply                // its answers reach the instance
	overdue              // an exchange has no answer within the timeout
	deadline             // the first of the calls that wait for a key has waited for the timeout
	death                // the first instance is killed, and another takes its place
	pause                // the first instance stands still for a while
)

// event is something that happens at an instant of virtual time.
type event struct {
	at       int64
	order    uint64 // of what happens at one instant
	instance *instance
	exchange *exchange
	key      int32
	kind     kind
	made     int64 // when a delayed call was made
}

func (e *event) before(f *event) bool {
	return e.at < f.at || e.at == f.at && e.order < f.order
}

// events is a heap, the next event on top.
type events struct {
	heap  []event
	count uint64
}

func (h *events) push(e event) {
	h.count++
	e.order = h.count
	i := len(h.heap)
	h.heap = append(h.heap, e)
	for i > 0 {
		up := (i - 1) / 2
		if !e.before(&h.heap[up]) {
			break
		}
		h.heap[i] = h.heap[up]
		i = up
	}
	h.heap[i] = e
}

// pop takes the next event; there must be one.
func (h *events) pop() event {
	first := h.heap[0]
	n := len(h.heap) - 1
	e := h.heap[n]
	h.heap[n] = event{}
	h.heap = h.heap[:n]
	if n == 0 {
		return first
	}
	i := 0
	for {
		down := 2*i + 1
		if down >= n {
			break
		}
		if down+1 < n && h.heap[down+1].before(&h.heap[down]) {
			down++
		}
		if !h.heap[down].before(&e) {
			break
		}
		h.heap[i] = h.heap[down]
		i = down
	}
	h.heap[i] = e
	return first
}
