// Package thirdparty holds the tests that need modules of others, so that no published module requires them.
// It is never tagged. What each file proves, and how, is at its top.
package thirdparty
