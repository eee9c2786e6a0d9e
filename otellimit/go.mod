module github.com/trypema/trypema/otellimit

go 1.25.0

require (
	github.com/trypema/trypema v0.1.0
	go.opentelemetry.io/otel v1.40.0
	go.opentelemetry.io/otel/metric v1.40.0
)

require github.com/cespare/xxhash/v2 v2.3.0 // indirect
