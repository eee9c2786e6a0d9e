#!/bin/sh
# install.sh PACKAGE PROGRAM…
# Sees to it that one of the programs is there, by the package, where that can be done without asking: as root, or by a sudo that
# wants no password, on a system with apt-get. Elsewhere it does nothing; what needs the program then says so.

package=$1
shift
for program; do
	command -v "$program" >/dev/null && exit 0
done
command -v apt-get >/dev/null || exit 0

as_root=
if [ "$(id -u)" -ne 0 ]; then
	sudo -n true 2>/dev/null || exit 0
	as_root='sudo -n'
fi

echo "Installing $package, which the tests need."
{
	$as_root apt-get -qq update &&
	$as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$package" >/dev/null
} || {
	echo "It could not be installed."
	exit 0
}

# The package of a service may have started it, which nobody has asked for.
if command -v service >/dev/null; then
	$as_root service "$package" stop >/dev/null 2>&1
fi
exit 0
