package grpclimit

import (
	"context"
	"errors"
	"log/slog"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/trypema/trypema"
)

// failure is how a call ends that could not be judged: a status, which is all that leaves the process, and
// the cause.
type failure struct {
	status *status.Status
	cause  error
}

func (f *failure) Error() string              { return f.status.Err().Error() }
func (f *failure) GRPCStatus() *status.Status { return f.status }
func (f *failure) Unwrap() error              { return f.cause }

const cannotJudge = "rate limiter unavailable"

// mistakes are the errors that no retry cures.
var mistakes = []error{
	trypema.ErrInvalidRate, trypema.ErrInvalidCost, trypema.ErrInvalidKey, trypema.ErrInvalidOptions,
	trypema.ErrUnknownPolicy,
}

// failed returns how a call ends that could not be judged.
func (l *Limit) failed(ctx context.Context, method string, err error) error {
	if l.o.Failed != nil {
		if own := l.o.Failed(ctx, method, err); own != nil {
			return own
		}
	} else {
		l.log(ctx, method, err)
	}
	for _, mistake := range mistakes {
		if errors.Is(err, mistake) {
			return &failure{status.New(codes.Internal, cannotJudge), err}
		}
	}
	if ended(ctx, err) {
		return &failure{status.FromContextError(ctx.Err()), err}
	}
	return &failure{status.New(codes.Unavailable, cannotJudge), err}
}

// ended reports whether an error says that the context of a call has ended.
func ended(ctx context.Context, err error) bool {
	return ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded))
}

// log logs why a call could not be judged.
func (l *Limit) log(ctx context.Context, method string, err error) {
	if !ended(ctx, err) {
		l.failures.Log(ctx, err, slog.String("policy", l.o.Name), slog.String("method", method))
	}
}
