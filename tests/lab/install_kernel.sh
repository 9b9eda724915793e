#!/bin/bash
# install_kernel.sh NAME RELEASE: the User-Mode Linux of that Debian release into build/lab/kernels/NAME. It holds:
#   linux.uml   the kernel
#   modules/    what belongs under /lib/modules/<version>
#   lib/        the release's own C library and its loader: a later one's kernel would not start with this machine's
# What is there is not touched. Needs no root. The last line of an error says why.
set -euo pipefail
cd "$(dirname "$0")/../.."
name=$1 release=$2
state=$PWD/build/lab
target=$state/kernels/$name
mkdir -p "$state/kernels"
# shellcheck source=/dev/null
. tests/lab/debian.sh
exec 9>"$state/kernels/lock"
flock 9

# The loader's path inside a program has a fixed length; this one is as long, and relative: kernels.py starts the
# program in its own directory. Starting it as the loader's argument would not do: User-Mode Linux takes what lies
# behind its own image, and starts itself anew through /proc/self/exe.
loader=/lib64/ld-linux-x86-64.so.2
own_loader=.//lib/ld-linux-x86-64.so.2

unpack() {
    local from=$1 modules=("$1/usr/lib/uml/modules"/*)
    [ ${#modules[@]} = 1 ] || { echo "E: more than one set of modules: ${modules[*]}" >&2; return 1; }
    mv "${modules[0]}" "$target.new/modules" || return
    mkdir "$target.new/lib" || return
    # Some releases have it in /lib, others in /usr/lib.
    find "$from" -path '*/lib/x86_64-linux-gnu/*' -name '*.so.*' ! -type d -exec cp -L -t "$target.new/lib" {} + || return
    LC_ALL=C sed "s|$loader|$own_loader|" "$from/usr/bin/linux.uml" >"$target.new/linux.uml" || return
    chmod +x "$target.new/linux.uml" || return
    env -C "$target.new" LD_LIBRARY_PATH=lib ./linux.uml --version || return
    rm -rf "$from"
    # 5.10's hostfs opens a file that lies under an overlay by a wrong name: where the mount's own name belongs it reads
    # the overlay's count of layers, the byte 2. Here, where the program runs, that name leads where it should have.
    [ "$name" != uml-5.10 ] || ln -s / "$target.new/"$'\002'
}

install_kernel() {
    download_packages "$state/kernels/apt" "$release" user-mode-linux libc6 || return
    rm -rf "$target.new"
    mkdir "$target.new" || return
    local package
    for package in "$state"/kernels/apt/*.deb; do
        dpkg-deb -x "$package" "$target.new/deb" || return
    done
    unpack "$target.new/deb" || return
    rm -rf "$state/kernels/apt" "$target"
    mv "$target.new" "$target"
}

[ ! -x "$target/linux.uml" ] || exit 0
echo "install: $name, from Debian $release" >&2
install_kernel >"$target.log" 2>&1 9>&- && exit
tail -5 "$target.log" >&2
reason=$(grep -a '^E: ' "$target.log" | tail -1)
echo "install: no $name from Debian $release: ${reason:-see build/lab/kernels/$name.log}" >&2
exit 1
