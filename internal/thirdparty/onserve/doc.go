// Package onserve tests trypema serve, as a process, with real proxies and clients, and beside the server
// whose configuration it reads.
package onserve
