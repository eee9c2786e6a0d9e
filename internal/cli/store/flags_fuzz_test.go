package store

import (
	"errors"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/trypema/trypema/internal/cli/flags"
)

// FuzzFlags: whatever --redis says, it is an address that a client can dial, or a complaint that names the
// flag; and a password is not shown in either.
func FuzzFlags(f *testing.F) {
	for _, text := range []string{
		"redis://h", "rediss://u:p@h:1/15", "redis://[::1]:6379", "redis://a,b:7000,c", "h", "", ",",
		"redis://", "redis://h:99999",
		"redis://h/x", "redis://h?x#y", "redis://u@h,v@h", "redis://h%zz", "redis://h/-1", "redis://\x00",
		"unix:///tmp/s",
	} {
		f.Add(text, "secret", 1, int64(time.Second))
	}
	f.Fuzz(func(t *testing.T, text, password string, instances int, interval int64) {
		d := time.Duration(interval)
		all := Flags{Provider: Hybrid, Redis: &text, Instances: &instances, SyncInterval: &d}
		var wrong *flags.Error
		if err := flags.First(all.Check(), all.CheckFor(time.Second)); err != nil &&
			(!errors.As(err, &wrong) || wrong.Rule == "" || !strings.HasPrefix(err.Error(), "--")) {
			t.Fatalf("%v", err)
		}
		a, err := parse(text)
		if err != nil {
			if !errors.As(err, &wrong) || wrong.Name != "redis" || wrong.Rule == "" {
				t.Fatalf("%q: %v", text, err)
			}
		} else {
			if len(a.hosts) == 0 || a.scheme != "redis" && a.scheme != "rediss" || a.database < 0 {
				t.Fatalf("%q is %+v", text, a)
			}
			for _, host := range a.hosts {
				name, port, err := net.SplitHostPort(host)
				if _, e := strconv.ParseUint(port, 10, 16); err != nil || e != nil || name == "" {
					t.Fatalf("%q has the host %q", text, host)
				}
			}
			if again, err := parse(a.String()); err != nil || again.String() != a.String() {
				t.Fatalf("%q is %s, which is %s, %v", text, a, again, err)
			}
		}
		// A password that can stand in no other part of an address.
		if len(password) < 6 || strings.ContainsAny(password, "/?#@%,:[]") ||
			strings.ContainsFunc(password, func(r rune) bool { return r > 0x7e || r <= ' ' }) {
			return
		}
		with := "redis://user:" + password + "@" + strings.TrimPrefix(text, "redis://")
		shown := concealed(with)
		if a, err := parse(with); err == nil {
			shown += a.String()
		}
		if !strings.Contains(text, password) &&
			!strings.Contains("redis://user:***"+concealed(text), password) && strings.Contains(shown, password) {
			t.Fatalf("%q is shown as %q", with, shown)
		}
	})
}
