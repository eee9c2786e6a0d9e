// Command bench measures this library, and others beside it.
package main

import (
	"github.com/alecthomas/kong"

	"github.com/trypema/trypema/internal/bench/measure"
	"github.com/trypema/trypema/internal/bench/report"
	"github.com/trypema/trypema/internal/bench/serving"
	"github.com/trypema/trypema/internal/cli"
)

type commands struct {
	Measure measure.Command `cmd:"" default:"withargs" help:"Measure speed, latency, memory and accuracy. The default."`
	Ratios  report.Ratios   `cmd:"" help:"Measure Local beside others, and print a table of ratios, in three minutes."`
	Report  report.Command  `cmd:"" help:"Measure everything beside everybody, and write a page and a table of it."`
	Serve   serving.Command `cmd:"" help:"Measure trypema serve beside other servers, by their protocols."`

	BareServer serving.Bare `cmd:"" hidden:""`
}

func main() { program().Main() }

func program() cli.Program {
	return cli.Program{
		Name: "bench", Description: "Rate limiters, measured.",
		Commands: new(commands), Options: []kong.Option{measure.Vars()},
	}
}
