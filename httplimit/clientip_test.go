package httplimit_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/httplimit"
	"github.com/trypema/trypema/internal/proof/must"
)

// networks reads networks.
func networks(all ...string) (list []netip.Prefix) {
	for _, s := range all {
		list = append(list, netip.MustParsePrefix(s))
	}
	return list
}

func mustKey(t testing.TB) func(httplimit.KeyFunc, error) httplimit.KeyFunc {
	return func(key httplimit.KeyFunc, err error) httplimit.KeyFunc {
		t.Helper()
		must.OK(t, err)
		return key
	}
}

// Every form of address that a client can have, and whom the server believes about it: the key that it gives.
func TestClientAddresses(t *testing.T) {
	must := mustKey(t)
	with := func(o httplimit.ClientIPOptions) httplimit.KeyFunc { return must(httplimit.ByClientIP(o)) }
	bits := func(n int) httplimit.KeyFunc { return with(httplimit.ClientIPOptions{IPv6Bits: n}) }
	proxies := networks("10.0.0.0/8", "::ffff:172.16.0.0/108", "127.0.0.0/8", "fd00::/8", "fe80::/10",
		"::1/128")
	var (
		ip        = httplimit.ByIP()
		list      = must(httplimit.ByForwardedIP("x-forwarded-for", proxies...))
		single    = must(httplimit.ByForwardedIP("X-Real-Ip", proxies...))
		forwarded = must(httplimit.ByForwardedIP("forwarded", proxies...))
		mapped    = must(httplimit.ByForwardedIP("X-Forwarded-For", networks("::ffff:10.0.0.0/104")...))
		unix      = with(httplimit.ClientIPOptions{
			Header: "X-Forwarded-For", Peers: httplimit.PeersOnUnixSockets, Proxies: proxies,
		})
		unixOnly  = with(httplimit.ClientIPOptions{Header: "Forwarded", Peers: httplimit.PeersOnUnixSockets})
		anyone    = with(httplimit.ClientIPOptions{Header: "X-Forwarded-For", Peers: httplimit.AnyPeer})
		anyoneTwo = must(httplimit.ByForwardedIP("X-Forwarded-For", networks("0.0.0.0/0", "::/0", "10.0.0.0/8")...))
		zero      = with(httplimit.ClientIPOptions{})
	)
	const (
		xff, realIP, rfc = "X-Forwarded-For", "X-Real-Ip", "Forwarded"
		none             = ""
		proxy            = "10.0.0.1:5"
	)
	rows := 0
	for _, tt := range []struct {
		key    httplimit.KeyFunc
		remote string // "unix" is a peer on a unix socket
		header string
		lines  string // separated by |
		want   string // empty for no key
	}{
		// The peer, and no header.
		{ip, "192.0.2.7:4711", none, "", "192.0.2.7"},
		{zero, "192.0.2.7:4711", none, "", "192.0.2.7"},
		{ip, "192.0.2.7", none, "", "192.0.2.7"},
		{ip, "[::ffff:192.0.2.7]:80", none, "", "192.0.2.7"},
		{ip, "[::ffff:c000:207]:80", none, "", "192.0.2.7"},
		{ip, "[2001:db8:1:2:3:4:5:6]:80", none, "", "2001:db8:1:2::/64"},
		{zero, "[2001:db8:1:2:3:4:5:6]:80", none, "", "2001:db8:1:2::/64"},
		{ip, "[2001:DB8:1:2::]:80", none, "", "2001:db8:1:2::/64"},
		{ip, "[2001:db8::1]", none, "", "2001:db8::/64"},
		{ip, "2001:db8::1", none, "", "2001:db8::/64"},
		{ip, "[fe80::1%eth0]:80", none, "", "fe80::/64"},
		{ip, "[64:ff9b::192.0.2.7]:80", none, "", "192.0.2.7"}, // by a translator
		{ip, "[::1]:80", none, "", "::/64"},
		{ip, "unix", none, "", ""},
		{ip, "@", none, "", ""},
		{ip, "", none, "", ""},
		{ip, "localhost:80", none, "", ""},
		{ip, "/run/client.sock", none, "", ""},
		{bits(48), "[2001:db8:1:2:3:4:5:6]:80", none, "", "2001:db8:1::/48"},
		{bits(56), "[2001:db8:1:1ff:3:4:5:6]:80", none, "", "2001:db8:1:100::/56"},
		{bits(128), "[2001:db8:1:2:3:4:5:6]:80", none, "", "2001:db8:1:2:3:4:5:6/128"},
		{bits(1), "[2001:db8:1:2:3:4:5:6]:80", none, "", "::/1"},
		{bits(48), "192.0.2.7:80", none, "", "192.0.2.7"},
		{bits(48), "[::ffff:192.0.2.7]:80", none, "", "192.0.2.7"},
		{bits(48), "[64:ff9b::192.0.2.7]:80", none, "", "192.0.2.7"},

		// A header from strangers.
		{ip, "192.0.2.7:1", xff, "198.51.100.1", "192.0.2.7"},
		{list, "192.0.2.7:1", xff, "198.51.100.1", "192.0.2.7"},
		{single, "192.0.2.7:1", realIP, "198.51.100.1", "192.0.2.7"},
		{forwarded, "192.0.2.7:1", rfc, "for=198.51.100.1", "192.0.2.7"},
		{list, "[2001:db8::7]:1", xff, "10.0.0.1", "2001:db8::/64"},
		{list, "[64:ff9b::10.0.0.1]:1", xff, "198.51.100.1", "10.0.0.1"}, // not a proxy's own address
		{list, "unix", xff, "198.51.100.1", ""},
		{list, "@", xff, "198.51.100.1", ""},
		{unix, "192.0.2.7:1", xff, "198.51.100.1", "192.0.2.7"},
		{unix, "", xff, "198.51.100.1", ""},
		{unix, "somebody", xff, "198.51.100.1", ""},

		// A list by proxies.
		{list, proxy, xff, "198.51.100.1", "198.51.100.1"},
		{list, "[::ffff:10.0.0.1]:5", xff, "198.51.100.1", "198.51.100.1"},
		{list, "172.16.9.9:5", xff, "198.51.100.1", "198.51.100.1"},
		{list, "172.32.0.1:5", xff, "198.51.100.1", "172.32.0.1"},
		{mapped, proxy, xff, "198.51.100.1", "198.51.100.1"},
		{mapped, "[::ffff:10.0.0.1]:5", xff, "198.51.100.1", "198.51.100.1"},
		{mapped, "11.0.0.1:5", xff, "198.51.100.1", "11.0.0.1"},
		{list, proxy, xff, "203.0.113.9, 198.51.100.1", "198.51.100.1"},
		{list, proxy, xff, "203.0.113.9, 198.51.100.1, 10.9.9.9", "198.51.100.1"},
		{list, proxy, xff, "203.0.113.9, 198.51.100.1|10.9.9.9", "198.51.100.1"},
		{list, proxy, xff, "203.0.113.9|198.51.100.1|fd00::9", "198.51.100.1"},
		{list, proxy, xff, "198.51.100.1:4711", "198.51.100.1"},
		{list, proxy, xff, "2001:db8::9", "2001:db8::/64"},
		{list, proxy, xff, "[2001:db8::9]", "2001:db8::/64"},
		{list, proxy, xff, "[2001:db8::9]:4711", "2001:db8::/64"},
		{list, proxy, xff, "::ffff:198.51.100.1", "198.51.100.1"},
		{list, proxy, xff, "64:ff9b::198.51.100.1", "198.51.100.1"},
		{list, proxy, xff, "10.0.0.3", "10.0.0.3"}, // an inside caller
		{list, proxy, xff, "fe80::3%eth1", "fe80::/64"},
		{list, "[fd00::1]:1", xff, "[2001:db8::9]", "2001:db8::/64"},
		{list, proxy, xff, "198.51.100.1, " + strings.Repeat("10.0.0.2, ", 40_000) + "10.0.0.2", "10.0.0.2"},
		{list, proxy, xff, "", "10.0.0.1"},
		{list, proxy, none, "", "10.0.0.1"},
		{list, proxy, xff, "198.51.100.1, unknown", "10.0.0.1"},
		{list, proxy, xff, "198.51.100.1,", "10.0.0.1"}, // the proxy does not know its client
		{list, proxy, xff, "198.51.100.1, unix:", "10.0.0.1"},
		{list, proxy, xff, "198.51.100.1, unknown, 10.9.9.9", "10.9.9.9"},
		{list, proxy, xff, ",,,", "10.0.0.1"},
		{list, proxy, xff, "for=198.51.100.1", "10.0.0.1"}, // another header's words
		{list, proxy, rfc, "for=198.51.100.1", "10.0.0.1"},
		{list, proxy, realIP, "198.51.100.1", "10.0.0.1"},
		{single, proxy, realIP, "198.51.100.1", "198.51.100.1"},
		{single, proxy, realIP, "2001:db8::9", "2001:db8::/64"},
		{single, "[::1]:5", realIP, "198.51.100.1", "198.51.100.1"},

		// Forwarded.
		{forwarded, proxy, rfc, "for=198.51.100.1", "198.51.100.1"},
		{forwarded, proxy, rfc, "FOR=198.51.100.1", "198.51.100.1"},
		{forwarded, proxy, rfc, `for="198.51.100.1"`, "198.51.100.1"},
		{forwarded, proxy, rfc, `for="198.51.100.1:4711"`, "198.51.100.1"},
		{forwarded, proxy, rfc, `for=198.51.100.1:4711`, "198.51.100.1"},
		{forwarded, proxy, rfc, `for="198.51.100.1:_port.1"`, "198.51.100.1"},
		{forwarded, proxy, rfc, `for="198\.51.100.\1"`, "198.51.100.1"},
		{forwarded, proxy, rfc, `for="[2001:db8:cafe::17]"`, "2001:db8:cafe::/64"},
		{forwarded, proxy, rfc, `For="[2001:DB8:cafe::17]:4711"`, "2001:db8:cafe::/64"},
		{forwarded, proxy, rfc, `for="[2001:db8:cafe::17]:_a-b"`, "2001:db8:cafe::/64"},
		{forwarded, proxy, rfc, `for="[::ffff:198.51.100.1]"`, "198.51.100.1"},
		{forwarded, proxy, rfc, `for=[2001:db8::1]:80`, "2001:db8::/64"}, // quotes are missing
		{forwarded, proxy, rfc, `proto=https;for=198.51.100.1;by=203.0.113.43`, "198.51.100.1"},
		{forwarded, proxy, rfc, ` ; proto = "a"`, "10.0.0.1"},
		{forwarded, proxy, rfc, `proto=https ; for=198.51.100.1 ;`, "198.51.100.1"},
		{forwarded, proxy, rfc, `for=203.0.113.9, for=198.51.100.1`, "198.51.100.1"},
		{forwarded, proxy, rfc, `for=203.0.113.9,for=198.51.100.1,for=10.9.9.9`, "198.51.100.1"},
		{forwarded, proxy, rfc, `for=203.0.113.9, for=198.51.100.1|for="[fd00::9]"`, "198.51.100.1"},
		{forwarded, proxy, rfc, `for=203.0.113.9|for=198.51.100.1`, "198.51.100.1"},
		{forwarded, proxy, rfc, `for=198.51.100.1;host="a,b;for=6.6.6.6"`, "198.51.100.1"},
		{forwarded, proxy, rfc, `for=198.51.100.1;host="a\", for=6.6.6.6;x=\""`, "198.51.100.1"},
		{forwarded, proxy, rfc, `for=198.51.100.1;host="a\\"`, "198.51.100.1"},
		{forwarded, proxy, rfc, `for=10.9.9.9;host="a,b", for=10.8.8.8;host="c\",d"`, "10.9.9.9"},
		{forwarded, proxy, rfc, `for="198.51.100.7, for=198.51.100.1`, "198.51.100.1"}, // quotes of the client
		{forwarded, proxy, rfc, `for="198.51.100.7\, for=198.51.100.1`, "198.51.100.1"},
		{forwarded, proxy, rfc, `a="\\\, for="[2001:db8::1]"`, "2001:db8::/64"},
		{forwarded, proxy, rfc, `for=unknown`, "10.0.0.1"},
		{forwarded, proxy, rfc, `for=203.0.113.9, for=unknown`, "10.0.0.1"},
		{forwarded, proxy, rfc, `for=_hidden`, "10.0.0.1"},
		{forwarded, proxy, rfc, `for="_SEVKISEK:80"`, "10.0.0.1"},
		{forwarded, proxy, rfc, `for=203.0.113.9, for=_hidden, for=10.9.9.9`, "10.9.9.9"},
		{forwarded, proxy, rfc, `proto=https`, "10.0.0.1"},
		{forwarded, proxy, rfc, `for=198.51.100.1;for=198.51.100.2`, "10.0.0.1"},
		{forwarded, proxy, rfc, `for=`, "10.0.0.1"},
		{forwarded, proxy, rfc, `for=""`, "10.0.0.1"},
		{forwarded, proxy, rfc, `for`, "10.0.0.1"},
		{forwarded, proxy, rfc, `=198.51.100.1`, "10.0.0.1"},
		{forwarded, proxy, rfc, `for="198.51.100.1`, "10.0.0.1"},
		{forwarded, proxy, rfc, `for=198.51.100.1"`, "10.0.0.1"},
		{forwarded, proxy, rfc, `for="198.51.100.1"x`, "10.0.0.1"},
		{forwarded, proxy, rfc, `proto=a"b;for=198.51.100.1`, "10.0.0.1"},
		{forwarded, proxy, rfc, `for="198.51.100.1\`, "10.0.0.1"},
		{forwarded, proxy, rfc, `for=198.51.100.1 proto=https`, "10.0.0.1"},
		{forwarded, proxy, rfc, `f(r=1;for=198.51.100.1`, "10.0.0.1"},
		{forwarded, proxy, rfc, `for="198.51.100.1:_"`, "10.0.0.1"},
		{forwarded, proxy, rfc, `for="198.51.100.1:99999"`, "10.0.0.1"},
		{forwarded, proxy, rfc, `for="[2001:db8::1]:_("`, "10.0.0.1"},
		{forwarded, proxy, rfc, `198.51.100.1`, "10.0.0.1"},
		{forwarded, proxy, rfc, "", "10.0.0.1"},
		{forwarded, proxy, none, "", "10.0.0.1"},
		{forwarded, proxy, xff, "198.51.100.1", "10.0.0.1"},

		// A proxy on a unix socket.
		{unix, "unix", xff, "198.51.100.1", "198.51.100.1"},
		{unix, "@", xff, "198.51.100.1", "198.51.100.1"},
		{unix, "unix", xff, "203.0.113.9, 198.51.100.1", "198.51.100.1"},
		{unix, "unix", xff, "203.0.113.9, 198.51.100.1, 10.9.9.9", "198.51.100.1"},
		{unix, "unix", xff, "unknown", ""},
		{unix, "unix", none, "", ""},
		{unix, proxy, xff, "198.51.100.1", "198.51.100.1"},
		{unixOnly, "unix", rfc, `for="[2001:db8::1]"`, "2001:db8::/64"},
		{unixOnly, "unix", rfc, `for=203.0.113.9, for=10.9.9.9`, "10.9.9.9"},
		{unixOnly, proxy, rfc, `for=203.0.113.9`, "10.0.0.1"},

		// Any peer is a proxy.
		{anyone, "192.0.2.7:1", xff, "198.51.100.1", "198.51.100.1"},
		{anyone, "[2001:db8::7]:1", xff, "198.51.100.1", "198.51.100.1"},
		{anyone, "unix", xff, "198.51.100.1", "198.51.100.1"},
		{anyone, "somebody", xff, "198.51.100.1", "198.51.100.1"},
		{anyone, "192.0.2.7:1", xff, "203.0.113.9, 198.51.100.1", "198.51.100.1"},
		{anyone, "192.0.2.7:1", xff, "203.0.113.9, 10.0.0.1", "10.0.0.1"},
		{anyone, "192.0.2.7:1", none, "", "192.0.2.7"},
		{anyone, "unix", none, "", ""},
		{anyoneTwo, "192.0.2.7:1", xff, "203.0.113.9, 198.51.100.1", "198.51.100.1"},
		{anyoneTwo, "192.0.2.7:1", xff, "203.0.113.9, 198.51.100.1, 10.0.0.1", "198.51.100.1"},
		{anyoneTwo, "unix", xff, "203.0.113.9, 198.51.100.1", "198.51.100.1"},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
		r.RemoteAddr = tt.remote
		local := net.Addr(&net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 80})
		if tt.remote == "unix" {
			r.RemoteAddr, local = "@", &net.UnixAddr{Name: "/run/server.sock", Net: "unix"}
		}
		if tt.remote != "@" { // which stands for a request without a server
			r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, local))
		}
		if tt.header != none {
			r.Header[tt.header] = strings.Split(tt.lines, "|")
		}
		if got, ok := tt.key(r); got != tt.want || ok != (tt.want != "") {
			t.Errorf("%s, %s: %s: %q, want %q", tt.remote, tt.header, tt.lines, got, tt.want)
		}
		rows++
	}
	if rows < 60 {
		t.Errorf("only %d rows", rows)
	}
}

// Options that would believe everyone, or no one, are refused.
func TestWrongClientIPOptions(t *testing.T) {
	const xff = "X-Forwarded-For"
	ten := networks("10.0.0.0/8")
	believing := func(all ...string) httplimit.ClientIPOptions {
		return httplimit.ClientIPOptions{Header: xff, Proxies: networks(all...)}
	}
	for _, tt := range []struct {
		o    httplimit.ClientIPOptions
		says string
	}{
		{httplimit.ClientIPOptions{Proxies: ten}, `Header is ""; it must`},
		{httplimit.ClientIPOptions{Peers: httplimit.AnyPeer}, `Header is ""; it must`},
		{httplimit.ClientIPOptions{Header: "a b", Proxies: ten}, `Header is "a b"; it must`},
		{httplimit.ClientIPOptions{Header: "a,b", Peers: httplimit.AnyPeer}, `Header is "a,b"; it must`},
		{httplimit.ClientIPOptions{Header: xff}, "Proxies is empty; it must"},
		{httplimit.ClientIPOptions{Header: xff, Peers: 3}, "Peers is 3; it must"},
		{httplimit.ClientIPOptions{IPv6Bits: -1}, "IPv6Bits is -1; it must"},
		{httplimit.ClientIPOptions{IPv6Bits: 129}, "IPv6Bits is 129; it must"},
		{httplimit.ClientIPOptions{Header: xff, Proxies: append(ten, netip.Prefix{})}, "Proxies[1] is invalid Prefix"},
		{believing("0.0.0.0/0"), "Proxies has 0.0.0.0/0, "},
		{believing("::/0"), "Proxies has ::/0, "},
		{believing("0.0.0.0/0", "::/0"), "Proxies has 0.0.0.0/0, "},
		{believing("::ffff:0.0.0.0/96"), "Proxies has 0.0.0.0/0, "},
		{believing("::ffff:10.0.0.0/64"), "Proxies[0] is ::ffff:10.0.0.0/64"},
	} {
		_, err := httplimit.ByClientIP(tt.o)
		refused(t, err, "httplimit.ClientIPOptions."+tt.says)
	}
	for _, tt := range []struct {
		proxies []netip.Prefix
		says    string
	}{
		{networks("10.0.0.0/8", "0.0.0.0/0"), "proxies has 0.0.0.0/0, "},
		{networks("10.0.0.0/8", "::/0"), "proxies has ::/0, "},
		{networks("::ffff:0:0/96"), "proxies has 0.0.0.0/0, "},
		{networks("::ffff:0:0/95"), "proxies[0] is ::ffff:0.0.0.0/95; it must"},
	} {
		_, err := httplimit.ByForwardedIP(xff, tt.proxies...)
		refused(t, err, "httplimit.ByForwardedIP: "+tt.says)
	}
}

// refused checks that an error is of options, and what it says.
func refused(t *testing.T, err error, says string) {
	t.Helper()
	if !errors.Is(err, trypema.ErrInvalidOptions) {
		t.Errorf("%v is no ErrInvalidOptions", err)
		return
	}
	if text := err.Error(); !strings.Contains(text, says) || !strings.Contains(text, " must ") {
		t.Errorf("%v, want %q", err, says)
	}
}

// Clients behind a proxy on a real unix socket each have a limit of their own, if the proxy is believed.
func TestUnixSocket(t *testing.T) {
	for _, header := range []string{"X-Forwarded-For", "X-Real-IP", "Forwarded"} {
		for peers := range httplimit.AnyPeer + 1 {
			limits, err := trypema.NewLocal(trypema.Options{Window: time.Hour})
			must.OK(t, err)
			key := mustKey(t)(httplimit.ByClientIP(httplimit.ClientIPOptions{
				Header: header, Proxies: networks("127.0.0.0/8"), Peers: peers,
			}))
			h := handler(t, httplimit.Options{Limiter: limits.Absolute(), Rate: trypema.PerHour(1), Key: key})
			// The path of a socket must be short.
			path := filepath.Join(t.TempDir(), "s")
			listener, err := net.Listen("unix", path)
			must.OK(t, err)
			s := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
			ended := make(chan error, 1)
			go func() { ended <- s.Serve(listener) }()
			dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", path)
			}
			transport := &http.Transport{DialContext: dial}
			admitted := 0
			for _, client := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.1"} {
				if header == "Forwarded" {
					client = "for=" + client
				}
				r := to(t.Context(), "http://server/")
				r.Header.Set(header, client)
				response, err := transport.RoundTrip(r)
				must.OK(t, err)
				_ = response.Body.Close()
				if response.StatusCode == http.StatusOK {
					admitted++
				}
			}
			if want := map[bool]int{true: 1, false: 3}[peers == httplimit.PeersInProxies]; admitted != want {
				t.Errorf("%s, peers %d: %d admitted, want %d", header, peers, admitted, want)
			}
			transport.CloseIdleConnections()
			must.Report(t, s.Close())
			if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
				t.Error(err)
			}
			_ = limits.Close()
		}
	}
}
