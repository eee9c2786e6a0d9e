module github.com/trypema/trypema/rueidisconn

go 1.25

require github.com/redis/rueidis v1.0.71

require (
	github.com/trypema/trypema v0.1.0
	golang.org/x/sys v0.39.0 // indirect
)
