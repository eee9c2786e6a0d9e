// Command llm is an HTTP API in front of a language model, which streams its answers. Each user has so many
// requests and tokens a minute, and a budget of money a day.
//
//	go run ./examples/llm
//	go run ./examples/llm --tokens 50 --budget 0.001
//
//	curl -iN -H 'X-User: ada' 'localhost:8080/answer?question=what+is+a+needle&max=20'
//
// What an answer will cost is not known when it begins. So the most that it can cost is reserved; what it has
// cost takes its place when the answer ends, also if the client hangs up before that. Ctrl-C ends it.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/examples/internal/program"
	"github.com/trypema/trypema/httplimit"
)

func main() { program.Main(run) }

// run is a program.Run.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := program.Flags("llm", stderr)
	addr := flags.String("addr", "localhost:8080", "where to listen")
	requests := flags.Uint64("requests", 20, "requests a minute, of each user")
	tokens := flags.Uint64("tokens", 2000, "tokens a minute, of each user")
	budget := flags.Float64("budget", 0.10, "dollars a day, of each user")
	if status, ok := program.Parse(flags, args); !ok {
		return status
	}
	err := cmp.Or(
		program.Check(flags.NArg() == 0, "unexpected argument %q", flags.Arg(0)),
		program.Check(*budget >= 0 && *budget <= 1e9, "--budget is %v; it must be from 0 to 1e9", *budget),
	)
	if err != nil {
		return program.Fail(flags, 2, err)
	}
	limits, err := trypema.NewLocal(trypema.Options{})
	if err != nil {
		return program.Fail(flags, 1, err)
	}
	defer limits.Close()
	a, err := newAPI(limits, *requests, *tokens, uint64(math.Round(*budget*1e6)), parrot)
	if err == nil {
		err = program.Serve(ctx, *addr, a.handler(), longest, stdout)
	}
	if err != nil {
		return program.Fail(flags, 1, err)
	}
	return 0
}

const (
	maxTokens = 500             // of an answer
	longest   = 2 * time.Minute // that an answer takes; its estimate is free again after that

	microsOfQuestion = 2  // what a token of a question costs, in micro-dollars
	microsOfAnswer   = 10 // and one of an answer
)

// model answers a question token by token, until the context ends.
type model func(ctx context.Context, question string) iter.Seq[string]

// parrot is a model that says what it was asked, ten tokens a second.
func parrot(ctx context.Context, question string) iter.Seq[string] {
	return func(yield func(string) bool) {
		ticker := time.NewTicker(time.Second / 10)
		defer ticker.Stop()
		for _, token := range strings.Fields(question) {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			if !yield(token) {
				return
			}
		}
	}
}

// api is the model behind its limits.
type api struct {
	ask      model
	requests func(http.Handler) http.Handler
	tokens   *httplimit.Reserver
	money    *httplimit.Reserver
}

// newAPI limits a model. Each limit is a policy, so that requests and tokens, which have the same window, do
// not count together.
func newAPI(limits trypema.Binder, requests, tokens, micros uint64, ask model) (*api, error) {
	policies, err := trypema.NewPolicies(limits,
		policy("requests", trypema.AtMost(requests, time.Minute)),
		policy("tokens", trypema.AtMost(tokens, time.Minute)),
		policy("micro-dollars", trypema.AtMost(micros, 24*time.Hour)))
	if err != nil {
		return nil, err
	}
	perUser := func(policy string) httplimit.Options {
		return httplimit.Options{
			Policies: policies, PolicyOf: func(*http.Request) string { return policy }, Name: policy,
			Key: httplimit.ByHeader("X-User"), Keyless: httplimit.KeylessDeny,
		}
	}
	a := &api{ask: ask}
	ofTokens, ofMoney := perUser("tokens"), perUser("micro-dollars")
	ofTokens.Cost = func(r *http.Request) uint64 { return tokensOf(question(r)) + most(r) }
	ofMoney.Cost = func(r *http.Request) uint64 {
		return microsOfQuestion*tokensOf(question(r)) + microsOfAnswer*most(r)
	}
	var err2, err3 error
	a.requests, err = httplimit.New(perUser("requests"))
	a.tokens, err2 = httplimit.NewReserver(ofTokens, longest)
	a.money, err3 = httplimit.NewReserver(ofMoney, longest)
	return a, errors.Join(err, err2, err3)
}

func policy(name string, limit trypema.Limit) trypema.Policy {
	return trypema.Policy{Name: name, Limits: []trypema.Limit{limit}}
}

func (a *api) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /answer", a.requests(a.tokens.Wrap(a.money.Wrap(http.HandlerFunc(a.answer)))))
	return mux
}

func question(r *http.Request) string { return r.URL.Query().Get("question") }

func tokensOf(text string) uint64 { return uint64(len(strings.Fields(text))) }

// most is how many tokens an answer may have.
func most(r *http.Request) uint64 {
	n, err := strconv.ParseUint(r.URL.Query().Get("max"), 10, 64)
	if err != nil {
		return maxTokens
	}
	return min(n, maxTokens)
}

// answer streams an answer, and reports each token of it.
func (a *api) answer(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), longest)
	defer cancel()
	spent := func(tokens, micros uint64) {
		a.tokens.Spent(ctx, tokens)
		a.money.Spent(ctx, tokens*micros)
	}
	asked := tokensOf(question(r))
	spent(asked, microsOfQuestion)
	if asked == 0 {
		http.Error(w, "question is empty", http.StatusBadRequest)
		return
	}
	n, last := uint64(0), most(r)
	for token := range a.ask(ctx, question(r)) {
		if n++; n > last {
			break
		}
		spent(1, microsOfAnswer)
		fmt.Fprintln(w, token)
		_ = http.NewResponseController(w).Flush() // to a client that has gone, perhaps
	}
}
