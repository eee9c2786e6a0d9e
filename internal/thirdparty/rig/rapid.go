package rig

import (
	"flag"
	"os"
	"strconv"

	"github.com/trypema/trypema/internal/proof/explore"
)

// Rapid is called by TestMain, and says how far tests look that pgregory.net/rapid draws: at few runs, always
// the same, or at many where tests explore. Flags of rapid on the command line have the last word.
func Rapid(few, many int) {
	set := func(name, value string) {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
	checks, seed := few, os.Getenv("TRYPEMA_SEED")
	if explore.Long() {
		checks = many
	} else {
		set("rapid.seed", "1")
	}
	if seed != "" {
		checks = 1
		set("rapid.seed", seed)
	}
	set("rapid.checks", strconv.Itoa(checks))
}
