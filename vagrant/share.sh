#!/bin/bash
# share.sh [PYTHON]: makes build/vagrant/share, which every guest has as /lab: vagrant/provision and vagrant/files,
# topology.json (of LAB_TOPOLOGY, else of topology.yaml), and wheels/: lvsctl built from this checkout, and all it needs,
# for the guests' Python 3.11 of Debian 12 and not for this machine's. PYTHON (else .venv's, else python3) needs pip and
# PyYAML, and gets an environment of its own under build/vagrant where it lacks them. What is up to date is not made
# anew, and then nothing is asked of the network.
set -euo pipefail
cd "$(dirname "$0")/.."
state=$PWD/build/vagrant
share=$state/share
mkdir -p "$share/wheels" "$state/wheels"
exec 9>"$state/share.lock"
flock 9

say() { echo "share: $*" >&2; }

find_python() {
    local python
    for python in "$@" .venv/bin/python "$state/python/bin/python"; do
        if "$python" -c 'import pip, yaml' 2>/dev/null; then
            echo "$python"
            return
        fi
    done
    say "a Python with PyYAML, into build/vagrant/python"
    rm -rf "$state/python"
    python3 -m venv "$state/python" || return
    "$state/python/bin/pip" install -q --disable-pip-version-check pyyaml >&2 || return
    echo "$state/python/bin/python"
}

# The dependencies, which change with pyproject.toml only; one without a wheel on PyPI gets it here.
fetch_wheels() {
    local python=$1
    cmp -s pyproject.toml "$state/wheels/pyproject.toml" && return 0
    say "wheels of what lvsctl needs"
    rm -rf "$state/wheels"
    mkdir -p "$state/wheels"
    local requirements
    mapfile -t requirements < <("$python" -c '
import tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
print(*project["dependencies"], *project["optional-dependencies"]["http2"], sep="\n")')
    "$python" -m pip download -q --disable-pip-version-check --dest "$state/wheels" --only-binary :all: \
        --implementation cp --python-version 3.11 --abi cp311 --abi abi3 --abi none \
        --platform manylinux_2_36_x86_64 --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 \
        --platform manylinux2014_x86_64 --platform manylinux_2_5_x86_64 --platform manylinux1_x86_64 --platform any \
        "${requirements[@]}" || return
    cp pyproject.toml "$state/wheels/pyproject.toml"
}

# lvsctl itself. A fixed time makes the same sources the same wheel, which provisioning then leaves alone.
build_wheel() {
    local python=$1 source=$state/source sources
    sources=$(find lvsctl netlink pyproject.toml README.md LICENSE -type f ! -name '*.pyc' -print0 |
        sort -z | xargs -0 cksum | cksum)
    [ "$(cat "$state/wheel/sources" 2>/dev/null)" != "$sources" ] || return 0
    rm -rf "$source" "$state/wheel"
    mkdir -p "$source" "$state/wheel"
    cp -r lvsctl netlink pyproject.toml README.md LICENSE "$source" || return # setuptools writes beside its sources
    SOURCE_DATE_EPOCH=1700000000 "$python" -m pip wheel -q --disable-pip-version-check --no-deps \
        --wheel-dir "$state/wheel" "$source" || return
    rm -rf "$source"
    echo "$sources" >"$state/wheel/sources"
}

python=$(find_python "$@")
fetch_wheels "$python"
build_wheel "$python"
rm -rf "$share.new"
mkdir -p "$share.new/wheels"
cp "$state"/wheels/*.whl "$state"/wheel/*.whl "$share.new/wheels"
mkdir "$share.new/vagrant"
cp -r vagrant/provision vagrant/files "$share.new/vagrant"
rm -rf "$share.new/vagrant/provision/__pycache__"
"$python" -c '
import json, sys, yaml
json.dump(yaml.safe_load(sys.stdin), sys.stdout, indent=1)' <"${LAB_TOPOLOGY:-vagrant/topology.yaml}" >"$share.new/topology.json"
rm -rf "$share"
mv "$share.new" "$share"
