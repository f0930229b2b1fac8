# Reads this machine's own apt sources; to be sourced. APT_SOURCES=DIR reads from DIR instead of /etc/apt.

# Every entry for binary packages as a line "URI SUITE KEYRING", from both formats. Entries that are commented out or disabled
# are left out. KEYRING is - where an entry names no keyring file (none at all, or the key itself).
apt_entries() {
    for list in "${APT_SOURCES:-/etc/apt}"/sources.list "${APT_SOURCES:-/etc/apt}"/sources.list.d/*.list; do
        [ -r "$list" ] || continue
        sed 's/#.*//' "$list" | awk '
            $1 == "deb" {
                keyring = "-"; at = 2
                if ($2 ~ /^\[/) {
                    for (; at <= NF; at++) {
                        option = $at; gsub(/[][]/, "", option)
                        if (option ~ /^signed-by=\//) keyring = substr(option, 11)
                        if ($at ~ /\]$/) { at++; break }
                    }
                }
                if (at + 1 <= NF) print $at, $(at + 1), keyring
            }'
    done
    for list in "${APT_SOURCES:-/etc/apt}"/sources.list.d/*.sources; do
        [ -r "$list" ] || continue
        awk '
            function flush(    i, j, nu, ns, u, s, k) {
                if (tolower(field["enabled"]) !~ /^[ \t]*(no|false|0)[ \t]*$/ && field["types"] ~ /(^|[ \t])deb([ \t]|$)/) {
                    nu = split(field["uris"], u); ns = split(field["suites"], s); split(field["signed-by"], k)
                    for (i = 1; i <= nu; i++) for (j = 1; j <= ns; j++) print u[i], s[j], (k[1] ~ /^\// ? k[1] : "-")
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

# "URI KEYRING" of the mirror of release $1: its main suite, else one of its others. Security mirrors carry no backports.
apt_mirror() {
    apt_entries | awk -v c="$1" '
        $2 == c { print $1, $3; found = 1; exit }
        index($2, c) == 1 && $2 !~ /security/ && other == "" { other = $1 " " $3 }
        END { if (!found && other != "") print other }'
}

# apt's lists in folder $1, a configuration apt.conf among them, for architecture $2 and the suites $3... of the mirror that
# this machine uses. Nothing of the machine's own apt is touched. Fails with a message in $apt_error.
apt_private() {
    apt_folder=$1 apt_architecture=$2
    shift 2
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    [ -n "$codename" ] || { apt_error="this machine does not tell its release (VERSION_CODENAME)"; return 1; }
    mirror=$(apt_mirror "$codename")
    [ -n "$mirror" ] || { apt_error="no Debian mirror for this machine's release among its apt sources"; return 1; }

    mkdir -p "$apt_folder/lists/partial" "$apt_folder/archives/partial"
    : >"$apt_folder/status"
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    signed=
    [ -r "$keyring" ] && signed="[signed-by=$keyring]"
    for suite in "$@"; do
        echo "deb $signed ${mirror% *} $suite main"
    done >"$apt_folder/sources.list"
    # Given as -c it is read after the machine's own apt.conf, whose proxies stay in force.
    cat >"$apt_folder/apt.conf" <<EOF
Dir::Etc::sourcelist "$apt_folder/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State "$apt_folder";
Dir::State::lists "$apt_folder/lists";
Dir::State::status "$apt_folder/status";
Dir::Cache "$apt_folder";
Dir::Cache::archives "$apt_folder/archives";
APT::Architecture "$apt_architecture";
APT::Architectures { "$apt_architecture"; };
APT::Sandbox::User "$(id -un)";
APT::Get::List-Cleanup "false";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
// Hooks of the machine are about the machine's own cache.
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
EOF
}
