package limittest_test

import "testing"

// run is what go test does with a test function.
var run = func(string, func(*testing.T)) {}

// The examples are right: the limiters in them pass.
func TestExamples(t *testing.T) {
	defer func(before func(string, func(*testing.T))) { run = before }(run)
	ran := 0
	run = func(name string, test func(*testing.T)) {
		ran++
		t.Run(name, test)
	}
	ExampleRun()
	ExampleRunBind()
	if ran != 2 {
		t.Errorf("%d examples ran a test", ran)
	}
}
