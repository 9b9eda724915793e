#!/bin/bash
# Makes this guest what the topology says: guest.sh PROFILE NAME, as root, in the guest, where /lab is the share.
# Idempotent: what is as it should be is left alone, and a service is restarted only where its files changed.
set -euo pipefail

if [[ $# -ne 2 ]]; then
    echo "usage: guest.sh PROFILE NAME" >&2
    exit 2
fi
HERE=$(cd "$(dirname "$0")" && pwd)
LAB=${LAB:-/lab}
for TOPOLOGY in "$LAB/topology.json" "$LAB/vagrant/topology.json"; do
    [[ ! -e $TOPOLOGY ]] || break
done
RENDERED=/run/lab/rendered
rm -rf "$RENDERED"
mkdir -p "$RENDERED"
/usr/bin/python3 -IS "$HERE/render.py" "$TOPOLOGY" "$1" "$2" "$RENDERED"
# shellcheck source=/dev/null
. "$RENDERED/guest.env"
FILES=$(cd "$HERE/../files" && pwd)
export HERE LAB RENDERED FILES

echo "$NAME ($PROFILE): $ROLES"
"$HERE/common.sh"
[[ -z $BACK ]] || "$HERE/consul.sh"
for role in $ROLES; do
    case $role in
    consul-server) ;; # consul.sh does it all: the agent's configuration says who is a server
    application | access | director | client) "$HERE/$role.sh" ;;
    *)
        echo "guest.sh: no such role: $role" >&2
        exit 1
        ;;
    esac
done
echo "$NAME: done"
