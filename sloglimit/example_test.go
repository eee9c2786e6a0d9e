package sloglimit_test

import (
	"context"
	"log/slog"
	"os"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/sloglimit"
)

// plain is a logger without instants, whose lines can be compared.
func plain() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stdout,
		&slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}}))
}

func ExampleNew() {
	changes := sloglimit.New(plain(), sloglimit.Options{})
	limits, err := trypema.NewLocal(trypema.Options{Name: "login", Observer: changes})
	if err != nil {
		panic(err)
	}
	defer limits.Close()
	for range 12 {
		if _, err := limits.Absolute().Allow(context.Background(), "ann", trypema.PerSecond(1)); err != nil {
			panic(err)
		}
	}
	changes.Close() // which looks once more
	// Output: level=INFO msg="trypema: denies calls" policy=login provider=local strategy=absolute denied=2
}

// A Log is given to a provider, which calls Observe; it can be one of several observers.
func ExampleLog_Observe() {
	changes := sloglimit.New(plain(), sloglimit.Options{})
	defer changes.Close()
	limits, err := trypema.NewLocal(trypema.Options{Observer: trypema.Observers(changes, new(trypema.Meters))})
	if err != nil {
		panic(err)
	}
	limits.Close()
	// Output:
}

func ExampleLog_Close() {
	changes := sloglimit.New(plain(), sloglimit.Options{})
	if err := changes.Close(); err != nil {
		panic(err)
	}
	// Output:
}
