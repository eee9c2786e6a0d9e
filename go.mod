module github.com/trypema/trypema

go 1.25
