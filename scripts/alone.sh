#!/bin/sh
# alone.sh MODULE ARGUMENTS… Runs "go ARGUMENTS" in a module as it is for those who require it: without the
# workspace. Its go.mod must not replace anything, but modules of ours that it requires may not be published
# yet; so the copy of it that is used replaces them with what is here.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root/$1"
shift
if grep -n '^replace' go.mod; then
	echo "$PWD/go.mod: must not replace anything" >&2
	exit 1
fi
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cp go.mod "$tmp"
[ ! -f go.sum ] || cp go.sum "$tmp"
for mod in "$root"/go.mod "$root"/*/go.mod "$root"/internal/*/go.mod; do
	at=${mod%/go.mod}
	${GO:-go} mod edit -replace "github.com/trypema/trypema${at#"$root"}=$at" "$tmp/go.mod"
done
GOWORK=off GOFLAGS="${GOFLAGS:-} -modfile=$tmp/go.mod" ${GO:-go} "$@"
