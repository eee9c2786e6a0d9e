module github.com/trypema/trypema/internal/thirdparty

go 1.25

require (
	github.com/anishathalye/porcupine v1.3.1
	github.com/trypema/trypema v0.1.0
	go.uber.org/goleak v1.3.0
	pgregory.net/rapid v1.3.0
)
