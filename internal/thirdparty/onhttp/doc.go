// Package onhttp holds tests of httplimit before real HTTP servers: within other people's routers, with
// headers read by other people's parser, and under load.
package onhttp
