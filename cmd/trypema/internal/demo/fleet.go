package demo

import (
	"errors"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/cli/store"
	"github.com/trypema/trypema/redislimit"
)

// fleet is the providers with their options, and the servers that they guard: one for each instance of Redis
// and Hybrid, which reach Redis by a proxy that can be slow or cut off, and one for Local.
type fleet struct {
	instances int
	paused    atomic.Int64 // the number of one, or 0
	servers   servers
	local     *server
	roads     []road
	ends      []func() error
}

// newFleet makes one, with a guard for each of the lanes.
func newFleet(k knobs, w web, redis backend, lanes []*lane) (_ *fleet, err error) {
	f := &fleet{instances: k.Instances}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.close())
		}
	}()
	for range k.Instances {
		r, err := redis.road()
		if err != nil {
			return nil, err
		}
		f.roads = append(f.roads, r)
		f.ends = append(f.ends, r.Close)
	}
	f.set(k)
	local, err := trypema.NewLocal(k.options())
	if err != nil {
		return nil, err
	}
	f.ends = append(f.ends, local.Close)
	byProvider := map[string][]trypema.Provider{store.Local: {local}}
	for _, provider := range []string{store.Redis, store.Hybrid} {
		limits, err := redis.limits(f.roads, provider, redislimit.Options{Options: k.options()})
		if err != nil {
			return nil, err
		}
		f.ends = append(f.ends, limits.Close)
		byProvider[provider] = limits.Instances
	}
	for i := range k.Instances + 1 {
		mux := http.NewServeMux()
		for _, l := range lanes {
			if l.remote() == (i == k.Instances) {
				continue
			}
			var limiter decider
			if all := byProvider[l.provider]; l.isPeer() {
				limiter = newPeer(l.provider, k.options().Window)
			} else {
				limiter = l.limiter(all[i%k.Instances])
			}
			h, err := l.guard(limiter, k.options().Window)
			if err != nil {
				return nil, err
			}
			mux.Handle("/"+l.id(), h)
		}
		s, err := w.serve(mux)
		if err != nil {
			return nil, err
		}
		f.servers = append(f.servers, s)
	}
	f.local = f.servers[k.Instances]
	f.servers = f.servers[:k.Instances]
	return f, nil
}

// limiter is the one of a provider that the lane is about.
func (l *lane) limiter(p trypema.Provider) trypema.Limiter {
	if l.strategy == suppressed {
		return p.Suppressed()
	}
	return p.Absolute()
}

// set does what knobs say of Redis and the ways to it.
func (f *fleet) set(k knobs) {
	f.paused.Store(int64(k.Paused))
	for i, p := range f.roads {
		p.SetDelay(time.Duration(k.Delay * float64(time.Millisecond)))
		p.Refuse(!k.Redis)
		p.Blackhole(i+1 == k.Paused)
	}
}

// url is where a call for a lane goes: to one of the instances that are not paused, or to that of Local. They
// are numbered from 1 on.
func (f *fleet) url(l *lane) (url string, number int) {
	if !l.remote() {
		return f.local.url + "/" + l.id(), 1
	}
	i := rand.IntN(f.instances)
	if i+1 == int(f.paused.Load()) {
		i = (i + 1) % f.instances
	}
	return f.servers[i].url + "/" + l.id(), i + 1
}

// close ends all of it, after the calls that are under way. The providers are let through to Redis, to
// settle.
func (f *fleet) close() error {
	all := f.servers
	if f.local != nil {
		all = append(all[:len(all):len(all)], f.local)
	}
	err := all.close()
	for _, p := range f.roads {
		p.SetDelay(0)
		p.Blackhole(false)
		p.Refuse(false)
	}
	for i := range f.ends { // the newest first
		err = errors.Join(err, f.ends[len(f.ends)-1-i]())
	}
	return err
}
