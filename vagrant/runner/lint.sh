#!/bin/bash
# lint.sh: every shell script of the checkout by shellcheck, and the Vagrantfile by Ruby and by `vagrant validate`, for
# each profile and both providers. VirtualBox need not be here: Vagrant is told not to ask for it.
set -euo pipefail
cd "$(dirname "$0")/../.."
state=$PWD/build/vagrant
mkdir -p "$state/home"
# shellcheck source=/dev/null
. tests/lab/packages.sh
exec 9>"$state/install.lock"
flock 9
install_packages shellcheck ruby vagrant vagrant-libvirt
flock -u 9

# Programs are told by their first line, for not all have an ending; what is sourced has one, and no such line.
find . \( -name build -o -name '.?*' ! -name .ci \) -prune -o -type f -exec awk \
    'FNR == 1 && (/^#!.*sh$/ || FILENAME ~ /\.sh$/) { printf "%s%c", FILENAME, 0 } { nextfile }' {} + |
    xargs -0 shellcheck
ruby -c vagrant/Vagrantfile >/dev/null

export VAGRANT_HOME=$state/home VAGRANT_CHECKPOINT_DISABLE=1
checking=() # all at once: each takes a second or two of a processor, most of it Ruby's start
for profile in mini full; do
    (cd vagrant && LAB_PROFILE=$profile VAGRANT_DEFAULT_PROVIDER=libvirt vagrant validate >/dev/null) &
    checking+=($!)
    (cd vagrant && LAB_PROFILE=$profile VAGRANT_DEFAULT_PROVIDER=virtualbox vagrant validate --ignore-provider >/dev/null) &
    checking+=($!)
done
for each in "${checking[@]}"; do
    wait "$each"
done
