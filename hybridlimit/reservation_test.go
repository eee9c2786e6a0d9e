package hybridlimit_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/internal/redisproto"
	"github.com/trypema/trypema/redislimit"
)

// cuttable is the way of one instance to a server, until it is cut.
type cuttable struct {
	*fakeredis.Server
	cut atomic.Bool
}

func (l *cuttable) Run(
	ctx context.Context, source, sha1 string, keys, args [][]string, answer func(int, []any, error),
) {
	if !l.cut.Load() {
		l.Server.Run(ctx, source, sha1, keys, args, answer)
		return
	}
	for i := range keys {
		answer(i, nil, errExpected)
	}
}

// daily are limits of 1000 a day, and as many in a minute, of which expiries are short.
func daily(t *testing.T, p *hybridlimit.Provider, s trypema.Strategy) *trypema.Bound {
	t.Helper()
	m, err := p.Bind(s,
		trypema.Limit{Name: "day", Rate: trypema.PerDay(1000), Window: 24 * time.Hour},
		trypema.Limit{Name: "minute", Rate: trypema.PerMinute(1000), Window: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func total(t *testing.T, m *trypema.Bound, key string) (day, minute uint64) {
	t.Helper()
	u, err := m.Usage(ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	return u[0].Total, u[1].Total
}

// An instance dies that has something reserved. An interval after it was reserved, Redis knows of it, and
// when it expires: others have that part of the limit back then, and not a window later.
func TestReservationOfADeadInstance(t *testing.T) {
	for _, s := range []trypema.Strategy{trypema.StrategyAbsolute, trypema.StrategySuppressed} {
		for _, others := range []uint64{0, 10} {
			t.Run(fmt.Sprint(s, ", others use ", others), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := fakeredis.New()
					mortal := &cuttable{Server: f}
					dying := daily(t, open(t, mortal, hybridlimit.Options{}), s)
					m := daily(t, open(t, f, hybridlimit.Options{}), s)
					if others > 0 {
						if d, err := m.AllowN(ctx, "k", others); err != nil || !d.Allowed {
							t.Fatal(d, err)
						}
					}
					if r, err := dying.Reserve(ctx, "k", 600, time.Second); err != nil || !r.Allowed {
						t.Fatal(r, err)
					}
					time.Sleep(250 * time.Millisecond)
					mortal.cut.Store(true)
					if day, minute := total(t, m, "k"); day != 600+others || minute != 600+others {
						t.Errorf("dead, and not expired: %d used in a day and %d in a minute, want %d", day,
							minute, 600+others)
					}
					if d, err := m.Peek(ctx, "k", 500); err != nil || d.Allowed && s == trypema.StrategyAbsolute {
						t.Errorf("500 of what is left of 1000: %+v, %v", d, err)
					}
					time.Sleep(time.Second)
					if day, minute := total(t, m, "k"); day != others || minute != others {
						t.Errorf("expired: %d used in a day and %d in a minute, want %d", day, minute, others)
					}
					if d, err := m.AllowN(ctx, "k", 700); err != nil || !d.Allowed {
						t.Errorf("700 of 1000, which are free: %+v, %v", d, err)
					}
				})
			})
		}
	}
}

// Room that one instance gives back is there for another that took the window for full: a reservation that
// expires, is settled below its estimate, or is deleted with its key, long before it would have left the
// window.
func TestRoomThatOthersGiveBack(t *testing.T) {
	for name, giveBack := range map[string]func(m *trypema.Bound, r *trypema.Reservation) error{
		"expires":   func(*trypema.Bound, *trypema.Reservation) error { return nil },
		"refunded":  func(_ *trypema.Bound, r *trypema.Reservation) error { return r.Refund(ctx) },
		"committed": func(_ *trypema.Bound, r *trypema.Reservation) error { return r.Commit(ctx, 100) },
		"deleted":   func(m *trypema.Bound, _ *trypema.Reservation) error { return m.Delete(ctx, "k") },
	} {
		for _, busy := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", busy: ", busy), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := fakeredis.New()
					one := daily(t, open(t, f, hybridlimit.Options{}), trypema.StrategyAbsolute)
					other := daily(t, open(t, f, hybridlimit.Options{}), trypema.StrategyAbsolute)
					if d, err := other.AllowN(ctx, "k", 5); err != nil || !d.Allowed {
						t.Fatal(d, err)
					}
					r, err := one.Reserve(ctx, "k", 900, 20*time.Second)
					if err != nil || !r.Allowed {
						t.Fatal(r, err)
					}
					for range 100 { // whatever is left of 1000
						if _, err := other.Allow(ctx, "k"); err != nil {
							t.Fatal(err)
						}
						time.Sleep(50 * time.Millisecond)
					}
					if d, err := other.AllowN(ctx, "k", 200); err != nil || d.Allowed {
						t.Fatalf("reserved by another: %+v, %v", d, err)
					}
					if err := giveBack(one, r); err != nil {
						t.Fatal(err)
					}
					for range 500 {
						if busy {
							if _, err := other.AllowN(ctx, "k", 200); err != nil {
								t.Fatal(err)
							}
						}
						time.Sleep(50 * time.Millisecond)
					}
					allowed := false
					for range 3 { // the first may find out
						d, err := other.AllowN(ctx, "k", 150)
						if err != nil {
							t.Fatal(err)
						}
						allowed = allowed || d.Allowed
						time.Sleep(time.Second)
					}
					if day, _ := total(t, other, "k"); !busy && !allowed || day < 300 {
						t.Errorf("%d used of 1000, and the rest is denied", day)
					}
				})
			})
		}
	}
}

// A reservation is settled though its key has been evicted, and settled since it was made or not.
func TestReservationsOfEvictedKeys(t *testing.T) {
	for _, expiry := range []time.Duration{0, time.Second, time.Hour} {
		for _, settled := range []bool{false, true} {
			t.Run(fmt.Sprint(expiry, ", settled before: ", settled), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := fakeredis.New()
					f.Delay = 2 * time.Millisecond
					o := hybridlimit.Options{}
					o.MaxKeys = 2
					m := daily(t, open(t, f, o), trypema.StrategyAbsolute)
					r, err := m.Reserve(ctx, "a", 100, expiry)
					if err != nil || !r.Allowed {
						t.Fatal(r, err)
					}
					if settled {
						time.Sleep(200 * time.Millisecond)
					}
					for _, key := range []string{"b", "c", "d"} {
						if _, err := m.Allow(ctx, key); err != nil {
							t.Fatal(err)
						}
					}
					if err := r.Commit(ctx, 30); err != nil {
						t.Fatal(err)
					}
					for range 2 {
						if day, minute := total(t, m, "a"); day != 30 || minute != 30 {
							t.Errorf("%d used in a day and %d in a minute, want 30", day, minute)
						}
						time.Sleep(2 * time.Second)
					}
				})
			})
		}
	}
}

// While Redis does not answer, a Commit of a reservation with an expiry is settled later: the true cost is
// not lost, and the estimate counts until it expires. Without an expiry, the estimate stands, as the error
// says.
func TestCommitWithoutRedis(t *testing.T) {
	for _, expiry := range []time.Duration{0, 10 * time.Second} {
		for _, known := range []bool{false, true} {
			t.Run(fmt.Sprint(expiry, ", Redis knows of it: ", known), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := fakeredis.New()
					p := open(t, f,
						hybridlimit.Options{Options: redislimit.Options{OnFailure: redislimit.FailClosed}})
					m := daily(t, p, trypema.StrategyAbsolute)
					if _, err := m.Allow(ctx, "k"); err != nil { // something is on lease
						t.Fatal(err)
					}
					r, err := m.Reserve(ctx, "k", 20, expiry)
					if err != nil || !r.Allowed {
						t.Fatal(r, err)
					}
					if known {
						time.Sleep(200 * time.Millisecond)
					}
					f.TakeAway()
					err = r.Commit(ctx, 7)
					if expiry > 0 && err != nil || expiry == 0 && !errors.Is(err, redislimit.ErrUnavailable) {
						t.Errorf("commit without Redis: %v", err)
					}
					f.Restore()
					time.Sleep(8 * time.Second)
					want := uint64(1 + 20)
					if expiry > 0 {
						want += 7
					}
					if day, minute := total(t, m, "k"); day != want || minute != want {
						t.Errorf("Redis is back: %d used in a day and %d in a minute, want %d", day, minute,
							want)
					}
					time.Sleep(6 * time.Second)
					if expiry > 0 {
						want -= 20
					}
					if day, minute := total(t, m, "k"); day != want || minute != want {
						t.Errorf("after the expiry: %d used in a day and %d in a minute, want %d", day,
							minute, want)
					}
				})
			})
		}
	}
}

// heldCommits is a server whose answers to commits come late: when release is closed.
type heldCommits struct {
	*fakeredis.Server
	arrived, release chan struct{}
}

func (h *heldCommits) Run(
	ctx context.Context, source, sha1 string, keys, args [][]string, answer func(int, []any, error),
) {
	h.Server.Run(ctx, source, sha1, keys, args, func(i int, reply []any, err error) {
		if redisproto.NameOf(source) == "commit.lua" {
			close(h.arrived)
			<-h.release
		}
		answer(i, reply, err)
	})
}

// The provider is closed while a commit is under way. The commit is in Redis, so it is no error.
func TestCommitDuringClose(t *testing.T) {
	for _, s := range []trypema.Strategy{trypema.StrategyAbsolute, trypema.StrategySuppressed} {
		synctest.Test(t, func(t *testing.T) {
			f := fakeredis.New()
			h := &heldCommits{f, make(chan struct{}), make(chan struct{})}
			p, err := hybridlimit.New(h, hybridlimit.Options{Options: redislimit.Options{Timeout: time.Hour}})
			if err != nil {
				t.Fatal(err)
			}
			m, err := p.Bind(s, trypema.Limit{Rate: trypema.PerMinute(1000), Window: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			for range 50 { // so that their windows have memory of their own
				if d, err := m.Allow(ctx, "k"); err != nil || !d.Allowed {
					t.Fatal(d, err)
				}
				time.Sleep(time.Second)
			}
			r, err := m.Reserve(ctx, "k", 10, 0)
			if err != nil || !r.Allowed {
				t.Fatal(r, err)
			}
			time.Sleep(time.Second)
			committed := make(chan error)
			go func() { committed <- r.Commit(ctx, 3) }()
			<-h.arrived
			if err := p.Close(); err != nil {
				t.Error(err)
			}
			close(h.release)
			if err := <-committed; err != nil {
				t.Error(err)
			}
		})
	}
}
