module github.com/trypema/trypema/redigoconn

go 1.25

require (
	github.com/gomodule/redigo v1.9.3
	github.com/trypema/trypema v0.1.0
)
