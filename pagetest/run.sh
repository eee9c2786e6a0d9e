#!/bin/sh
# Runs the tests of the pages, where there are Chromium and npm, or they can be installed.
cd "$(dirname "$0")" || exit
../scripts/install.sh chromium chromium chromium-browser google-chrome
../scripts/install.sh npm npm
CHROMIUM=${CHROMIUM:-$(command -v chromium || command -v chromium-browser || command -v google-chrome)}
export CHROMIUM
if [ -z "$CHROMIUM" ] || ! command -v npm >/dev/null; then
	echo "The pages are not looked at: that takes Chromium and npm."
	exit 0
fi
npm ci --silent --no-audit --no-fund && exec node --test "$@"
