# shellcheck shell=bash disable=SC2154
# Sourced by the install scripts, which have set `state` to a directory of theirs: Debian packages for this machine,
# those that it lacks only. What is there is not touched, and not asked about over the network.

say() { echo "install: $*" >&2; }
fail() {
    say "$@"
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        say "this needs root, and there is no sudo: $*"
        return 1
    fi
}

has_package() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

install_packages() {
    local missing=() package
    for package in "$@"; do
        has_package "$package" || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || { say "this machine has no apt-get; install by hand: ${missing[*]}"; return 1; }
    say "packages: ${missing[*]}"
    as_root apt-get -q -o DPkg::Lock::Timeout=300 update >"$state/apt.log" 2>&1 9>&- ||
        say "apt-get update had problems, see $state/apt.log" # an outdated list may still do
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 \
        install --no-install-recommends "${missing[@]}" >>"$state/apt.log" 2>&1 </dev/null 9>&- || {
        tail -20 "$state/apt.log" >&2
        say "apt-get could not install ${missing[*]}, see $state/apt.log"
        return 1
    }
}
