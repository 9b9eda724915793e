#!/bin/bash
# Installs what the lab and the tests need and this machine lacks: Debian packages, .venv, a Consul.
# Needs root or sudo only where packages are missing. What is there is not touched, and not asked about over the
# network, so that a second run takes no time. Names that decide, in the environment:
#   LVSCTL_CONSUL   a Consul to use, instead of the one on PATH or Debian's 1.8.7
#   LVSCTL_PYTHON   a Python (3.11 or newer) for .venv, instead of the first good one on PATH
set -euo pipefail
cd "$(dirname "$0")/../.."
state=$PWD/build/lab
mkdir -p "$state"
# shellcheck source=/dev/null
. tests/lab/debian.sh
# shellcheck source=/dev/null
. tests/lab/packages.sh
exec 9>"$state/lock"
flock 9 # two at once would spoil each other's .venv

# Processors with AMX need a few lines of C under User-Mode Linux; xstate.c says why.
install_xstate() {
    grep -qsw amx_tile /proc/cpuinfo || return 0
    [ "$state/xstate.so" -nt tests/lab/xstate.c ] && return 0
    if ! command -v gcc >/dev/null || [ ! -e /usr/include/elf.h ]; then
        install_packages gcc libc6-dev
    fi
    gcc -O2 -Wall -shared -fPIC -o "$state/xstate.so.new" tests/lab/xstate.c
    mv "$state/xstate.so.new" "$state/xstate.so"
}

good_python() { "$1" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

install_venv() {
    local python
    if ! .venv/bin/python -c '' 2>/dev/null; then
        for python in ${LVSCTL_PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3}; do
            if good_python "$python"; then
                say ".venv from $python"
                rm -rf .venv
                "$python" -m venv .venv
                break
            fi
        done
        [ -x .venv/bin/python ] || fail "no Python 3.11 or newer with venv; name one in LVSCTL_PYTHON"
    fi
    cmp -s pyproject.toml .venv/pyproject.toml && return 0
    say "Python packages into .venv"
    .venv/bin/pip install -q --disable-pip-version-check -e '.[dev]' 9>&- || fail "pip could not install the packages of pyproject.toml"
    cp pyproject.toml .venv/pyproject.toml
}

# Debian bullseye is the last with a Consul.
download_consul() {
    local apt=$state/apt
    download_packages "$apt" bullseye consul || return
    rm -rf "$state/consul.new"
    dpkg-deb -x "$apt"/consul_*.deb "$state/consul.new" || return
    "$state/consul.new/usr/bin/consul" version || return
    rm -rf "$state/consul" "$apt"
    mv "$state/consul.new" "$state/consul"
}

install_consul() {
    if [ -n "${LVSCTL_CONSUL-}" ]; then
        "$LVSCTL_CONSUL" version >/dev/null 2>&1 || fail "LVSCTL_CONSUL is $LVSCTL_CONSUL, which does not run as 'consul version'"
        return
    fi
    command -v consul >/dev/null && return
    [ -x "$state/consul/usr/bin/consul" ] && return
    say "Consul, from Debian bullseye"
    download_consul >"$state/consul.log" 2>&1 9>&- && return
    tail -5 "$state/consul.log" >&2
    fail "could not get Consul from Debian bullseye (see build/lab/consul.log; the suite may have moved to the archive)." \
        "Get any Consul from 1.8 on, and run: make ${1-test} LVSCTL_CONSUL=/path/to/consul"
}

install_packages user-mode-linux ipvsadm kmod iproute2 iptables curl procps util-linux python3 python3-venv debian-archive-keyring
install_xstate
install_venv
install_consul "$@"
