#!/bin/bash
# Installs what `make bench` needs beyond tests/lab/install.sh, builds the C program, and fetches the real kernel.
# What is there is not touched. Without gcc or keepalived there is no benchmark; without qemu or its kernel one line of
# the table says that it was not run, and build/bench/emulated/why says why.
set -euo pipefail
cd "$(dirname "$0")/../.."
state=$PWD/build/bench
mkdir -p "$state"
# shellcheck source=/dev/null
. tests/lab/packages.sh
exec 9>"$state/lock"
flock 9

build_baseline() {
    [ "$state/baseline" -nt tests/bench/baseline.c ] && return 0
    gcc -O2 -Wall -Wextra -Werror -o "$state/baseline.new" tests/bench/baseline.c
    mv "$state/baseline.new" "$state/baseline"
}

# Debian's own kernel and a busybox, unpacked and not installed, and an initramfs that finds the machine's files by 9p.
# Prints why it could not be done.
fetch_kernel() {
    local place=$state/emulated.new package version module
    rm -rf "$place" "$state/emulated"
    mkdir -p "$place/deb" "$place/tree" "$place/root/bin" "$place/root/host"
    package=$(apt-cache depends linux-image-amd64 2>/dev/null | awk '$1 == "Depends:" && /linux-image-/ { print $2; exit }')
    [ -n "$package" ] || { echo "no package linux-image-amd64 for this machine"; return 1; }
    say "a kernel for qemu: $package"
    (cd "$place/deb" && apt-get -q -o "APT::Sandbox::User=$(id -un)" download "$package" busybox-static) \
        >"$state/kernel.log" 2>&1 9>&- || { echo "apt-get could not download $package, see build/bench/kernel.log"; return 1; }
    dpkg-deb --fsys-tarfile "$place"/deb/linux-image-*.deb |
        tar -x -C "$place/tree" --wildcards './boot/vmlinuz-*' './lib/modules/*/modules.*' \
            './lib/modules/*/kernel/net/*' './lib/modules/*/kernel/fs/*' './lib/modules/*/kernel/lib/*' \
            './lib/modules/*/kernel/crypto/*' './lib/modules/*/kernel/drivers/virtio/*' || return
    dpkg-deb -x "$place"/deb/busybox-static_*.deb "$place/tree" || return
    version=$(basename "$place"/tree/lib/modules/*)
    PATH=$PATH:/usr/sbin:/sbin
    depmod -b "$place/tree" "$version" || { echo "depmod failed"; return 1; }
    for module in virtio_pci 9pnet_virtio 9p ip_vs ip_vs_wlc; do
        modprobe -d "$place/tree" -S "$version" --show-depends "$module" || { echo "no module $module"; return 1; }
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' >"$place/modules" || return
    while read -r module; do
        cp "$module" "$place/root/" && basename "$module" >>"$place/root/modules" || return
    done <"$place/modules"
    cp "$place/tree/bin/busybox" "$place/root/bin/" && cp tests/bench/emulated_init.sh "$place/root/init" || return
    mv "$place/tree/boot/vmlinuz-$version" "$place/vmlinuz" || return
    (cd "$place/root" && find . | bin/busybox cpio -o -H newc 2>>"$state/kernel.log") >"$place/initramfs" || return
    echo "$version" >"$place/version"
    rm -rf "$place/deb" "$place/tree" "$place/root" "$place/modules"
    mv "$place" "$state/emulated"
}

install_emulated() {
    local why=""
    [ "$state/emulated/initramfs" -nt tests/bench/emulated_init.sh ] && [ -e "$state/emulated/vmlinuz" ] &&
        has_package qemu-system-x86 && return 0
    if [ "$(uname -m)" != x86_64 ]; then
        why="only on x86_64"
    elif ! install_packages qemu-system-x86 kmod; then
        why="qemu-system-x86 could not be installed"
    else
        why=$(fetch_kernel) && return 0
    fi
    say "no real kernel under qemu: ${why:-see build/bench/kernel.log}"
    mkdir -p "$state/emulated"
    echo "${why:-its kernel could not be unpacked}" >"$state/emulated/why"
}

if [ "${1-}" = keepalived ]; then # all that `make compare` needs
    install_packages keepalived
    exit
fi
install_packages gcc libc6-dev linux-libc-dev keepalived
build_baseline
install_emulated
