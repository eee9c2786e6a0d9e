package limittest_test

import "testing"

// run is what go test does with a test function.
var run = func(string, func(*testing.T)) {}

// The example is right: the limiter in it passes.
func TestExample(t *testing.T) {
	defer func(before func(string, func(*testing.T))) { run = before }(run)
	ran := false
	run = func(name string, test func(*testing.T)) {
		ran = true
		t.Run(name, test)
	}
	ExampleRun()
	if !ran {
		t.Error("the example runs no test")
	}
}
