#!/bin/sh
# binaries.sh FOLDER Builds the program trypema for each system from what is checked out, and writes to FOLDER
# an archive and an SBOM (CycloneDX, as JSON) for each, and checksums.txt. From a tag, the program says the
# version and the commit; two builds of it from one commit by one version of Go are the same.
#
# TARGETS limits the systems, such as TARGETS=linux/amd64. SBOM=0 leaves the SBOMs out.
set -eu
cd "$(dirname "$0")/.."

go=${GO:-go}
cyclonedx=github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0
out=${1:?"a folder"}
mkdir -p "$out"
out=$(cd "$out" && pwd)
if [ -n "$(ls -A "$out")" ]; then
	echo "binaries: the folder is $out; it must be empty" >&2
	exit 2
fi
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM
[ "${SBOM:-}" = 0 ] || GOBIN="$tmp" $go install $cyclonedx

for target in ${TARGETS:-linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64}; do
	system=${target%/*} processor=${target#*/}
	name=trypema_${system}_$processor
	program=trypema
	[ "$system" != windows ] || program=trypema.exe
	mkdir "$tmp/$name"
	CGO_ENABLED=0 GOOS=$system GOARCH=$processor \
		$go build -trimpath -buildvcs=true -ldflags=-s -o "$tmp/$name/$program" ./cmd/trypema
	cp LICENSE README.md "$tmp/$name"
	tar -czf "$out/$name.tar.gz" -C "$tmp" "$name"
	made=$($go version -m "$tmp/$name/$program")
	if [ "${SBOM:-}" != 0 ]; then
		"$tmp/cyclonedx-gomod" bin -json -output "$out/$name.cdx.json" "$tmp/$name/$program" 2>"$tmp/said" || {
			cat "$tmp/said" >&2
			exit 1
		}
		# Each module that the program was made of is in the SBOM.
		for module in $(echo "$made" | awk '$1 == "dep" { print $2 }'); do
			grep -q "\"name\": \"$module\"" "$out/$name.cdx.json" || {
				echo "binaries: $name.cdx.json: has no component $module" >&2
				exit 1
			}
		done
	fi
	# The go command leaves the commit out without an error in a worktree of git, and in a copy without .git.
	case $made in
	*vcs.revision=*) echo "built: $name.tar.gz, $(echo "$made" | awk '$1 == "mod" { print $3 }')" ;;
	*) echo "built: $name.tar.gz, which does not say its version and commit: $PWD is not a clone" ;;
	esac
done
cd "$out"
if command -v sha256sum >/dev/null; then sha256sum -- *; else shasum -a 256 -- *; fi >"$tmp/checksums"
mv "$tmp/checksums" checksums.txt
