#!/bin/busybox sh
# shellcheck shell=dash
# The first process of the kernel under qemu, from an initramfs: the machine's files as root, read only, a memory for
# /run, and one command from BENCH_GUEST, the one directory that is writable. tests/bench/emulated.py starts it.
b=/bin/busybox
while read -r module; do
    $b insmod "/$module" || echo "no module $module"
done </modules
$b mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro machine /host
$b mount -t proc proc /host/proc
$b mount -t sysfs sys /host/sys
$b mount -t devtmpfs dev /host/dev
$b mount -t tmpfs run /host/run
$b mount -t 9p -o trans=virtio,version=9p2000.L guest "/host$BENCH_GUEST"
$b chroot /host /bin/sh "$BENCH_GUEST/command"
echo $? >"/host$BENCH_GUEST/status"
$b poweroff -f
