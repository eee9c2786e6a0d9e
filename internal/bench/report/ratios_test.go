package report

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/trypema/trypema/internal/bench/measure"
	"github.com/trypema/trypema/internal/cli/flags"
	"github.com/trypema/trypema/internal/cli/screen"
	"github.com/trypema/trypema/internal/proof/must"
)

func TestRatios(t *testing.T) {
	r := Ratios{Rounds: 2, Round: 10 * time.Millisecond, Only: []string{"hot key, u"}, JSON: true}
	var out bytes.Buffer
	must.OK(t, r.Run(t.Context(), screen.Streams{Out: &out, Err: io.Discard}))
	var all ratios
	if err := json.Unmarshal(out.Bytes(), &all); err != nil || len(all.Rows) != 1 {
		t.Fatal(err, out.String())
	}
	row := all.Rows[0]
	if x := row.Ratios["xtime-syncmap"]; row.Name != "hot key, under" || row.Ours <= 0 || x.Median <= 0 ||
		x.Spread < 0 {
		t.Errorf("%+v", row)
	}
	out.Reset()
	must.OK(t, all.table(&out))
	for _, want := range []string{"hot key, under", "±", "xtime-syncmap", all.Machine.Processor} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table does not say %q:\n%s", want, &out)
		}
	}
}

func TestRatiosOnlyWrongRow(t *testing.T) {
	r := Ratios{Only: []string{"canonical", "nosuch"}}
	err := r.Run(t.Context(), screen.Streams{Out: io.Discard, Err: io.Discard})
	if !flags.IsWrong(err) || !strings.HasPrefix(err.Error(), `--only is "nosuch"; it must be the beginning of one of hot key, over; `) {
		t.Error(err)
	}
}

func TestRatiosOfMemory(t *testing.T) {
	r, all := Ratios{keys: 2000}, ratios{}
	must.OK(t, r.memory(t.Context(), &all))
	var out bytes.Buffer
	err := all.table(&out)
	if err != nil || len(all.Memory) != 5 || len(all.Adding) != 5 || all.Memory[0].BytesPerKey <= 0 {
		t.Fatalf("%v, %+v", err, all)
	}
	if !strings.Contains(out.String(), "B per key") {
		t.Errorf("the table is\n%s", &out)
	}
}

// Each row is a command line that bench measure takes.
func TestRatioRows(t *testing.T) {
	for _, x := range new(Ratios).rows() {
		c, err := measure.Parse(append(strings.Fields(x.args), "--compare", x.limiters)...)
		if err == nil {
			err = c.Wrong()
		}
		if err != nil {
			t.Errorf("%s: %v", x.name, err)
		}
	}
}
