package demo

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// A lane that nobody has asked yet has lists that are empty, not null: the page goes through them.
func TestViewOfNothing(t *testing.T) {
	l := &lane{provider: "local", meter: newMeter(time.Second, 1)}
	text, err := json.Marshal(l.view(knobs{Limit: 1, Window: 1, HardLimitFactor: 1}, nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range []string{`"clients":[]`, `"answers":[]`} {
		if !strings.Contains(string(text), list) {
			t.Errorf("no %s in %s", list, text)
		}
	}
}
