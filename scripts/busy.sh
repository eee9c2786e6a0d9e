#!/bin/sh
# busy.sh TIMES COMMAND… Runs a command so many times, one after the other, while two busy loops for each
# processor run beside it, and says which runs failed. What passes only on an idle machine fails here.
set -eu

times=$1
shift
loops=
i=$((2 * $(getconf _NPROCESSORS_ONLN)))
while [ $i -gt 0 ]; do
	sh -c 'while :; do :; done' &
	loops="$loops $!"
	i=$((i - 1))
done
trap 'kill $loops 2>/dev/null' EXIT
trap 'exit 130' INT TERM

failed=
i=1
while [ $i -le "$times" ]; do
	echo "== run $i of $times on a busy machine"
	"$@" || failed="$failed $i"
	i=$((i + 1))
done
if [ -n "$failed" ]; then
	echo "Of $times runs these failed:$failed."
	exit 1
fi
echo "All $times runs passed."
