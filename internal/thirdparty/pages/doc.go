// Package pages looks at the pages of trypema demo and trypema report in a headless Chromium. Its tests are in JavaScript, for
// node's test runner; TestPages runs them and is all there is in Go.
package pages
