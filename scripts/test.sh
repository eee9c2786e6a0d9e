#!/bin/sh
# test.sh [FLAGS AND PACKAGES OF go test] Tests all modules, or the packages given, in one go test call, and
# ends with one summary: passed, skipped and why, failed.
#
# First it says which programs are missing and which tests run them. In a terminal it asks whether to install
# them; elsewhere it installs them, while it compiles. INSTALL=0 forbids that: the tests that run them are
# then skipped, by name.
set -eu
cd "$(dirname "$0")/.."

GO=${GO:-go}
GOTESTSUM=gotest.tools/gotestsum@v1.13.0
packages=
for arg; do
	case $arg in ./* | . | github.com/*) packages="$packages $arg" ;; esac
done
if [ -z "$packages" ]; then
	# The last module comes first: its tests wait for servers and a browser, and others compute meanwhile. Then
	# come those of the root module, which take longer than the rest.
	for module in $MODULES; do packages="$packages $module/..."; done
	set -- "$@" $module/... $packages
fi

# Nothing is compiled with information for debuggers, by the tests that build programs neither: it takes a
# tenth of the time, and a failure names lines without it. The clients of Redis, which take the longest of all
# packages to compile, are not optimized either: that halves their time. The commands of two of them, which
# only join strings, are compiled without the race detector, too.
GOFLAGS="$($GO env GOFLAGS) -gcflags=all=-dwarf=false"
for client in redis/go-redis redis/rueidis valkey-io/valkey-go; do
	GOFLAGS="$GOFLAGS '-gcflags=github.com/$client/...=-dwarf=false -N -l'"
done
for client in redis/rueidis valkey-io/valkey-go; do
	GOFLAGS="$GOFLAGS '-gcflags=github.com/$client/internal/cmds=-dwarf=false -N -l -race=false'"
done
export GOFLAGS

# What takes long to compile is compiled only when tests explore.
tags=
[ "${TRYPEMA_EXPLORE:-}" = 1 ] && tags="-tags explore"

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM

echo "Looking up what the tests are compiled from; what is not there yet is downloaded."
# Each package once, without its variants that are made for a test: its path, and "builds" if it has more than
# tests.
$GO list $tags -deps -test -f '{{if not .ForTest}}{{.ImportPath}}{{if and .GoFiles (ne .Name "main")}} builds{{end}}{{end}}' $packages |
	sort -u >"$tmp/packages"

# need USE PACKAGE PROGRAM…: the tests of USE run one of the programs, which are in a package of Debian.
missing=
need() {
	use=$1 package=$2
	shift 2
	for program; do
		command -v "$program" >/dev/null && return
	done
	echo "$1 is missing. $use run it."
	missing="$missing $package"
}
tested() { grep -q "^github.com/trypema/trypema/$1\\( \\|\$\\)" "$tmp/packages"; }
if tested internal/proof/realredis && [ -z "${REDIS_SERVER:-}" ]; then
	need "The tests on a real Redis" redis-server redis-server valkey-server
fi
if tested internal/thirdparty/onserve; then
	need "The tests of trypema serve" redis-tools redis-cli
	need "The tests of trypema serve behind proxies" nginx-light nginx
	need "The tests of trypema serve, which install Caddy, Traefik and Envoy from PyPI," python3-venv python3
fi
if tested internal/thirdparty/pages; then
	[ -n "${CHROMIUM:-}" ] || need "The tests of the pages of the demo and the report" chromium chromium chromium-browser google-chrome
	need "The tests of the pages" npm npm
fi
installing=
if [ -n "$missing" ]; then
	if [ "${INSTALL:-}" != 0 ] && [ -t 0 ] && [ -t 1 ]; then
		printf 'Install%s? [Y/n] ' "$missing"
		read -r answer
		case $answer in [nN]*) INSTALL=0 ;; esac
	fi
	if [ "${INSTALL:-}" = 0 ]; then
		export INSTALL
	else
		./scripts/install.sh $missing >"$tmp/installed" 2>&1 &
		installing=$!
	fi
fi

# The probe is the part of the race detector that needs a C compiler.
race=-race
if ! why=$($GO build -race runtime/cgo 2>&1); then
	race=
	echo "No race detector, which needs a C compiler: the tests run without it."
	echo "$why"
fi

# What was compiled before is not compiled again, so only the first time this counts to the end.
awk '$2 { print $1 }' "$tmp/packages" >"$tmp/builds"
all=$(wc -l <"$tmp/builds")
xargs $GO build $tags $race -v <"$tmp/builds" 2>&1 | awk -v all="$all" '
	/^[^ #]+$/ { if (++n % 50 == 0) { print "compiled " n " of at most " all " packages"; fflush() }; next }
	{ print }'
if [ -n "$installing" ]; then
	wait $installing || true
	cat "$tmp/installed"
fi

# The go command repeats a test when a file that it reads has changed, but only in the module of the test. Tests
# of documents and the like read this variable, which it watches, too: see explore.ReadsRepository.
TRYPEMA_FILES=$(find ./*.md Makefile docs deploy scripts .github -type f | sort | xargs cksum | cksum)
export TRYPEMA_FILES

# With the race detector each test sleeps a second at its end, unless told otherwise.
export GORACE="${GORACE:-atexit_sleep_ms=0}"

# gotestsum has the race detector so that what it imports is compiled once, for the tests and for it.
#
# Tests that wait run beside those that compute, so more packages than processors are tested at a time. No
# test depends on how fast the machine is; the time-out only ends what would never end.
processors=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
status=0
$GO run $race $GOTESTSUM --format pkgname --format-hide-empty-pkg -- \
	$race $tags -vet=off -p $((2 * processors)) -timeout 60m "$@" || status=$?
exit $status
