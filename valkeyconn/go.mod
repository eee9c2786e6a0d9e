module github.com/trypema/trypema/valkeyconn

go 1.25.0

require github.com/valkey-io/valkey-go v1.0.76

require (
	github.com/trypema/trypema v0.1.0
	golang.org/x/sys v0.43.0 // indirect
)
