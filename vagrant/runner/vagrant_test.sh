#!/bin/bash
# vagrant_test.sh PROFILE [STORY...]: a real `vagrant up` with libvirt, by emulation, on a machine without systemd, KVM or
# a download; then the stories, all without names; `none` for none. Needs root. It has a libvirtd of its own, in
# namespaces of its own: processes, network, and mounts, so that this machine's libvirt, bridges and firewall are never
# touched, and nothing is left when this script ends, however it ends.
set -euo pipefail
cd "$(dirname "$0")/../.."
checkout=$PWD state=$PWD/build/vagrant
python=${PYTHON:-$checkout/.venv/bin/python}
profile=$1
shift

if [ -z "${LAB_INSIDE-}" ]; then
    box=$("$python" -m vagrant.runner disk)
    vagrant/share.sh "$python" # inside there is no network to get anything from
    root=()
    [ "$(id -u)" = 0 ] || root=(sudo)
    exec "${root[@]}" unshare --mount --net --pid --fork --kill-child --mount-proc \
        env LAB_INSIDE="$box" PYTHON="$python" PATH="$PATH:/usr/sbin:/sbin" "$0" "$profile" "$@"
fi

own=$state/libvirt
rm -rf "$own"
mkdir -p "$own"/{etc,lib,run,cache,log,images}

start_libvirt() {
    # Bridges show under /sys of the network namespace that mounts it.
    mount -t sysfs sysfs /sys
    ip link set lo up
    cp -r /etc/libvirt/. "$own/etc"
    rm -rf "$own/etc/qemu/networks" # this machine's networks are none of ours
    cat >"$own/etc/qemu.conf" <<'END'
user = "root"
group = "root"
security_driver = "none"
stdio_handler = "file"
remember_owner = 0
namespaces = []
cgroup_controllers = []
END
    mkdir -p /etc/libvirt /var/lib/libvirt /run/libvirt /var/cache/libvirt /var/log/libvirt
    mount --bind "$own/etc" /etc/libvirt
    mount --bind "$own/lib" /var/lib/libvirt
    mount --bind "$own/run" /run/libvirt
    mount --bind "$own/cache" /var/cache/libvirt
    mount --bind "$own/log" /var/log/libvirt
    mkdir -p /var/lib/libvirt/{images,qemu,dnsmasq,network,boot}
    libvirtd -d -p "$own/libvirtd.pid"
    local try
    for try in {1..50}; do
        virsh -q -c qemu:///system list >/dev/null 2>"$own/virsh.log" && return
        sleep 0.2
    done
    cat "$own/virsh.log" >&2
    echo "vagrant-test: libvirtd does not answer after $try tries" >&2
    return 1
}

# The box as Vagrant wants one for libvirt. Its key is the box's own, so that no well-known one opens a guest.
add_box() {
    local box=$1 name=$2
    mkdir "$own/box"
    ln -s "$box/box.qcow2" "$own/box/box.img"
    echo '{"provider": "libvirt", "format": "qcow2", "virtual_size": 8}' >"$own/box/metadata.json"
    echo "Vagrant.configure('2') { |config| config.ssh.private_key_path = '$box/key' }" >"$own/box/Vagrantfile"
    tar -ch -C "$own/box" -f "$own/lab.box" metadata.json Vagrantfile box.img
    vagrant box add --force --provider libvirt --name "$name" "$own/lab.box"
    rm -r "$own/box" "$own/lab.box"
}

box=$LAB_INSIDE
export VAGRANT_HOME=$state/home VAGRANT_DOTFILE_PATH=$own/dotfile VAGRANT_DEFAULT_PROVIDER=libvirt
export VAGRANT_CHECKPOINT_DISABLE=1 LIBVIRT_DEFAULT_URI=qemu:///system
export LAB_PROFILE=$profile LAB_BOX=lvsctl-lab-${box##*/} LAB_INSERT_KEY=0
export LAB_LIBVIRT_DRIVER=qemu LAB_LIBVIRT_CPU=qemu64 LAB_LIBVIRT_EMULATOR=$checkout/vagrant/runner/emulator
start_libvirt
vagrant box list | grep -q "^$LAB_BOX " || add_box "$box" "$LAB_BOX"
cd vagrant
began=$SECONDS
vagrant up --provider=libvirt
echo "vagrant-test: up and verified in $((SECONDS - began)) s"
[ "${1-}" != none ] || exit 0
[ $# -gt 0 ] || set -- all
export LAB_SSH_CONFIG=$state/ssh-config LAB_POWER=$checkout/vagrant/power
./story "$@"
echo "vagrant-test: the stories took $((SECONDS - began)) s with all that came before"
vagrant destroy --force
