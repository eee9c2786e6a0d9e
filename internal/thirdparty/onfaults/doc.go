// Package onfaults holds the tests of the providers that need Redis, on real servers that break.
package onfaults
