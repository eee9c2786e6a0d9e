package replay

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trypema/trypema/internal/cli/screen"
)

// reader reads logs and hands their calls on.
type reader struct {
	key     string
	reorder time.Duration
	total   int64 // bytes of the files; 0 if that is not known
	bar     *screen.Bar

	read   atomic.Int64 // bytes of the files
	names  []string
	lines  uint64
	wrong  uint64
	first  []WrongLine
	sorted uint64 // lines that were put in order
}

const (
	keptWrong = 5       // wrong lines that are told of
	maxLine   = 1 << 20 // bytes; a longer line is wrong
	batchLen  = 4096    // calls that travel together
)

// batch is calls on their way from the reader to the engine. Their keys lie one after the other in text.
type batch struct {
	at   []int64
	ends []int
	text []byte
}

func (b *batch) add(l *line) {
	b.at = append(b.at, l.at)
	b.text = append(b.text, l.key...)
	b.ends = append(b.ends, len(b.text))
}

// key returns the key of a call.
func (b *batch) key(i int) []byte {
	start := 0
	if i > 0 {
		start = b.ends[i-1]
	}
	return b.text[start:b.ends[i]]
}

func (b *batch) clear() { b.at, b.ends, b.text = b.at[:0], b.ends[:0], b.text[:0] }

// run reads all sources to their ends, or until ctx ends, and lets the engine see each call. It closes the
// sources. One goroutine reads, another one judges.
func (r *reader) run(ctx context.Context, sources []source, e *engine) error {
	full, empty := make(chan *batch, 4), make(chan *batch, 6)
	for range cap(empty) {
		empty <- new(batch)
	}
	var judging, showing sync.WaitGroup
	judging.Go(func() {
		o := newOrder(r.reorder, e.see)
		for b := range full {
			for i, at := range b.at {
				o.add(&line{at: at, key: b.key(i)})
			}
			empty <- b
		}
		o.flush()
		r.sorted = o.sorted
	})
	stop := make(chan struct{})
	showing.Go(func() { r.show(stop) })
	var err error
	for i := range sources {
		if err == nil && ctx.Err() == nil {
			err = r.source(ctx, &sources[i], full, empty)
		}
		_ = sources[i].Close()
	}
	close(full)
	judging.Wait()
	close(stop)
	showing.Wait()
	return err
}

// show draws how far the reader is, and how long the rest takes, until stop is closed.
func (r *reader) show(stop <-chan struct{}) {
	began := time.Now()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	defer r.bar.Clear()
	best := 0.0 // a bar does not run back
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		read := r.read.Load()
		took := time.Since(began)
		if r.total == 0 {
			r.bar.Set(0, fmt.Sprintf("%s MB read", screen.Count(uint64(read>>20))))
			continue
		}
		best = max(best, min(1, float64(read)/float64(r.total)))
		if best > 0 {
			left := time.Duration(float64(took) * (1 - best) / best)
			r.bar.Set(best, fmt.Sprintf("%s left", left.Round(time.Second)))
		}
	}
}

// counted counts what is read of a file.
type counted struct {
	io.Reader
	read *atomic.Int64
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.read.Add(int64(n))
	return n, err
}

// source reads one log.
func (r *reader) source(ctx context.Context, s *source, full chan<- *batch, empty <-chan *batch) error {
	r.names = append(r.names, s.name)
	in := bufio.NewReaderSize(counted{s, &r.read}, 1<<18)
	if magic, _ := in.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		unzipped, err := gzip.NewReader(in)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		in = bufio.NewReaderSize(unzipped, 1<<18)
	}
	var p *parser
	b := <-empty
	b.clear()
	defer func() { full <- b }()
	var long []byte
	for number := uint64(1); ; number++ {
		text, long2, err := readLine(in, long)
		long = long2
		if len(text) > 0 || err == nil {
			r.line(s.name, number, text, &p, b)
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && !errors.Is(err, errTooLong):
			return fmt.Errorf("%s:%d: %w", s.name, number, err)
		}
		if len(b.at) >= batchLen {
			if ctx.Err() != nil {
				return nil
			}
			full <- b
			b = <-empty
			b.clear()
		}
	}
}

// line reads a line into a batch, or counts it as wrong. The first line that has something says how all are
// read. Empty lines do not count.
func (r *reader) line(file string, number uint64, text []byte, p **parser, b *batch) {
	text = bytes.TrimSpace(text)
	if len(text) == 0 {
		return
	}
	r.lines++
	if *p == nil {
		*p = newParser(text, r.key)
	}
	var l line
	err := errTooLong
	if len(text) < maxLine {
		err = (*p).parse(*p, text, &l)
	}
	if err == nil {
		b.add(&l)
		return
	}
	r.wrong++
	if len(r.first) < keptWrong {
		r.first = append(r.first, WrongLine{file, number, fmt.Sprintf("%v, as %s", err, (*p).format)})
	}
}

var errTooLong = errors.New("it is longer than 1 MB")

// readLine returns the next line; of one that is too long, as much as counts as too long. spare is memory for
// lines that do not fit into the buffer.
func readLine(in *bufio.Reader, spare []byte) (text, kept []byte, err error) {
	text, err = in.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) {
		return text, spare, err
	}
	spare = append(spare[:0], text...)
	for errors.Is(err, bufio.ErrBufferFull) {
		text, err = in.ReadSlice('\n')
		if len(spare) < maxLine {
			spare = append(spare, text...)
		}
	}
	return spare, spare, err
}
