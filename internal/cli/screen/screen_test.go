package screen

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"
	"time"
)

func TestNumbers(t *testing.T) {
	tests := []struct{ got, want string }{
		{Duration(0), "0s"},
		{Duration(999), "999ns"},
		{Duration(1000), "1µs"},
		{Duration(123456), "123µs"},
		{Duration(999999), "1ms"},
		{Duration(1234567 * time.Microsecond), "1.23s"},
		{Count(0), "0"},
		{Count(999), "999"},
		{Count(1000), "1,000"},
		{Count(1234567), "1,234,567"},
		{PerSecond(0), "0.0/s"},
		{PerSecond(99.96), "100.0/s"},
		{PerSecond(999.96), "1,000/s"},
		{PerSecond(1234.5), "1,235/s"},
	}
	for _, tt := range tests {
		if tt.got != tt.want {
			t.Errorf("got %q, want %q", tt.got, tt.want)
		}
	}
}

func TestTable(t *testing.T) {
	var b bytes.Buffer
	if err := Table(&b, []string{"", "n"}, [][]string{{"one", "1"}, {"ten", "10"}}); err != nil {
		t.Fatal(err)
	}
	want := strings.Join([]string{
		"╭─────┬────╮",
		"│     │  n │",
		"├─────┼────┤",
		"│ one │  1 │",
		"│ ten │ 10 │",
		"╰─────┴────╯",
	}, "\n")
	if got := strings.TrimSpace(b.String()); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestFold(t *testing.T) {
	long := strings.Repeat("x", 100)
	for _, tt := range []struct{ text, want string }{
		{"", " ✓ \n"},
		{"one  line", " ✓ one line\n"},
		{strings.Repeat("12345678 ", 9), " ✓" + strings.Repeat(" 12345678", 8) + "\n   12345678\n"},
		{strings.Repeat("12345678 ", 8) + "1234", " ✓" + strings.Repeat(" 12345678", 8) + " 1234\n"}, // 79 columns
		{strings.Repeat("12345678 ", 8) + "12345", " ✓" + strings.Repeat(" 12345678", 8) + " 12345\n"},
		{strings.Repeat("12345678 ", 8) + "123456", " ✓" + strings.Repeat(" 12345678", 8) + "\n   123456\n"},
		{long + " end", " ✓ " + long + "\n   end\n"},
	} {
		if got := Fold(" ✓ ", tt.text); got != tt.want {
			t.Errorf("%q: got\n%swant\n%s", tt.text, got, tt.want)
		}
	}
}

func TestComplainSaysOneThingALine(t *testing.T) {
	var b bytes.Buffer
	Streams{Name: "trypema", Err: &b}.Complain(errors.Join(errors.New("first"), errors.Join(errors.New("second"))))
	if got, want := b.String(), "trypema: first\ntrypema: second\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestBarIsSilentWhereNobodyLooks(t *testing.T) {
	var b bytes.Buffer
	bar := NewBar(&b)
	bar.Set(0.5, "something")
	bar.Clear()
	if b.Len() > 0 {
		t.Errorf("it wrote %q", &b)
	}
}

func TestBarNeverRunsBackwards(t *testing.T) {
	var b bytes.Buffer
	bar := &Bar{w: &b, drawn: true, plain: true}
	for _, tt := range []struct {
		part float64
		want string
	}{
		{0, "  0%"}, {0.5, " 50%"}, {0.2, " 50%"}, {math.NaN(), " 50%"}, {-1, " 50%"}, {0.8, " 80%"}, {0, " 80%"},
		{1.5, "100%"}, {0.9, "100%"}, {math.Inf(1), "100%"},
	} {
		b.Reset()
		bar.Set(tt.part, "work")
		if !strings.Contains(b.String(), " "+tt.want+"  work") ||
			strings.Count(b.String(), "█")+strings.Count(b.String(), "░") != barWidth {
			t.Errorf("at %v it drew %q, want %s", tt.part, &b, tt.want)
		}
	}
}

func TestBarHasNoColorIfAsked(t *testing.T) {
	for _, tt := range []struct {
		noColor, term string
		colored       bool
	}{
		{"", "xterm", true}, {"1", "xterm", false}, {"0", "xterm", false}, {"", "dumb", false},
	} {
		t.Setenv("NO_COLOR", tt.noColor)
		t.Setenv("TERM", tt.term)
		var b bytes.Buffer
		bar := NewBar(&b)
		bar.drawn = true
		bar.Set(0.5, "work")
		if colored := strings.Contains(b.String(), "\x1b[36m"); colored != tt.colored {
			t.Errorf("NO_COLOR=%q TERM=%s: it drew %q", tt.noColor, tt.term, &b)
		}
	}
}
