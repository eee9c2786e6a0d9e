package trypema_test

import (
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/trypema/trypema/internal/proof/must"
)

// Every exported function and method of every public package in the repository has an example, where
// documentation shows it: beside the function or method or, for a method of an interface, beside the
// interface, by the method's name. What is there for other code to call has none: methods that the standard
// library asks for, and those of a Conn.
func TestEverythingExportedHasAnExample(t *testing.T) {
	packages := 0
	for _, dir := range publicFolders(t) {
		p := documented(t, dir)
		if p == nil {
			continue
		}
		packages++
		for _, missing := range withoutExample(p) {
			t.Errorf("package %s: no example for %s", p.Name, missing)
		}
	}
	if packages < 4 {
		t.Errorf("found only %d packages", packages)
	}
}

// publicFolders returns the folders that others may import from, of all modules that are here.
func publicFolders(t *testing.T) (dirs []string) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		switch name := entry.Name(); {
		case err != nil || !entry.IsDir():
			return err
		case name == "internal" || name == "testdata" || name == "node_modules" ||
			name != "." && strings.HasPrefix(name, "."):
			return fs.SkipDir
		}
		dirs = append(dirs, path)
		return nil
	})
	must.OK(t, err)
	return dirs
}

// documented returns the package in a folder with its examples, or nil if there is none, or a program.
func documented(t *testing.T, dir string) *doc.Package {
	t.Helper()
	fset := token.NewFileSet()
	var files []*ast.File
	entries, err := os.ReadDir(dir)
	must.OK(t, err)
	for _, entry := range entries {
		if !strings.HasSuffix(entry.Name(), ".go") {
			continue
		}
		file, err := parser.ParseFile(fset, filepath.Join(dir, entry.Name()), nil, parser.ParseComments)
		must.OK(t, err)
		if file.Name.Name == "main" {
			return nil
		}
		files = append(files, file)
	}
	if len(files) == 0 {
		return nil
	}
	p, err := doc.NewFromFiles(fset, files, dir)
	must.OK(t, err)
	return p
}

var forOthers = []string{
	"Error", "Unwrap", "RoundTrip", "Conn.Run", "NodeConn.Node", "Provider.Absolute", "Provider.Suppressed",
	"Binder.Bind", "Provider.Close", "Keeper.AllowN", "Keeper.Peek", "Keeper.Reserve", "Keeper.Usage", "Keeper.Delete",
	"Bound.Keeper", "Limiter.Window",
}

// withoutExample names the functions and methods of a package that have no example.
func withoutExample(p *doc.Package) (missing []string) {
	look := func(functions []*doc.Func, of string) {
		for _, f := range functions {
			if len(f.Examples) == 0 && !slices.Contains(forOthers, of+f.Name) && !slices.Contains(forOthers, f.Name) {
				missing = append(missing, of+f.Name)
			}
		}
	}
	look(p.Funcs, "")
	for _, typ := range p.Types {
		look(typ.Funcs, "")
		look(typ.Methods, typ.Name+".")
		for _, method := range interfaceMethods(typ) {
			first, size := utf8.DecodeRuneInString(method)
			suffix := string(unicode.ToLower(first)) + method[size:]
			if slices.Contains(forOthers, typ.Name+"."+method) {
				continue
			}
			if !slices.ContainsFunc(typ.Examples, func(e *doc.Example) bool { return e.Suffix == suffix }) {
				missing = append(missing, typ.Name+"."+method)
			}
		}
	}
	return missing
}

// interfaceMethods returns the exported methods that a type asks for, if it is an interface.
func interfaceMethods(typ *doc.Type) (names []string) {
	for _, spec := range typ.Decl.Specs {
		spec, ok := spec.(*ast.TypeSpec)
		if !ok || spec.Name.Name != typ.Name {
			continue
		}
		iface, ok := spec.Type.(*ast.InterfaceType)
		if !ok {
			continue
		}
		for _, method := range iface.Methods.List {
			for _, name := range method.Names {
				if name.IsExported() {
					names = append(names, name.Name)
				}
			}
		}
	}
	return names
}
