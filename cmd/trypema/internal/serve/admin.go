package serve

import (
	"fmt"
	"net/http"
	"net/http/pprof"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/trypema/trypema/cmd/trypema/internal/serve/rules"
)

// envoyLabels splits the name of a rule into domain, key1 and key2, as the Envoy rate limit service does for
// its statistics.
func envoyLabels(name string) [3]string {
	name = strings.ToValidUTF8(name, "\uFFFD")
	var l [3]string
	copy(l[:], strings.SplitN(name, ".", 3))
	return l
}

// admin returns the handler of the admin listener. It is for those who run the server, and shows names of
// rules and, by /limited, keys.
func (s *server) admin() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{}))
	mux.Handle("GET /limited", s.metrics.limits)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := s.ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /rlconfig", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		state := s.loader.current()
		set := s.engine.Set()
		if set != nil {
			fmt.Fprintf(w, "# in use since %s, from %s\n", state.at.UTC().Format(time.RFC3339),
				strings.Join(set.Files, ", "))
		}
		if state.err != nil {
			for _, err := range rules.Errors(state.err) {
				fmt.Fprintf(w, "# refused: %v\n", err)
			}
		}
		if set != nil {
			fmt.Fprint(w, set)
		}
	})
	if s.command.Pprof {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return mux
}
