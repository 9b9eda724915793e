#!/bin/bash
# box.sh DIRECTORY: a Debian 12 disk for the lab's guests into DIRECTORY, by debootstrap. Needs root, but neither KVM nor
# loop devices nor mounts: the file system is made from a tree, and GRUB is written by dd. DIRECTORY then holds:
#   box.qcow2     the disk: 8 GB, of which little is used, partitioned, with BIOS boot, as Vagrant's boxes are
#   key, key.pub  what ssh asks for as user vagrant, who may become root by sudo without a password
#   known_hosts   the guests' host key, the same in all of them
# It has what the roles need, so that no guest installs anything: BOX_PACKAGES names more or fewer of Debian's.
#   BOX_PACKAGES  Debian packages beyond what makes it a Vagrant box
#   BOX_CONSUL    a Consul to put at /usr/bin/consul; empty for none
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin LC_ALL=C
target=$(realpath "$1")
here=$(realpath "$(dirname "$0")")
cd "$here/../.."
# shellcheck source=/dev/null
. tests/lab/debian.sh

# What debian/bookworm64 has too, or Vagrant needs: a kernel, systemd, ifupdown with DHCP, ssh, sudo, rsync and Python.
base=(
    linux-image-cloud-amd64 initramfs-tools zstd systemd systemd-sysv dbus udev kmod ifupdown isc-dhcp-client iproute2
    openssh-server sudo rsync python3 ca-certificates procps iputils-ping less nano
)
read -ra extra <<<"${BOX_PACKAGES-ipvsadm nginx-light curl conntrack iptables tcpdump iputils-arping netcat-openbsd}"

make_tree() {
    local tree=$1 include
    include=$(IFS=,; echo "${base[*]} ${extra[*]}" | tr ' ' ',')
    debootstrap --variant=minbase --include="$include" bookworm "$tree" "$(debian_archive)"
}

# As Vagrant expects a box: eth0 by DHCP, names eth0, eth1 and so on, user vagrant.
configure() {
    local tree=$1
    echo lab >"$tree/etc/hostname"
    printf '127.0.0.1 localhost\n127.0.1.1 lab\n' >"$tree/etc/hosts"
    echo '/dev/vda1 / ext4 noatime,errors=remount-ro 0 1' >"$tree/etc/fstab"
    printf 'auto lo eth0\niface lo inet loopback\niface eth0 inet dhcp\nsource /etc/network/interfaces.d/*\n' \
        >"$tree/etc/network/interfaces"
    chroot "$tree" useradd --create-home --shell /bin/bash vagrant
    echo 'vagrant ALL=(ALL) NOPASSWD: ALL' >"$tree/etc/sudoers.d/vagrant"
    install -d -m 700 -o 1000 -g 1000 "$tree/home/vagrant/.ssh"
    install -m 600 -o 1000 -g 1000 "$target/key.pub" "$tree/home/vagrant/.ssh/authorized_keys"
    printf 'UseDNS no\nMaxSessions 50\nGSSAPIAuthentication no\nPasswordAuthentication no\n' >"$tree/etc/ssh/sshd_config.d/lab.conf"
    rm -f "$tree"/etc/ssh/ssh_host_*
    ssh-keygen -q -t ed25519 -N '' -C lab -f "$tree/etc/ssh/ssh_host_ed25519_key"
    { printf 'lab '; cat "$tree/etc/ssh/ssh_host_ed25519_key.pub"; } >"$target/known_hosts"
    # An emulated processor has better things to do than these. nginx and others start when a role wants them.
    chroot "$tree" systemctl mask apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer e2scrub_reap.service \
        fstrim.timer dpkg-db-backup.timer systemd-pstore.service systemd-timesyncd.service getty@tty1.service
    [ ! -e "$tree/lib/systemd/system/nginx.service" ] || chroot "$tree" systemctl disable nginx.service
    if [ -n "${BOX_CONSUL-}" ]; then
        install -m 755 "$BOX_CONSUL" "$tree/usr/bin/consul"
    fi
    # Ten guests that boot at once on two emulated processors take longer than systemd's 90 s.
    mkdir -p "$tree/etc/systemd/system.conf.d"
    printf '[Manager]\nDefaultTimeoutStartSec=300s\nDefaultDeviceTimeoutSec=300s\n' >"$tree/etc/systemd/system.conf.d/lab.conf"
    # Only what finds the disk: it is unpacked by an emulated processor at each boot.
    printf 'MODULES=list\nCOMPRESS=zstd\n' >"$tree/etc/initramfs-tools/conf.d/lab"
    printf '%s\n' virtio_pci virtio_blk ext4 >>"$tree/etc/initramfs-tools/modules"
    chroot "$tree" update-initramfs -u
    chroot "$tree" systemctl set-default multi-user.target
    rm -rf "$tree"/var/cache/apt/* "$tree"/var/lib/apt/lists/* "$tree/etc/resolv.conf"
    : >"$tree/etc/machine-id" # each guest makes its own
}

# A disk from the tree: one partition from the first MB on, GRUB between its table and that.
make_disk() {
    local tree=$1 disk=$2 megabytes=8192
    truncate -s "${megabytes}M" "$disk"
    mke2fs -q -t ext4 -d "$tree" -L lab -E offset=1048576 "$disk" $((megabytes - 1))M
    echo 'start=2048, type=83, bootable' | sfdisk -q "$disk"
    cat >"$target/grub.cfg" <<'END'
linux (hd0,msdos1)/vmlinuz root=/dev/vda1 ro quiet console=ttyS0 net.ifnames=0 biosdevname=0 mitigations=off
initrd (hd0,msdos1)/initrd.img
boot
END
    grub-mkimage -O i386-pc -p '(hd0,msdos1)/boot/grub' -c "$target/grub.cfg" -o "$target/core.img" biosdisk part_msdos ext2 linux
    dd status=none conv=notrunc if=/usr/lib/grub/i386-pc/boot.img of="$disk" bs=440 count=1
    dd status=none conv=notrunc if="$target/core.img" of="$disk" bs=512 seek=1
    rm "$target/grub.cfg" "$target/core.img"
}

mkdir -p "$target"
[ -e "$target/key" ] || ssh-keygen -q -t ed25519 -N '' -C lvsctl-lab -f "$target/key"
rm -rf "$target/tree" "$target/disk"
make_tree "$target/tree"
configure "$target/tree"
make_disk "$target/tree" "$target/disk"
qemu-img convert -O qcow2 "$target/disk" "$target/box.qcow2.new"
rm -rf "$target/tree" "$target/disk"
[ -z "${SUDO_UID-}" ] || chown -R "$SUDO_UID" "$target"
mv "$target/box.qcow2.new" "$target/box.qcow2"
