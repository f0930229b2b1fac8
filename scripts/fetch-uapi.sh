#!/bin/sh
# Fetches the kernel's uapi headers (linux-libc-dev 7.x of Debian trixie-backports) into .cache/uapi/usr/include, without
# installing anything. Does nothing when they are there. The mirror is the one that this machine's own apt uses.
#
#   scripts/fetch-uapi.sh          FETCH_UAPI_SOURCES=DIR reads apt sources from DIR instead of /etc/apt
set -eu

suite=trixie-backports
package=linux-libc-dev
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
cache=$root/.cache
sources=${FETCH_UAPI_SOURCES:-/etc/apt}

say() { echo "fetch-uapi: $*" >&2; }
die() { say "$@"; exit 1; }

# apt's source entries as lines "URI suite", from both formats. Entries that are commented out or disabled are left out.
entries() {
    for list in "$sources"/sources.list "$sources"/sources.list.d/*.list; do
        [ -r "$list" ] || continue
        sed -e 's/#.*//' -e 's/\[[^]]*\]//' "$list" | awk '$1 == "deb" && NF >= 3 { print $2, $3 }'
    done
    for list in "$sources"/sources.list.d/*.sources; do
        [ -r "$list" ] || continue
        awk '
            function flush(    i, j, nu, ns, u, s) {
                if (tolower(field["enabled"]) !~ /^[ \t]*no[ \t]*$/ && field["types"] ~ /(^|[ \t])deb([ \t]|$)/) {
                    nu = split(field["uris"], u); ns = split(field["suites"], s)
                    for (i = 1; i <= nu; i++) for (j = 1; j <= ns; j++) print u[i], s[j]
                }
                split("", field); key = ""
            }
            /^#/ { next }
            /^[ \t]*$/ { flush(); next }
            /^[ \t]/ { if (key != "") field[key] = field[key] " " $0; next }
            { at = index($0, ":"); key = tolower(substr($0, 1, at - 1)); field[key] = substr($0, at + 1) }
            END { flush() }' "$list"
    done
}

# The mirror of the machine's own release; security mirrors carry no backports.
mirror() {
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    [ -n "$codename" ] || die "this machine does not tell its release (VERSION_CODENAME)"
    entries | awk -v c="$codename" '
        $2 == c { print $1; found = 1; exit }
        index($2, c) == 1 && $2 !~ /security/ && other == "" { other = $1 }
        END { if (!found && other != "") print other }'
}

mkdir -p "$cache"
exec 9>"$cache/uapi.lock"
flock 9

[ -e "$cache/uapi/usr/include/drm/panthor_drm.h" ] && exit 0

uri=$(mirror)
[ -n "$uri" ] || die "no Debian mirror for this machine's release among its apt sources"

apt=$cache/apt
mkdir -p "$apt/lists/partial" "$apt/archives/partial"
: >"$apt/status"
signed=
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r "$keyring" ] && signed="[signed-by=$keyring]"
echo "deb $signed $uri $suite main" >"$apt/sources.list"
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
