#!/bin/sh
# Sees to it that there is a redis-server for the tests, where that can be done without asking: as root, or by a sudo that
# wants no password, on a system with apt-get. Elsewhere it does nothing; the tests then say what they need.

if [ -n "$REDIS_SERVER" ] || command -v redis-server >/dev/null || command -v valkey-server >/dev/null; then
	exit 0
fi
command -v apt-get >/dev/null || exit 0

as_root=
if [ "$(id -u)" -ne 0 ]; then
	sudo -n true 2>/dev/null || exit 0
	as_root='sudo -n'
fi

echo "Installing redis-server, which the tests start servers of their own with."
{
	$as_root apt-get -qq update &&
	$as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends redis-server >/dev/null
} || {
	echo "It could not be installed."
	exit 0
}

# The package may have started a server, which nobody has asked for.
if command -v service >/dev/null; then
	$as_root service redis-server stop >/dev/null 2>&1
fi
exit 0
