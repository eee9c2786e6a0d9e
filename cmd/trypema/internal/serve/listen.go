package serve

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/trypema/trypema/internal/cli/flags"
)

// listen opens a listener at host:port, or at unix:PATH. What is left of a socket whose server has gone is
// removed.
func listen(ctx context.Context, address string) (net.Listener, error) {
	var config net.ListenConfig
	path, isSocket := strings.CutPrefix(address, "unix:")
	if !isSocket {
		return config.Listen(ctx, "tcp", address)
	}
	l, err := config.Listen(ctx, "unix", path)
	if err == nil || !errors.Is(err, syscall.EADDRINUSE) {
		return l, err
	}
	var dialer net.Dialer
	if c, dialErr := dialer.DialContext(ctx, "unix", path); dialErr == nil {
		_ = c.Close()
		return nil, err // somebody serves there
	}
	if info, statErr := os.Lstat(path); statErr != nil || info.Mode()&fs.ModeSocket == 0 {
		return nil, err
	}
	if removeErr := os.Remove(path); removeErr != nil {
		return nil, err
	}
	return config.Listen(ctx, "unix", path)
}

// gate counts the connections of all listeners, and closes those beyond a bound.
type gate struct {
	most    int64
	open    atomic.Int64
	refused atomic.Int64
}

// bounded is a listener behind a gate.
type bounded struct {
	net.Listener
	gate *gate
	open atomic.Int64 // of this listener
}

// Accept returns the next connection for which there is room.
func (b *bounded) Accept() (net.Conn, error) {
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if b.gate.open.Add(1) > b.gate.most {
			b.gate.open.Add(-1)
			b.gate.refused.Add(1)
			_ = c.Close()
			continue
		}
		b.open.Add(1)
		return &counted{Conn: c, of: b}, nil
	}
}

// counted is a connection that was counted.
type counted struct {
	net.Conn
	of   *bounded
	once sync.Once
}

// Close implements net.Conn.
func (c *counted) Close() error {
	c.once.Do(func() {
		c.of.gate.open.Add(-1)
		c.of.open.Add(-1)
	})
	return c.Conn.Close()
}

// TLS are the files of the certificate of a listener.
type TLS struct {
	Cert     string `env:"CERT" placeholder:"FILE" help:"Certificate chain in PEM, for TLS."`
	Key      string `env:"KEY" placeholder:"FILE" help:"Its private key."`
	ClientCA string `name:"client-ca" env:"CLIENT_CA" placeholder:"FILE" help:"Authorities in PEM, one of which must have signed the certificate of each client (mTLS)."`
	// The certificate of a client must have one of the names in Clients.
	Clients []string `name:"client-name" env:"CLIENT_NAME" sep:"," placeholder:"NAME" help:"With a client-ca: names, DNS or URI or address or email, of which the certificate of each client must have one."`
}

func (t *TLS) isOn() bool { return t.Cert != "" || t.Key != "" || t.ClientCA != "" }

func (t *TLS) check(name string) error {
	if t.isOn() && (t.Cert == "" || t.Key == "") {
		return fmt.Errorf(
			"--%s-cert is %q and --%s-key is %q; both must be files if one is, or --%s-client-ca",
			name,
			t.Cert,
			name,
			t.Key,
			name,
		)
	}
	return flags.Check(len(t.Clients) == 0 || t.ClientCA != "", name+"-client-name", strings.Join(t.Clients, ","),
		"left out unless --"+name+"-client-ca is given")
}

// verify returns an error unless the certificate of a client has one of the names.
func (t *TLS) verify(state tls.ConnectionState) error {
	leaf := state.PeerCertificates[0]
	have := slices.Concat(leaf.DNSNames, leaf.EmailAddresses)
	for _, u := range leaf.URIs {
		have = append(have, u.String())
	}
	for _, ip := range leaf.IPAddresses {
		have = append(have, ip.String())
	}
	for _, name := range t.Clients {
		if slices.Contains(have, strings.TrimSpace(name)) {
			return nil
		}
	}
	return errors.New("the certificate of the client has none of the names of --client-name")
}

// certificate is the TLS of a listener, whose files can be read again.
type certificate struct {
	TLS
	protocols []string
	config    atomic.Pointer[tls.Config]
	trouble   atomic.Pointer[string] // what was wrong at the last reload

	mu   sync.Mutex // guards seen
	seen [3][]byte
}

// newCertificate reads the files of a listener.
func newCertificate(t TLS, protocols ...string) (*certificate, error) {
	c := &certificate{TLS: t, protocols: protocols}
	_, err := c.reload()
	return c, err
}

// reload reads the files again. If they are wrong the old ones stay. It reports whether they have changed.
func (c *certificate) reload() (changed bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var files [3][]byte
	for i, name := range []string{c.Cert, c.Key, c.ClientCA} {
		if name == "" {
			continue
		}
		if files[i], err = os.ReadFile(name); err != nil {
			return false, err
		}
	}
	if c.config.Load() != nil && bytes.Equal(files[0], c.seen[0]) && bytes.Equal(files[1], c.seen[1]) &&
		bytes.Equal(files[2], c.seen[2]) {
		return false, nil
	}
	pair, err := tls.X509KeyPair(files[0], files[1])
	if err != nil {
		return false, fmt.Errorf("%s and %s: %w", c.Cert, c.Key, err)
	}
	config := &tls.Config{
		Certificates: []tls.Certificate{pair},
		MinVersion:   tls.VersionTLS12,
		NextProtos:   c.protocols,
	}
	if c.ClientCA != "" {
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		if !config.ClientCAs.AppendCertsFromPEM(files[2]) {
			return false, fmt.Errorf("%s: there is no certificate in it", c.ClientCA)
		}
		if len(c.Clients) > 0 {
			config.VerifyConnection = c.verify // also of a session that is resumed
		}
	}
	c.seen = files
	c.config.Store(config)
	return true, nil
}

// server returns the configuration of a server, each of whose connections has the files of its time.
func (c *certificate) server() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: c.protocols,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.config.Load(), nil },
	}
}
