#!/bin/sh
# fuzz.sh TIME MODULE… Fuzzes with each target of the modules for TIME, one after the other, and says which
# and how many are left. What fails is kept under testdata/fuzz of its package, where the tests try it from
# then on. An interrupt ends it.
set -eu

time=$1
shift
trap 'exit 130' INT TERM
targets=$(for module; do
	${GO:-go} test -list '^Fuzz' "$module/..." | awk -v module="$module" '
		/^Fuzz/ { names[n++] = $1 }
		$1 == "ok" { for (i = 0; i < n; i++) print $2, names[i]; n = 0 }'
done)
left=$(printf '%s\n' "$targets" | wc -l)
failed=
while read -r package name; do
	echo "== $name of $package, for $time; $((left - 1)) more after it"
	${GO:-go} test -run '^$' -fuzz "^$name\$" -fuzztime "$time" -fuzzminimizetime 5s "$package" || failed="$failed $name"
	left=$((left - 1))
done <<EOF
$targets
EOF
[ -z "$failed" ] || { echo "failed:$failed"; exit 1; }
