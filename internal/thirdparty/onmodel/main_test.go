package onmodel

import (
	"flag"
	"strconv"
	"testing"

	"github.com/trypema/trypema/internal/proof/leak"
	"github.com/trypema/trypema/internal/proof/must"
	"github.com/trypema/trypema/internal/thirdparty/rig"
)

func TestMain(m *testing.M) {
	// unless the command line says otherwise, which is read later
	if err := flag.Set("rapid.steps", "60"); err != nil {
		panic(err)
	}
	rig.Rapid(18, 5000)
	leak.Main(m)
}

// more has a test look at so many times as many runs: at those that cost little.
func more(t *testing.T, times int) {
	checks := flag.Lookup("rapid.checks").Value
	before := checks.String()
	n, err := strconv.Atoi(before)
	must.OK(t, err)
	set := func(value string) {
		must.OK(t, checks.Set(value))
	}
	set(strconv.Itoa(n * times))
	t.Cleanup(func() { set(before) })
}
