package httplimit_test

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/httplimit"
	"github.com/trypema/trypema/internal/proof/fixture"
	"github.com/trypema/trypema/internal/proof/must"
)

// spoofs are what a client may write into the header that its proxy appends to.
func spoofs(header string) []string {
	all := []string{
		"", ",", ", ,", "unknown", "_hidden", "for=192.0.2.1", "localhost", "1.2.3", "1.2.3.4.5",
		"01.02.03.04", "0x7f.1", "2130706433", "１２７.0.0.1",
		"127.0.0.1", "127.0.0.1, 127.0.0.1", "::1", "[::1]:80", "::ffff:127.0.0.1", "[::ffff:127.0.0.1]:80",
		"::ffff:7f00:1",
		"fe80::1%eth0", "fe80::1%" + strings.Repeat("z", 5000), "127.0.0.1%lo", "::ffff:127.0.0.1%lo",
		"[::1%25lo]", "[[::1]]", "[", "]",
		"198.51.100.1\tx", "\"198.51.100.1\"", "198.51.100.1;", "198.51.100.1:", "198.51.100.1:99999999",
		"198.51.100.7,\r\n 198.51.100.8",                    // one field over two lines
		"198.51.100.7\r\n\t,127.0.0.1,\r\n ::1",             // and over three
		"198.51.100.7\r\n" + header + ": 1.2.3.4",           // and twice
		"for=198.51.100.7\r\n" + header + ": for=\"1.2.3.4", // and of Forwarded
		strings.Repeat(",", 200_000), strings.Repeat("127.0.0.1,", 40_000),
		"for=127.0.0.1", `for="`, `for="a`, `for="\`, `for=127.0.0.1;x="`, `for="127.0.0.1", for="`,
		`"`, `\`, `\"`, `"\`, `";`, `;`, `for=127.0.0.1;for=`, `for=127.0.0.1;`, `for=_hidden`, `for=unknown`,
		`for="[::1]:_x"`, `x="\", for=127.0.0.1;y="\\`,
	}
	if header == "Forwarded" {
		all = append(all, strings.Repeat(`"`, 200_001), strings.Repeat(`\`, 200_001),
			strings.Repeat(`for="127.0.0.1",`, 20_000), `for="`+strings.Repeat(`\"`, 100_000))
	} else {
		all = append(all, strings.Repeat(" ", 200_000), strings.Repeat("9", 200_000),
			strings.Repeat("::1 , ", 40_000))
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for range 30 {
		all = append(all, netip.AddrFrom4([4]byte{byte(rng.Uint32()), byte(rng.Uint32()), byte(rng.Uint32()),
			byte(rng.Uint32())}).String())
	}
	return all
}

// Behind a proxy that appends the address of its client, or adds a line with it, a client has one limit,
// whatever it writes into the header itself; without a proxy, too. What net/http refuses does not reach
// anybody.
func TestSpoofedHeadersAreNoFreePass(t *testing.T) {
	const capacity = 3
	limits := fixture.Local(t, trypema.Options{Window: time.Hour})
	proxies := networks("127.0.0.0/8", "::1/128")
	inner := make(map[string]http.Handler)
	for _, header := range []string{"X-Forwarded-For", "Forwarded"} {
		key := mustKey(t)(httplimit.ByForwardedIP(header, proxies...))
		o := httplimit.Options{Limiter: limits.Absolute(), Rate: trypema.PerHour(capacity), Key: key}
		inner[header] = handler(t, o)
	}
	var header, remote string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.RemoteAddr = remote
		inner[header].ServeHTTP(w, r)
	}))
	defer server.Close()
	for _, through := range []struct {
		name, remote string
		field        func(spoof string) string
		key          string
	}{
		{"a proxy that appends", "127.0.0.1:5", func(s string) string { return s + ", 198.51.100.1" }, "198.51.100.1"},
		{"a proxy that adds a line", "127.0.0.1:5",
			func(s string) string { return s + "\r\nX-Forwarded-For: 198.51.100.2" }, "198.51.100.2"},
		{"two proxies", "[::1]:5",
			func(s string) string { return s + ", 198.51.100.3\r\nx-forwarded-for:127.0.0.9" },
			"198.51.100.3"},
		{"no proxy", "198.51.100.4:5", func(s string) string { return s }, "198.51.100.4"},
		{"Forwarded, a proxy that appends", "127.0.0.1:5", func(s string) string {
			return s + ", for=198.51.100.5;proto=https"
		}, "198.51.100.5"},
		{"Forwarded, a proxy that appends quotes", "127.0.0.1:5", func(s string) string {
			return s + `, for="198.51.100.6:4711";host="a\", \"b"`
		}, "198.51.100.6"},
		{"Forwarded, a proxy that adds a line", "127.0.0.1:5", func(s string) string {
			return s + "\r\nForwarded: for=198.51.100.7"
		}, "198.51.100.7"},
		{"Forwarded, two proxies", "[::1]:5", func(s string) string {
			return s + ", for=198.51.100.8\r\nforwarded:for=127.0.0.9"
		}, "198.51.100.8"},
		{"Forwarded, no proxy", "198.51.100.9:5", func(s string) string { return s }, "198.51.100.9"},
	} {
		t.Run(through.name, func(t *testing.T) {
			remote, header = through.remote, "X-Forwarded-For"
			if strings.HasPrefix(through.name, "Forwarded") {
				header = "Forwarded"
			}
			admitted, denied, refused := 0, 0, 0
			var longest time.Duration
			for _, spoof := range spoofs(header) {
				began := time.Now()
				switch code := send(t, server.Listener.Addr().String(), header, through.field(spoof)); code {
				case http.StatusOK:
					admitted++
				case http.StatusTooManyRequests:
					denied++
				case http.StatusBadRequest, http.StatusRequestHeaderFieldsTooLarge:
					refused++
				default:
					t.Errorf("%.40q: %d", spoof, code)
				}
				longest = max(longest, time.Since(began))
			}
			t.Logf("%d admitted, %d denied, %d refused by net/http; the longest took %v", admitted, denied,
				refused, longest)
			if admitted != capacity || denied < 60 || refused > 5 {
				t.Errorf("%d admitted, want %d; %d denied, %d refused", admitted, capacity, denied, refused)
			}
			u, err := limits.Absolute().Usage(t.Context(), through.key, trypema.PerHour(capacity))
			if err != nil || u.Total != capacity {
				t.Errorf("the key %s holds %+v, %v", through.key, u, err)
			}
		})
	}
	if n := limits.Len(); n != 9 {
		t.Errorf("%d keys, want one for each client", n)
	}
}

// send sends a request with a header as it stands, and returns the status of the answer.
func send(t *testing.T, addr, header, field string) int {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	must.OK(t, err)
	defer func() { _ = conn.Close() }()
	// A server that refuses does not read to the end.
	_, _ = fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s: %s\r\n\r\n", header, field)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("%.40q: %v", field, err)
	}
	defer func() { _ = response.Body.Close() }()
	_, _ = io.Copy(io.Discard, response.Body)
	return response.StatusCode
}

// However a client is written, by whichever proxy, it is the same client.
func TestSpellingsOfOneClient(t *testing.T) {
	forwarded, err := httplimit.ByForwardedIP("X-Forwarded-For", netip.MustParsePrefix("10.0.0.0/8"),
		netip.MustParsePrefix("fe80::/10"))
	must.OK(t, err)
	for want, spellings := range map[string][]string{
		"198.51.100.1": {
			"198.51.100.1", " 198.51.100.1\t", "198.51.100.1:80", "::ffff:198.51.100.1",
			"[::ffff:198.51.100.1]", "[::ffff:198.51.100.1]:80", "::ffff:c633:6401",
			"0:0:0:0:0:FFFF:C633:6401", "::ffff:198.51.100.1%eth0", "[::ffff:198.51.100.1%eth0]:80",
		},
		"2001:db8::/64": {
			"2001:db8::1", "2001:DB8::1", "2001:0db8:0000:0000:0000:0000:0000:0001", "[2001:db8::1]",
			"[2001:db8::1]:443", "2001:db8::1%eth0", "[2001:db8::1%25eth0]:443",
			"2001:db8::ffff:ffff:ffff:ffff", "2001:db8::198.51.100.1",
		},
	} {
		for _, spelling := range spellings {
			for name, request := range map[string]func(*http.Request){
				"by a proxy": func(r *http.Request) {
					r.RemoteAddr = "10.0.0.1:1"
					r.Header.Set("X-Forwarded-For", spelling)
				},
				"by a proxy, mapped": func(r *http.Request) {
					r.RemoteAddr = "[::ffff:10.0.0.1]:1"
					r.Header.Set("X-Forwarded-For", spelling)
				},
				"by one with a zone": func(r *http.Request) {
					r.RemoteAddr = "[fe80::9%eth0]:1"
					r.Header.Set("X-Forwarded-For", spelling)
				},
				"through another, too": func(r *http.Request) {
					r.RemoteAddr = "10.0.0.1:1"
					r.Header.Set("X-Forwarded-For", spelling+",::ffff:10.0.0.2")
				},
			} {
				r := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
				request(r)
				if key, ok := forwarded(r); !ok || key != want {
					t.Errorf("%q %s is %q, want %q", spelling, name, key, want)
				}
			}
		}
	}
}
