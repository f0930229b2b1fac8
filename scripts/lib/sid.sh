# Mesa's Vulkan drivers of Debian sid beside those of a root with trixie; to be sourced, behind apt.sh, by a script with die and quietly.

# The drivers alone are unpacked, with the one library of theirs that trixie lacks.
sid_packages="mesa-vulkan-drivers libdisplay-info3"

# Unpacks them for Debian's architecture $1, whose libraries are in folders named $2, at $3 in the root $4. Lists are kept in $5.
sid_unpack() {
    architecture=$1 triplet=$2 place=$3 folder=$4$3 lists=$5/sid-$1
    apt_private "$lists" "$architecture" sid || die "$apt_error"
    quietly apt-get -c "$lists/apt.conf" -o Acquire::Check-Valid-Until=false -q update
    rm -rf "$folder" && mkdir -p "$folder"
    # shellcheck disable=SC2086 # a list of words
    (cd "$folder" && quietly apt-get -c "$lists/apt.conf" -q download $sid_packages)
    for package in "$folder"/*.deb; do dpkg -x "$package" "$folder"; done
    rm "$folder"/*.deb
    sed -i "s|\"library_path\": *\"|&$place/usr/lib/$triplet/|" "$folder"/usr/share/vulkan/icd.d/*.json
}
