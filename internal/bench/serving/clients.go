package serving

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// output returns what a client prints, or why it failed.
func output(ctx context.Context, path string, args ...string) ([]byte, error) {
	c := exec.CommandContext(ctx, path, args...)
	var said bytes.Buffer
	c.Stderr = &said
	out, err := c.Output()
	switch {
	case ctx.Err() != nil:
		return nil, errors.New("interrupted")
	case err != nil:
		return nil, fmt.Errorf("%s: %w: %s", filepath.Base(path), err, trimmed(append(said.Bytes(), out...)))
	}
	return out, nil
}

// redisBenchmark is turns of redis-benchmark. It makes a number of requests, which is set by the rate of the
// turn before.
func redisBenchmark(pipeline int) func(context.Context, *stage, *contender, time.Duration) (turn, error) {
	rates := make(map[string]float64) // by address
	return func(ctx context.Context, s *stage, c *contender, duration time.Duration) (turn, error) {
		path, err := s.program(ctx, "redis-benchmark", "")
		if err != nil {
			return turn{}, err
		}
		rate, known := rates[c.address]
		if !known {
			rate = 10_000 * float64(pipeline)
			if err := c.answers(ctx); err != nil {
				return turn{}, err
			}
		}
		host, port, _ := net.SplitHostPort(c.address) // it was made of both
		args := []string{
			"-h", host, "-p", port, "-c", strconv.Itoa(callers), "-P", strconv.Itoa(pipeline), "-r", "100000", "--csv",
			"-n", strconv.Itoa(max(1000, int(rate*duration.Seconds()))),
		}
		out, err := output(ctx, path, append(args, strings.Fields(c.request)...)...)
		if err != nil {
			return turn{}, err
		}
		t, err := readRedisBenchmark(out)
		rates[c.address] = t.PerSecond
		return t, err
	}
}

// answers checks that a server answers a request of redis-benchmark with an array of five integers, the first
// of which says that it was admitted: redis-benchmark itself takes any answer.
func (c *contender) answers(ctx context.Context) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", c.address)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // it was asked
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	args := strings.Fields(strings.ReplaceAll(c.request, "__rand_int__", "first"))
	request := fmt.Sprintf("*%d\r\n", len(args))
	for _, a := range args {
		request += fmt.Sprintf("$%d\r\n%s\r\n", len(a), a)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		return err
	}
	r := bufio.NewReader(conn)
	var lines []string
	for range 6 {
		line, err := r.ReadString('\n')
		if err != nil {
			return fmt.Errorf("%s is answered with %q: %w", c.request, lines, err)
		}
		lines = append(lines, strings.TrimSpace(line))
		if lines[0] != "*5" {
			break
		}
	}
	if len(lines) != 6 || lines[1] != ":0" && lines[1] != ":1" || strings.HasPrefix(lines[2], "-") {
		return fmt.Errorf("%s is answered with %q", c.request, lines)
	}
	return nil
}

// readRedisBenchmark reads the last line of redis-benchmark --csv, by the names of the first.
func readRedisBenchmark(out []byte) (t turn, err error) {
	text := string(out)
	if at := strings.Index(text, `"test"`); at >= 0 {
		text = text[at:]
	}
	rows, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil || len(rows) != 2 {
		return t, fmt.Errorf("redis-benchmark prints %q", trimmed(out))
	}
	for i, head := range rows[0] {
		value, err := strconv.ParseFloat(rows[1][i], 64)
		switch {
		case err != nil:
		case head == "rps":
			t.PerSecond = value
		case head == "p99_latency_ms":
			t.P99 = time.Duration(value * float64(time.Millisecond))
		}
	}
	if t.PerSecond <= 0 || t.P99 <= 0 {
		return t, fmt.Errorf("redis-benchmark prints %q", trimmed(out))
	}
	return t, nil
}

// method is what gRPC is asked for.
const method = "envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"

// ghz is turns of ghz, with requests for so many keys one after the other.
func ghz(keys int) func(context.Context, *stage, *contender, time.Duration) (turn, error) {
	return func(ctx context.Context, s *stage, c *contender, duration time.Duration) (turn, error) {
		path, err := s.program(ctx, "ghz", s.command.GHZ, "go", ghzPackage)
		if err != nil {
			return turn{}, err
		}
		var all []string
		for i := range keys {
			all = append(all, fmt.Sprintf(
				`{"domain":"bench","descriptors":[{"entries":[{"key":"user","value":"u%d"}]}]}`, i))
		}
		data := "[" + strings.Join(all, ",") + "]"
		file := filepath.Join(s.dir, fmt.Sprintf("requests-%d.json", keys))
		if err := os.WriteFile(file, []byte(data), 0o600); err != nil {
			return turn{}, err
		}
		protocol := filepath.Join(s.dir, "protocol.pb")
		if err := os.WriteFile(protocol, protocolSet(), 0o600); err != nil {
			return turn{}, err
		}
		out, err := output(ctx, path, "--insecure", "--protoset", protocol, "--call", method, "-D", file,
			"-c", strconv.Itoa(callers), "--connections", "4", "-z", duration.String(), "--duration-stop", "wait",
			c.address)
		if err != nil {
			return turn{}, err
		}
		return readGHZ(out)
	}
}

// protocolSet is the protocol with all that it imports, for servers without reflection.
func protocolSet() []byte {
	var set descriptorpb.FileDescriptorSet
	seen := make(map[string]bool)
	var add func(protoreflect.FileDescriptor)
	add = func(f protoreflect.FileDescriptor) {
		if seen[f.Path()] {
			return
		}
		seen[f.Path()] = true
		for i := range f.Imports().Len() {
			add(f.Imports().Get(i).FileDescriptor)
		}
		set.File = append(set.File, protodesc.ToFileDescriptorProto(f))
	}
	add(pb.File_envoy_service_ratelimit_v3_rls_proto)
	data, err := proto.Marshal(&set)
	if err != nil {
		panic(err) // the protocol is part of the program
	}
	return data
}

var (
	ghzRate = regexp.MustCompile(`Requests/sec:\s+([0-9.]+)`)
	ghzP99  = regexp.MustCompile(`99 % in ([0-9.]+ [nµm]?s)`)
	ghzCode = regexp.MustCompile(`\[(\w+)\]\s+(\d+) responses`)
)

// readGHZ reads the summary that ghz prints. Answers that are no OK are an error.
func readGHZ(out []byte) (t turn, err error) {
	rate, p99 := ghzRate.FindSubmatch(out), ghzP99.FindSubmatch(out)
	if rate == nil || p99 == nil {
		return t, fmt.Errorf("ghz prints %q", trimmed(out))
	}
	for _, code := range ghzCode.FindAllSubmatch(out, -1) {
		if string(code[1]) != "OK" {
			return t, fmt.Errorf("%s answers are %s", code[2], code[1])
		}
	}
	if t.PerSecond, err = strconv.ParseFloat(string(rate[1]), 64); err != nil {
		return t, err
	}
	t.P99, err = time.ParseDuration(strings.ReplaceAll(string(p99[1]), " ", ""))
	return t, err
}

// webClient is turns of clients that post requests for 1,000 keys, one after the other on each connection.
// They read no more of an answer than they must, so that they take little of the machine.
func webClient(ctx context.Context, _ *stage, c *contender, duration time.Duration) (turn, error) {
	const keys = 1000
	requests := make([][]byte, keys)
	for i := range requests {
		body := fmt.Sprintf(c.request, i)
		requests[i] = fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\n"+
			"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", c.path, c.address, len(body), body)
	}
	ctx, cancel := context.WithTimeout(ctx, duration+patience)
	defer cancel()
	var mu sync.Mutex
	var all []time.Duration
	var failed error
	var group sync.WaitGroup
	began := time.Now()
	for i := range callers {
		group.Go(func() {
			took, err := post(ctx, c.address, requests, i*keys/callers, began.Add(duration))
			mu.Lock()
			defer mu.Unlock()
			all, failed = append(all, took...), errors.Join(failed, err)
		})
	}
	group.Wait()
	elapsed := time.Since(began)
	if failed != nil {
		return turn{}, failed
	}
	slices.Sort(all)
	return turn{float64(len(all)) / elapsed.Seconds(), all[len(all)*99/100]}, nil
}

// post posts requests on one connection until an instant, and returns how long each took.
func post(
	ctx context.Context, address string, requests [][]byte, first int, until time.Time,
) (took []time.Duration, err error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	defer conn.Close() //nolint:errcheck // it was asked
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })()
	r := bufio.NewReader(conn)
	for i, at := first, time.Now(); i == first || at.Before(until); i++ {
		if _, err := conn.Write(requests[i%len(requests)]); err != nil {
			return nil, err
		}
		if err := readAnswer(r); err != nil {
			return nil, err
		}
		now := time.Now()
		took = append(took, now.Sub(at))
		at = now
	}
	return took, nil
}

// readAnswer reads an answer whose length its headers say, and whose status must be 200.
func readAnswer(r *bufio.Reader) error {
	status, err := r.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 200 ")) {
		return fmt.Errorf("an answer is %q", bytes.TrimSpace(status))
	}
	length := -1
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			break
		}
		if name, value, _ := bytes.Cut(line, []byte(":")); bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return err
			}
		}
	}
	if length < 0 {
		return errors.New("an answer has no Content-Length")
	}
	_, err = r.Discard(length)
	return err
}
