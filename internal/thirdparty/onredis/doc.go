// Package onredis holds the tests of the providers that need Redis, on real servers.
package onredis
