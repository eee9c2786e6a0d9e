package replay

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/trypema/trypema/internal/cli/screen"
	"github.com/trypema/trypema/internal/proof/must"
)

// BenchmarkReplay reads a log of b.N lines, of 200,000 addresses of which few make most calls, under one
// limit and a pair of limits. It reports the memory that the process took from the system at most. Ten
// million lines:
//
//	go test -run - -bench Replay -benchtime 10000000x ./cmd/trypema/internal/replay
func BenchmarkReplay(b *testing.B) {
	const keys = 200_000
	name := filepath.Join(b.TempDir(), "access.log")
	f, err := os.Create(name)
	must.OK(b, err)
	w := bufio.NewWriterSize(f, 1<<20)
	rng := rand.New(rand.NewPCG(1, 2))
	size := 0
	for i := range b.N {
		at := began.Add(time.Duration(i) * time.Millisecond)
		skewed := rng.Float64()
		k := int(keys * skewed * skewed * skewed * skewed)
		n, _ := fmt.Fprintf(w, "10.%d.%d.%d - - [%s] \"GET /articles/%d HTTP/1.1\" 200 5120 "+
			"\"-\" \"Mozilla/5.0 (X11; Linux)\"\n",
			k>>16, k>>8&255, k&255, at.Format("02/Jan/2006:15:04:05 -0700"), i%1000)
		size += n
	}
	must.OK(b, w.Flush())
	must.OK(b, f.Close())
	c := Command{
		Files: []string{name}, Key: keyIP, Limit: []string{"100/1m", "10/1s,1000/1h"}, Strategy: "absolute",
		Reorder: time.Minute, MaxKeys: 1_000_000,
	}
	b.SetBytes(int64(size) / int64(b.N))
	b.ResetTimer()
	r, err := c.replay(b.Context(), screen.Streams{Err: os.Stderr})
	if err != nil || r.Calls != uint64(b.N) || r.Wrong > 0 {
		b.Fatalf("%v: %+v", err, r)
	}
	b.StopTimer()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	b.ReportMetric(float64(m.Sys)/1e6, "MB")
	b.ReportMetric(b.Elapsed().Seconds(), "s")
}
