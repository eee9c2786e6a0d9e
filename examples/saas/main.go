// Command saas is a whole service with tenants: each request is limited by its address before the service
// knows who sent it, then by its tenant and its user together. A language model is limited by tokens; a
// worker and a client wait for their turn.
//
//	main.go      flags, servers, metrics, shutdown
//	plans.yaml   the limits; a change is applied while the service runs
//	provider.go  Local, Redis or Hybrid
//	api.go       the limits in front of HTTP and gRPC
//	llm.go       a model that costs tokens
//	worker.go    mail that waits for its turn
//
// It runs without Redis, and with one if there is a URL:
//
//	cd examples/saas && go run .
//	go run . --redis redis://localhost:6379 --provider redis
//
// Bob, on the plan free, has 20 calls a minute:
//
//	$ curl -i -H 'X-API-Key: key-bob' localhost:8080/quote
//	HTTP/1.1 200 OK
//	Ratelimit: "address";r=99
//	Ratelimit: "user";r=19
//	Ratelimit-Policy: "address";q=100;w=10
//	Ratelimit-Policy: "minute";q=60;w=60, "day";q=1000;w=86400, "user";q=20;w=60
//
//	42 EUR
//
// After 20 calls:
//
//	$ curl -i -H 'X-API-Key: key-bob' localhost:8080/quote
//	HTTP/1.1 429 Too Many Requests
//	Ratelimit: "address";r=79
//	Ratelimit: "user";r=0;t=60
//	Retry-After: 60
//
//	{"type":"https://iana.org/assignments/http-problem-types#quota-exceeded", …,"violated-policies":["user"]}
//
// Ada, on the plan pro, asks the model. Her answer may have 50 tokens, which are reserved with the 4 of the
// question; 8 are charged:
//
//	$ curl -iN -H 'X-API-Key: key-ada' 'localhost:8080/answer?question=what+is+a+needle&max=50'
//	HTTP/1.1 200 OK
//	Ratelimit: "address";r=78
//	Ratelimit: "user";r=599
//	Ratelimit: "tokens";r=19946
//
//	what
//	is
//	a
//	needle
//
// And the worker sends at most five mails in any second, however many are queued:
//
//	$ curl -i -X POST -H 'X-API-Key: key-ada' 'localhost:8080/mails?to=bob'
//	HTTP/1.1 202 Accepted
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/examples/internal/program"
	"github.com/trypema/trypema/policyfile"
	"github.com/trypema/trypema/promlimit"
	"github.com/trypema/trypema/sloglimit"
)

func main() { program.Main(run) }

// options are the flags of the program.
type options struct {
	addr, grpcAddr, adminAddr string
	plans                     string
	provider, redis           string
	supplier                  string
	reload, grace             time.Duration
}

// run is a program.Run.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var o options
	flags := program.Flags("saas", stderr)
	flags.StringVar(&o.addr, "addr", "localhost:8080", "where the API listens")
	flags.StringVar(&o.grpcAddr, "grpc", "localhost:8081", "where gRPC listens")
	flags.StringVar(&o.adminAddr, "admin", "localhost:8082", "where /metrics listens, and a stand-in for the supplier")
	flags.StringVar(&o.plans, "plans", "plans.yaml", "the file of the limits")
	flags.StringVar(&o.provider, "provider", "", "local, redis or hybrid (default hybrid with --redis, else local)")
	flags.StringVar(&o.redis, "redis", os.Getenv("REDIS_URL"), "the `URL` of Redis (default $REDIS_URL)")
	flags.StringVar(&o.supplier, "supplier", "", "the `URL` that GET /quote asks (default the stand-in)")
	flags.DurationVar(&o.reload, "reload", 2*time.Second, "how often to look at the file of the limits")
	flags.DurationVar(&o.grace, "grace", 30*time.Second, "how long calls may go on after Ctrl-C")
	if status, ok := program.Parse(flags, args); !ok {
		return status
	}
	if err := program.Check(flags.NArg() == 0, "unexpected argument %q", flags.Arg(0)); err != nil {
		return program.Fail(flags, 2, err)
	}
	logger := slog.New(slog.NewTextHandler(stderr, nil))
	if err := serve(ctx, o, logger, stdout); err != nil {
		return program.Fail(flags, 1, err)
	}
	return 0
}

// serve serves until ctx ends, and then lets come to an end what is under way.
func serve(ctx context.Context, o options, logger *slog.Logger, stdout io.Writer) (err error) {
	metrics, changes := promlimit.New(), sloglimit.New(logger, sloglimit.Options{})
	defer join(&err, changes.Close)
	observer := trypema.Observers(metrics, changes)
	limits, closeClient, err := open(o.provider, o.redis, trypema.Options{Name: "saas", Observer: observer})
	if err != nil {
		return err
	}
	defer join(&err, closeClient)
	defer join(&err, limits.Close)

	list, err := policyfile.Load(o.plans)
	if err != nil {
		return err
	}
	plans, err := trypema.NewPolicies(limits, list...)
	if err != nil {
		return err
	}
	plans.Observe(observer)

	var sockets []net.Listener
	defer func() {
		for _, socket := range sockets {
			_ = socket.Close() // unless its server has closed it
		}
	}()
	for _, addr := range []string{o.addr, o.grpcAddr, o.adminAddr} {
		socket, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		sockets = append(sockets, socket)
	}
	if o.supplier == "" {
		o.supplier = "http://" + sockets[2].Addr().String() + "/supplier"
	}
	s, err := newService(plans, o.supplier, http.DefaultTransport)
	if err != nil {
		return err
	}
	defer s.supplier.CloseIdleConnections()

	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics)
	admin := http.NewServeMux()
	admin.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	admin.HandleFunc("GET /supplier", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "42 EUR") })

	api := &http.Server{Handler: s.http, ReadHeaderTimeout: 5 * time.Second}
	internal := &http.Server{Handler: admin, ReadHeaderTimeout: 5 * time.Second}
	ended := make(chan error, 3)
	go func() { ended <- api.Serve(sockets[0]) }()
	go func() { ended <- s.grpc.Serve(sockets[1]) }()
	go func() { ended <- internal.Serve(sockets[2]) }()
	fmt.Fprintf(stdout, "API http://%s, gRPC %s, metrics http://%s/metrics\n",
		sockets[0].Addr(), sockets[1].Addr(), sockets[2].Addr())

	var background sync.WaitGroup
	watching, stopWatching := context.WithCancel(ctx)
	working, stopWorking := context.WithCancel(context.WithoutCancel(ctx))
	defer background.Wait()
	defer stopWorking()
	defer stopWatching()
	background.Go(func() { policyfile.Watch(watching, o.plans, o.reload, plans.Swap, reportTo(logger)) })
	background.Go(func() { s.sendMails(working, logger) })

	running := 3
	select {
	case err = <-ended: // a server that cannot go on
		running--
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.grace)
	defer cancel()
	context.AfterFunc(grace, func() { stopWorking(); s.grpc.Stop() })
	if late := api.Shutdown(grace); late == nil {
		close(s.mails) // the worker sends the rest
	} else {
		err = errors.Join(err, late)
		stopWorking()
	}
	s.grpc.GracefulStop()
	err = errors.Join(err, internal.Shutdown(grace))
	for range running {
		if cause := <-ended; cause != nil && !errors.Is(cause, http.ErrServerClosed) {
			err = errors.Join(err, cause)
		}
	}
	stopWatching()
	background.Wait()
	return err
}

// join adds the error of a Close to those that there are.
func join(err *error, end func() error) { //nolint:gocritic // it is for defer
	*err = errors.Join(*err, end())
}

// reportTo logs what became of changes of the file.
func reportTo(logger *slog.Logger) func(error) {
	return func(err error) {
		if err != nil {
			logger.Error("the limits stay as they were", "error", err)
		} else {
			logger.Info("the limits are those of the file")
		}
	}
}
