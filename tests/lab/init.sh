#!/bin/sh
# Runs one command inside the lab's kernel. tests/lab/kernel.py starts it and names, in the environment:
#   LAB_RUN       a directory on the host: `command` (shell text to run) comes in, `status` goes out
#   LAB_CHECKOUT  the working tree: the one place whose writes reach the host
#   LAB_KERNEL    uml: we are process 1 of a User-Mode Linux; host: in fresh namespaces of the host's kernel
#   LAB_MODULES   uml: where that kernel's modules are
#   LAB_TTY       yes: a person types; no: output only
set -eu
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH

finish() {
    echo "$1" >"$LAB_RUN/status.new"
    mv "$LAB_RUN/status.new" "$LAB_RUN/status"
    [ "$LAB_KERNEL" = uml ] || exit "$1"
    sync
    echo o >/proc/sysrq-trigger
    while :; do sleep 1; done # process 1 must not end before the power does
}

if [ "$LAB_KERNEL" = uml ] && [ "${1-}" != inside ]; then
    # The root is the host's own file system, writable. A tmpfs laid over it catches every write, so that
    # a test may put files, sockets and FIFOs where it likes and the host never sees them.
    mount -t proc proc /proc
    mount -t tmpfs -o mode=755 run /run
    mkdir /run/upper /run/work /run/root
    insmod "$LAB_MODULES/kernel/fs/overlayfs/overlay.ko"
    mount -t overlay -o lowerdir=/,upperdir=/run/upper,workdir=/run/work root /run/root
    cd /run/root
    mkdir -p "lib/modules/$(uname -r)"
    mount --bind "$LAB_MODULES" "lib/modules/$(uname -r)"
    mount --bind "$LAB_CHECKOUT" "./$LAB_CHECKOUT"
    mount -t proc proc proc
    mount -t sysfs sys sys
    mount --move /dev dev
    mount -t tmpfs -o mode=755 run run
    mount --move . /
    exec chroot . "$LAB_CHECKOUT/tests/lab/init.sh" inside
fi

if [ "$LAB_KERNEL" = uml ]; then
    mkdir -p /dev/pts /dev/shm
    mount -t devpts -o ptmxmode=666 devpts /dev/pts
    mount -t tmpfs shm /dev/shm
    exec </dev/null >/dev/tty1 2>&1
    stty -onlcr -echo <&1
    modprobe -a ip_vs || finish 126
else
    mount -t tmpfs -o mode=755 run /run
    mount -t sysfs sys /sys || true # this network namespace's /sys/class/net; some containers forbid it
fi
hostname lab
ip link set lo up
mkdir -p /run/netns /run/lock
# As the first `ip netns add` would: done later, it hides the namespaces that are mounted there already.
mount --bind /run/netns /run/netns
mount --make-shared /run/netns

status=0
if [ "$LAB_TTY" = yes ] && [ "$LAB_KERNEL" = uml ]; then
    stty sane <&1
    setsid --ctty --wait sh "$LAB_RUN/command" </dev/tty1 || status=$?
else
    sh "$LAB_RUN/command" || status=$?
fi
finish "$status"
