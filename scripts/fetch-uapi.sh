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

codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
[ -n "$codename" ] || die "this machine does not tell its release (VERSION_CODENAME)"
mirror=$(apt_mirror "$codename")
[ -n "$mirror" ] || die "no Debian mirror for this machine's release among its apt sources"

apt=$cache/apt
mkdir -p "$apt/lists/partial" "$apt/archives/partial"
: >"$apt/status"
signed=
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r "$keyring" ] && signed="[signed-by=$keyring]"
echo "deb $signed ${mirror% *} $suite main" >"$apt/sources.list"
# Given as -c it is read after the machine's own apt.conf, whose proxies stay in force.
cat >"$apt/apt.conf" <<EOF
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State "$apt";
Dir::State::lists "$apt/lists";
Dir::State::status "$apt/status";
Dir::Cache "$apt";
Dir::Cache::archives "$apt/archives";
APT::Sandbox::User "$(id -un)";
APT::Get::List-Cleanup "false";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
// Hooks of the machine are about the machine's own cache.
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
EOF

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
