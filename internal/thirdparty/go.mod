module github.com/trypema/trypema/internal/thirdparty

go 1.25

require github.com/trypema/trypema v0.1.0
