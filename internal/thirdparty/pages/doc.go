// Package pages looks at the pages that programs here make, in a real browser: that of trypema demo, and that
// of a report of internal/bench. The tests are written in JavaScript, for the test runner of node. TestPages
// runs them and reports each as a test of its own.
package pages
