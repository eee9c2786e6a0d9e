package httplimit

import (
	"context"
	"log/slog"
	"math"
	"net/http"
	"sync"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/invalid"
)

// Reserver limits requests whose cost is known only once they were handled: the tokens of an answer, or what
// they cost in money. It is made by NewReserver.
//
//	tokens, err := httplimit.NewReserver(httplimit.Options{Bound: perUser, Cost: estimate}, 10*time.Minute)
//	if err != nil { … }
//	mux.Handle("POST /answers", tokens.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
//		for token := range answer(r) {
//			tokens.Spent(r.Context(), 1)
//			…
//		}
//	})))
//
// A request is admitted if its estimate fits, which then counts. What the handler reports takes its place
// when the handler returns, also if it panics, or the client has hung up. Several Reservers stand in a
// row, each for an account of its own: if one of them, or another limit of this package further in, denies
// the request, those before it get their estimates back.
type Reserver struct{ m *limit }

// NewReserver returns a Reserver, or an error that wraps trypema.ErrInvalidOptions and names the field. Bound
// or Policies must decide, and Cost must estimate what a request costs; an estimate of 0 is taken as 1.
//
// The expiry is how long an estimate counts at most if this process ends before the handler does: see
// trypema.Bound.Reserve. It should be longer than any request takes.
func NewReserver(o Options, expiry time.Duration) (*Reserver, error) {
	m, err := newLimit("httplimit.Options", o)
	switch {
	case err != nil:
		return nil, err
	case o.Bound == nil && o.Policies == nil:
		return nil, invalid.Errorf(trypema.ErrInvalidOptions,
			"httplimit.Options.Bound is nil, and so is Policies; one of them must decide, "+
				"as nothing else reserves")
	case o.Cost == nil:
		return nil, invalid.Errorf(trypema.ErrInvalidOptions,
			"httplimit.Options.Cost is nil; it must estimate what a request costs")
	case expiry < 0:
		return nil, invalid.Errorf(trypema.ErrInvalidOptions,
			"httplimit.NewReserver: expiry is %v; it must be 0 (none) or more", expiry)
	}
	m.judge.Reserve, m.judge.Expiry = true, expiry
	return &Reserver{m}, nil
}

// Wrap is the middleware: see New.
func (v *Reserver) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		verdict, decided, passes := v.m.admits(w, r)
		if !passes {
			abandon(r.Context())
			return
		}
		ctx := r.Context()
		if decided != nil {
			ctx = decided
		}
		if verdict.Reservation != nil {
			outer, _ := ctx.Value(holdingKey{}).(*holding)
			h := &holding{by: v, outer: outer, reservation: verdict.Reservation, cost: verdict.Estimate}
			ctx = context.WithValue(ctx, holdingKey{}, h)
			defer h.settle(r)
		}
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// Spent reports what a request has cost, by the context of the request. What is reported adds up, and is
// charged when the handler returns; it can be more than the estimate. Without any report the estimate is
// charged, so a handler that has spent nothing reports 0. With a context of a request that has reserved
// nothing, because it was skipped or Shadow let it pass, it does nothing.
func (v *Reserver) Spent(ctx context.Context, n uint64) {
	h, _ := ctx.Value(holdingKey{}).(*holding)
	for ; h != nil; h = h.outer {
		if h.by == v {
			h.report(n)
			return
		}
	}
}

// KeyOf returns the key by which a request is limited: see Options.KeyOf.
func (v *Reserver) KeyOf(r *http.Request) (key string, ok bool) { return v.m.judge.KeyOf(r) }

type holdingKey struct{}

// holding is what a request has reserved by a Reserver.
type holding struct {
	by          *Reserver
	outer       *holding // by another one, before
	reservation *trypema.Reservation

	mu       sync.Mutex // guards the below
	cost     uint64     // the estimate or, once there is a report, what was reported
	reported bool
}

func (h *holding) report(n uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.reported {
		h.reported, h.cost = true, 0
	}
	if h.cost += n; h.cost < n {
		h.cost = math.MaxUint64
	}
}

// settle charges what was reported. Whether the client is still there does not matter.
func (h *holding) settle(r *http.Request) {
	h.mu.Lock()
	cost := h.cost
	h.mu.Unlock()
	if err := h.reservation.Commit(context.WithoutCancel(r.Context()), cost); err != nil {
		h.by.m.settling.Log(r.Context(), err, slog.String("policy", h.by.m.Name))
	}
}

// abandon gives back what a request has reserved so far, as it does not reach its handler.
func abandon(ctx context.Context) {
	h, _ := ctx.Value(holdingKey{}).(*holding)
	for ; h != nil; h = h.outer {
		h.report(0)
	}
}
