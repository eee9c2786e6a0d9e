package demo

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/cli/flags"
	"github.com/trypema/trypema/internal/cli/screen"
)

// knobs are what people change on the page while they look.
type knobs struct {
	Limit           float64 `json:"limit"`             // per second
	Window          float64 `json:"window"`            // s
	Bucket          float64 `json:"bucket"`            // ms
	HardLimitFactor float64 `json:"hard_limit_factor"` // of the capacity
	Load            float64 `json:"load"`              // of the limit
	Instances       int     `json:"instances"`         // of Redis and of Hybrid
	Delay           float64 `json:"delay"`             // ms, of what is sent to Redis
	Shape           string  `json:"shape"`
	Redis           bool    `json:"redis"`  // it answers
	Paused          int     `json:"paused"` // the number of an instance, from 1 on, or 0
}

// slider is a knob that is a number, with the values that it may have.
type slider struct {
	ID, Label, Unit, About string
	Min, Max, Step         float64
	value                  func(*knobs) float64
}

// Value is where it stands.
func (s slider) Value(k knobs) float64 { return s.value(&k) }

var sliders = []slider{
	{"limit", "Limit", "/s", "What may pass in a second, on average over a window.",
		1, 200, 1, func(k *knobs) float64 { return k.Limit }},
	{"load", "Load", "× limit", "What is asked for.",
		0, 10, 0.1, func(k *knobs) float64 { return k.Load }},
	{"window", "Window", "s", "In no interval so long more passes than limit × window.",
		1, 10, 1, func(k *knobs) float64 { return k.Window }},
	{"bucket", "Bucket", "ms", "Calls closer together may share a counter, which expires with the last of them.",
		10, 1000, 10, func(k *knobs) float64 { return k.Bucket }},
	{"hard_limit_factor", "Hard limit", "× limit", "Suppressed never passes it in any window.",
		1, 3, 0.1, func(k *knobs) float64 { return k.HardLimitFactor }},
	{"instances", "Instances", "", "Processes that share the limit by Redis. Local is one.",
		1, 8, 1, func(k *knobs) float64 { return float64(k.Instances) }},
	{"delay", "Network delay", "ms", "Until Redis has what is sent to it.",
		0, 200, 1, func(k *knobs) float64 { return k.Delay }},
}

// mostCalls is what is asked of each limiter in a second at most: six times as much passes through the
// servers.
const mostCalls = 800

// knobError is a knob that has been set wrong.
type knobError struct {
	Knob  string `json:"knob"`
	Error string `json:"error"`
}

// wrong returns what is wrong with the knobs, or nil.
func (k knobs) wrong() *knobError {
	bad := func(knob string, value any, rule string) *knobError {
		return &knobError{knob, fmt.Sprintf("%s is %v; it must be %s", knob, value, rule)}
	}
	for _, s := range sliders {
		if v := s.value(&k); !(v >= s.Min && v <= s.Max) { // which NaN is not
			return bad(s.ID, v, fmt.Sprintf("from %v to %v", s.Min, s.Max))
		}
	}
	switch {
	case !slices.Contains(shapes, k.Shape):
		return bad("shape", strconv.Quote(k.Shape), "one of "+strings.Join(shapes, ", "))
	case k.Limit*k.Load > mostCalls:
		return bad("load", k.Load,
			fmt.Sprintf("at most %.3g with a limit of %v: %d calls per second", mostCalls/k.Limit, k.Limit, mostCalls))
	case k.Bucket > 1000*k.Window:
		return bad("bucket", k.Bucket, fmt.Sprintf("at most the window (%v s)", k.Window))
	case k.Paused < 0 || k.Paused > k.Instances:
		return bad("paused", k.Paused, fmt.Sprintf("the number of one of the %d instances, or 0", k.Instances))
	case k.Paused > 0 && k.Instances == 1:
		return bad("paused", k.Paused, "0 where there is only one instance")
	}
	return nil
}

// change returns the knobs after some of them, in JSON, have been set.
func (k knobs) change(body []byte) (knobs, *knobError) {
	was := k
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	err := d.Decode(&k)
	if err == nil {
		if _, more := d.Token(); more != io.EOF {
			err = errors.New("more than one value")
		}
	}
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &kind):
		says := fmt.Sprintf("%s is a %s; it must be a %v", kind.Field, kind.Value, kind.Type)
		return was, &knobError{kind.Field, says}
	case err != nil:
		return was, &knobError{"", "that is no JSON object of knobs: " + err.Error()}
	}
	if k.Instances != was.Instances && k.Paused == was.Paused {
		k.Paused = 0
	}
	if wrong := k.wrong(); wrong != nil {
		return was, wrong
	}
	return k, nil
}

// options are those of the providers.
func (k knobs) options() trypema.Options {
	return trypema.Options{
		Window:          time.Duration(k.Window * float64(time.Second)),
		Bucket:          time.Duration(k.Bucket * float64(time.Millisecond)),
		HardLimitFactor: k.HardLimitFactor,
	}
}

// rebuilds reports whether other knobs need new providers.
func (k knobs) rebuilds(o knobs) bool {
	return k.options() != o.options() || k.Instances != o.Instances
}

// bound is the most that a strategy lets through in any window.
func (k knobs) bound(strategy string) uint64 {
	c, _ := trypema.Rate(k.Limit).Capacity(k.options().Window) // the knobs are valid
	if strategy == suppressed {
		c = flags.HardCapacity(c, k.options())
	}
	return c
}

// knobs are what the page begins with.
func (c *Command) knobs() (knobs, error) {
	k := knobs{
		Limit: flags.Or(c.Rate, defaultPageRate), Window: flags.Or(c.Window, 2*time.Second).Seconds(),
		HardLimitFactor: c.HardLimitFactor, Load: c.Load, Instances: flags.Or(c.Instances, 2),
		Shape: steady, Redis: true,
	}
	k.Bucket = math.Max(10, math.Round(k.Window*1000/100))
	if c.Bucket != nil {
		k.Bucket = screen.Milliseconds(*c.Bucket)
	}
	if wrong := k.wrong(); wrong != nil {
		flag := map[string]string{"limit": "rate", "hard_limit_factor": "hard-limit-factor"}[wrong.Knob]
		_, rule, _ := strings.Cut(wrong.Error, "; it must be ")
		value, _, _ := strings.Cut(strings.TrimPrefix(wrong.Error, wrong.Knob+" is "), ";")
		return k, flags.Check(false, cmp.Or(flag, wrong.Knob), value, rule+", for the page (--headless takes more)")
	}
	return k, nil
}
