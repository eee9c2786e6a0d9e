package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/grpclimit"
	"github.com/trypema/trypema/httplimit"
)

// account is who calls.
type account struct{ tenant, user, plan string }

// accounts are the accounts by API key. A service would have them in a database.
var accounts = map[string]account{
	"key-ada": {"acme", "ada", "pro"},
	"key-bob": {"bits", "bob", "free"},
	"key-ben": {"bits", "ben", "free"},
}

type service struct {
	plans    *trypema.Policies
	tokens   *httplimit.Reserver
	supplier *http.Client
	quotes   string // the URL of the supplier
	mails    chan mail

	http http.Handler
	grpc *grpc.Server
}

// newService puts the limits in front of what the service does. base makes the requests to the supplier.
func newService(plans *trypema.Policies, quotes string, base http.RoundTripper) (*service, error) {
	s := &service{plans: plans, quotes: quotes, mails: make(chan mail, 100)}
	perAddress, err := plans.Use("address")
	if err != nil {
		return nil, err
	}
	toSupplier, err := plans.Use("supplier")
	if err != nil {
		return nil, err
	}
	byAddress, err1 := httplimit.New(httplimit.Options{Bound: perAddress, Name: "address"})
	byAccount, err2 := httplimit.New(httplimit.Options{
		Name: "plan",
		Decide: func(r *http.Request, _ string, cost uint64) (trypema.Decision, error) {
			return s.decide(r.Context(), cost)
		},
		Limits: func(r *http.Request) []trypema.Limit { // for the headers
			plan := accountOf(r.Context()).plan
			tenant, _ := plans.Get(plan + "/tenant")
			user, _ := plans.Get(plan + "/user")
			return append(tenant.Limits, user.Limits...)
		},
	})
	tokens, err3 := httplimit.NewReserver(httplimit.Options{
		Policies: plans,
		PolicyOf: func(r *http.Request) string { return accountOf(r.Context()).plan + "/tokens" },
		Key:      func(r *http.Request) (string, bool) { return accountOf(r.Context()).tenant, true },
		Cost:     estimate,
		Name:     "tokens",
	}, longestAnswer)
	transport, err4 := httplimit.NewTransport(httplimit.TransportOptions{
		Bound: toSupplier, MaxWait: 2 * time.Second, Base: base,
	})
	peers, err5 := grpclimit.New(grpclimit.Options{Bound: perAddress, Key: grpclimit.ByPeer()})
	callers, err6 := grpclimit.New(grpclimit.Options{
		Name: "plan",
		Decide: func(ctx context.Context, _, _ string, cost uint64) (trypema.Decision, error) {
			return s.decide(ctx, cost)
		},
	})
	if err := errors.Join(err1, err2, err3, err4, err5, err6); err != nil {
		return nil, err
	}
	s.tokens, s.supplier = tokens, &http.Client{Transport: transport, Timeout: 10 * time.Second}

	mux := http.NewServeMux()
	mux.HandleFunc("GET /quote", s.quote)
	mux.HandleFunc("POST /mails", s.queueMail)
	mux.Handle("GET /answer", tokens.Wrap(http.HandlerFunc(s.answer)))
	s.http = byAddress(authenticate(byAccount(mux)))

	s.grpc = grpc.NewServer(
		grpc.ChainUnaryInterceptor(peers.UnaryServer(), authenticateCall, callers.UnaryServer()))
	grpc_health_v1.RegisterHealthServer(s.grpc, health.NewServer()) // your services here
	return s, nil
}

// decide admits a call if its tenant and its user have room for it, and otherwise counts it for neither.
func (s *service) decide(ctx context.Context, cost uint64) (trypema.Decision, error) {
	a := accountOf(ctx)
	return trypema.All(ctx,
		s.plans.Ask(a.plan+"/tenant", a.tenant, cost), s.plans.Ask(a.plan+"/user", a.user, cost))
}

type accountKey struct{}

func accountOf(ctx context.Context) account {
	a, _ := ctx.Value(accountKey{}).(account)
	return a
}

func authenticate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a, known := accounts[r.Header.Get("X-API-Key")]
		if !known {
			http.Error(w, "X-API-Key is not known", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), accountKey{}, a)))
	})
}

func authenticateCall(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	for _, key := range metadata.ValueFromIncomingContext(ctx, "x-api-key") {
		if a, known := accounts[key]; known {
			return next(context.WithValue(ctx, accountKey{}, a), req)
		}
	}
	return nil, status.Error(codes.Unauthenticated, "x-api-key is not known")
}

// quote asks the supplier, when it is our turn.
func (s *service) quote(w http.ResponseWriter, r *http.Request) {
	ask, err := http.NewRequestWithContext(r.Context(), http.MethodGet, s.quotes, http.NoBody)
	if err != nil {
		http.Error(w, "no quote", http.StatusInternalServerError)
		return
	}
	answer, err := s.supplier.Do(ask)
	if denied := new(httplimit.DeniedError); errors.As(err, &denied) {
		w.Header().Set("Retry-After", strconv.Itoa(denied.RetryAfterSeconds()))
		http.Error(w, "the supplier is busy", http.StatusServiceUnavailable)
		return
	}
	if err != nil {
		http.Error(w, "no quote", http.StatusBadGateway)
		return
	}
	defer answer.Body.Close() //nolint:errcheck // it was only read
	w.WriteHeader(answer.StatusCode)
	_, _ = io.Copy(w, answer.Body) // to a client that has gone, perhaps
}
