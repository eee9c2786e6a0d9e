package store

import (
	"testing"
	"time"
)

func TestParseWork(t *testing.T) {
	const some = "# Memory\r\nused_memory:1000\r\n# CPU\r\nused_cpu_sys:1.500000\r\nused_cpu_user:2.250000\r\n"
	tests := []struct {
		name, info string
		want       Work
		ok         bool
	}{
		{"no script yet", some, Work{CPU: 3750 * time.Millisecond, Memory: 1000}, true},
		{
			"commands", some + "# Commandstats\r\n" +
				"cmdstat_evalsha:calls=10,usec=70,usec_per_call=7.00,rejected_calls=0,failed_calls=1\r\n" +
				"cmdstat_eval:calls=1,usec=5,usec_per_call=5.00\r\n" +
				"cmdstat_cl.throttle:calls=1,usec=3,usec_per_call=3.00\r\n" +
				"cmdstat_get:calls=1000,usec=1000,usec_per_call=1.00\r\n", // what scripts call is in their own time
			Work{Commands: 78 * time.Microsecond, CPU: 3750 * time.Millisecond, Memory: 1000}, true,
		},
		{"not allowed to ask", "", Work{}, false},
		{"something else", "used_memory:lots\r\nused_cpu_sys:1\r\nused_cpu_user:1\r\n",
			Work{CPU: 2 * time.Second}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := parseWork(fields(tt.info))
			if got != tt.want || ok != tt.ok {
				t.Errorf("got %+v, %v, want %+v, %v", got, ok, tt.want, tt.ok)
			}
		})
	}
}
