package store

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/trypema/trypema/internal/cli/flags"
)

func TestParse(t *testing.T) {
	tests := []struct {
		text string
		want address
		says string
	}{
		{"redis://h", address{"redis", "", "", []string{"h:6379"}, 0}, "redis://h:6379"},
		{"redis://h/", address{"redis", "", "", []string{"h:6379"}, 0}, "redis://h:6379"},
		{"rediss://h:1/7", address{"rediss", "", "", []string{"h:1"}, 7}, "rediss://h:1/7"},
		{"redis://u:secret@[::1]:1", address{"redis", "u", "secret", []string{"[::1]:1"}, 0}, "redis://[::1]:1"},
		{"redis://:secret@h", address{"redis", "", "secret", []string{"h:6379"}, 0}, "redis://h:6379"},
		{"redis://u:s%2Cec%40r%2Fet@h", address{"redis", "u", "s,ec@r/et", []string{"h:6379"}, 0}, "redis://h:6379"},
		{"redis://a:1,redis://b:2", address{"redis", "", "", []string{"a:1", "b:2"}, 0}, "redis://a:1,b:2"},
		{"rediss://u:secret@a:1,b,u:secret@c:3",
			address{"rediss", "u", "secret", []string{"a:1", "b:6379", "c:3"}, 0}, "rediss://a:1,b:6379,c:3"},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			got, err := parse(tt.text)
			if err != nil || !reflect.DeepEqual(got, tt.want) || got.String() != tt.says {
				t.Errorf("got %+v, %v, which says %q", got, err, got)
			}
		})
	}
}

// TestParseRefuses: the message names flag and rule, and shows nothing that may be a password.
func TestParseRefuses(t *testing.T) {
	const aURL, database = "a URL such as redis://", "a URL whose path is the number of a database"
	tests := []struct{ text, shown, rule string }{
		{"", "", aURL},
		{"h:6379", "h:6379", aURL},
		{"redis://", "redis://", aURL},
		{"redis:///3", "redis:///3", aURL},
		{"redis://h#3", "redis://h#3", aURL},
		{"http://h", "http://h", "begins with redis:// or rediss://"},
		{"redis://h:65536", "redis://h:65536", "port is at most 65535"},
		{"redis://h/x", "redis://h/x", database},
		{"redis://h/-1", "redis://h/-1", database},
		{"redis://h/1/2", "redis://h/1/2", database},
		{"redis://h/4294967296", "redis://h/4294967296", database},
		{"u:secret@h", "***@h", aURL},
		{"redis://u:secret", "redis://u:***", aURL},
		{"redis://:secret", "redis://:***", aURL},
		{"redis://u:se%cret@h", "redis://***@h", aURL},
		{"redis://u:secr/et@h", "redis://***@h", aURL},
		{"redis://u:se,cret@h", "redis://***@h", aURL},
		{"redis://u:se@cret@h/x", "redis://***@h/x", database},
		{"redis://h?password=secret", "redis://h?***", aURL},
		{"redis://h:1:", "redis://h:1:", aURL},
		{"redis://h]", "redis://h]", aURL},
		{"redis://u:secret@a,http://u:secret@b", "redis://***@b", "begins with redis:// or rediss://"},
		{"redis://u:secret@a,u:secrets@b", "redis://***@b", "the same scheme, user and password"},
		{"redis://a,rediss://b", "redis://a,rediss://b", "the same scheme, user and password"},
		{"redis://a/1,b", "redis://a/1,b", "without a database"},
		{"redis://a,b/1", "redis://a,b/1", "without a database"},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			_, err := parse(tt.text)
			var wrong *flags.Error
			if !errors.As(err, &wrong) {
				t.Fatalf("error is %v", err)
			}
			if wrong.Name != "redis" || wrong.Value != tt.shown || !strings.Contains(wrong.Rule, tt.rule) {
				t.Errorf("got %q; want it to show %q and say %q", wrong, tt.shown, tt.rule)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	tests := []struct {
		flags Flags
		says  string // empty if they are right
	}{
		{Flags{Provider: Local}, ""},
		{Flags{Provider: "remote"}, `--provider is "remote"; it must be one of local, redis, hybrid`},
		{Flags{Provider: Local, Instances: ptr(1)},
			"--instances is 1; it must be left out unless --provider is redis or hybrid"},
		{Flags{Provider: Redis, Instances: ptr(0)}, "--instances is 0; it must be from 1 to 64"},
		{Flags{Provider: Redis, Instances: ptr(1)}, ""},
		{Flags{Provider: Hybrid, Instances: ptr(64)}, ""},
		{Flags{Provider: Hybrid, Instances: ptr(65)}, "--instances is 65; it must be from 1 to 64"},
		{Flags{Provider: Redis, SyncInterval: ptr(time.Second)},
			"--sync-interval is 1s; it must be left out unless --provider is hybrid"},
		{Flags{Provider: Hybrid, SyncInterval: ptr(time.Duration(0))},
			"--sync-interval is 0s; it must be from 1ms to --window (1s)"},
		{Flags{Provider: Hybrid, SyncInterval: ptr(time.Millisecond)}, ""},
		{Flags{Provider: Hybrid, SyncInterval: ptr(time.Second)}, ""},
		{Flags{Provider: Hybrid, SyncInterval: ptr(time.Second + 1)},
			"--sync-interval is 1.000000001s; it must be from 1ms to --window (1s)"},
		{Flags{Provider: Hybrid, Redis: ptr("redis://h"), Client: ptr(Rueidis)}, ""},
		{Flags{Provider: Hybrid, Client: ptr("jedis")}, `--client is "jedis"; it must be one of go-redis, rueidis`},
	}
	for _, tt := range tests {
		err := flags.First(tt.flags.Check(), tt.flags.CheckFor(time.Second))
		if got := fmt.Sprint(err); got != cmp.Or(tt.says, "<nil>") {
			t.Errorf("got %q, want %q", got, tt.says)
		}
	}
}

func ptr[T any](v T) *T { return &v }

func TestWhere(t *testing.T) {
	tests := []struct {
		where Where
		want  string
	}{
		{Here, "local, in this process"},
		{Where{Provider: Redis, Client: GoRedis, Server: "redis://h:6379", Instances: 1},
			"redis by go-redis: redis://h:6379"},
		{Where{Provider: Redis, Server: "redis://h:6379", Instances: 1}, "redis: redis://h:6379"},
		{Where{Provider: Hybrid, Client: Rueidis, Server: "redis://h:6379", Instances: 8, SyncInterval: 5},
			"hybrid × 8 by rueidis: redis://h:6379"},
	}
	for _, tt := range tests {
		if got := tt.where.String(); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}
