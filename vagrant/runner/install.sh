#!/bin/bash
# install.sh [vagrant]: what `make lab-test` needs beyond tests/lab/install.sh, or `make vagrant-test`. Only what is missing.
set -euo pipefail
cd "$(dirname "$0")/../.."
state=$PWD/build/vagrant
mkdir -p "$state"
# shellcheck source=/dev/null
. tests/lab/packages.sh
exec 9>"$state/install.lock"
flock 9

install_packages debootstrap e2fsprogs fdisk grub-pc-bin grub-common openssh-client qemu-system-x86 qemu-utils rsync
if [ "${1-}" = vagrant ]; then
    install_packages vagrant vagrant-libvirt libvirt-daemon-system libvirt-clients dnsmasq-base iproute2
fi
