#!/bin/sh
# Fetches the kernel's uapi headers (linux-libc-dev 7.x of Debian trixie-backports) into .cache/uapi/usr/include, without
# installing anything. Does nothing when they are there. The mirror is the one that this machine's own apt uses.
#
#   scripts/fetch-uapi.sh          APT_SOURCES=DIR reads apt sources from DIR instead of /etc/apt
set -eu

suite=trixie-backports
package=linux-libc-dev
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
cache=$root/.cache
. "$root/scripts/lib/apt.sh"

say() { echo "fetch-uapi: $*" >&2; }
die() { say "$@"; exit 1; }

mkdir -p "$cache"
exec 9>"$cache/uapi.lock"
flock 9

[ -e "$cache/uapi/usr/include/drm/panthor_drm.h" ] && exit 0

apt=$cache/apt
apt_private "$apt" "$(dpkg --print-architecture)" "$suite" || die "$apt_error"
apt-get -c "$apt/apt.conf" -qq update || die "cannot read $suite from the machine's mirror"
version=$(apt-cache -c "$apt/apt.conf" madison "$package" | awk '$3 ~ /^7\./ { print $3; exit }')
[ -n "$version" ] || die "$suite has no $package 7.x"

say "unpacking $package $version"
work=$(mktemp -d "$cache/uapi.XXXXXX")
trap 'rm -rf "$work"' EXIT
(cd "$work" && apt-get -c "$apt/apt.conf" -qq download "$package=$version")
dpkg -x "$work/$package"_*.deb "$work/root"
chmod 755 "$work/root"
[ -e "$work/root/usr/include/drm/panthor_drm.h" ] || die "$package $version has no drm/panthor_drm.h"
rm -rf "$cache/uapi"
mv "$work/root" "$cache/uapi"
