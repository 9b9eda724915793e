# shellcheck shell=bash
# Sourced by install.sh and install_kernel.sh: packages of any Debian release, whatever this machine runs.

# Prints where this machine gets Debian from: the base address of its main archive.
debian_archive() {
    local codename
    # shellcheck source=/dev/null
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME-}")
    # shellcheck disable=SC2016 # apt's own words in the format
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(CODENAME) $(COMPONENT)' 'Identifier: Packages' |
        awk -v wanted="$codename" '$NF == "main" && ($2 == wanted || $3 == wanted) { print $1; exit }'
}

# download_packages DIRECTORY RELEASE PACKAGE...: puts each .deb into DIRECTORY, which it empties first.
# A configuration of apt's own, so that this machine's stays as it is.
download_packages() {
    local apt=$1 release=$2 archive
    shift 2
    local own=(
        -o "Dir::Etc::SourceList=/dev/null" -o "Dir::Etc::SourceParts=$apt/sources/" -o "Dir::State::Lists=$apt/lists"
        -o "Dir::Cache=$apt/cache" -o "APT::Sandbox::User=$(id -un)" -o "Acquire::Languages=none" -q
    )
    archive=$(debian_archive)
    [ -n "$archive" ] || { echo "E: no Debian archive among this machine's sources" >&2; return 1; }
    rm -rf "$apt"
    mkdir -p "$apt/sources" "$apt/lists/partial" "$apt/cache/archives/partial" || return
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive $release main" >"$apt/sources/$release.list"
    apt-get "${own[@]}" update || return
    # The release is named: what this machine has installed may be newer, and apt would rather have that.
    (cd "$apt" && apt-get "${own[@]}" download "${@/%//$release}")
}
