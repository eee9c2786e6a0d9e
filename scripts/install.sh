#!/bin/sh
# install.sh PACKAGE… Installs packages where that needs no question: as root, or by a sudo that wants no
# password, on a system with apt-get. Elsewhere it says what to install.

as_root=
if [ "$(id -u)" -ne 0 ]; then
	as_root='sudo -n'
fi
if ! command -v apt-get >/dev/null || ! $as_root true 2>/dev/null; then
	echo "Please install $*. Without them the tests that run them fail; with INSTALL=0 they are skipped."
	exit 1
fi

echo "Installing $*."
{
	$as_root apt-get -qq update &&
	$as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@" >/dev/null
} || exit 1

# The package of a service starts it; the tests start servers of their own.
for package; do
	[ "$package" != redis-server ] || ! command -v service >/dev/null || $as_root service redis-server stop >/dev/null 2>&1
done
exit 0
