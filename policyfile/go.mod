module github.com/trypema/trypema/policyfile

go 1.25.0

require (
	github.com/trypema/trypema v0.1.0
	go.yaml.in/yaml/v4 v4.0.0
)
