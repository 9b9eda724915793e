#!/bin/bash
# Every guest: its name, the names of the others, cards and addresses.
set -euo pipefail
# shellcheck source=lib.sh
. "$HERE/lib.sh"

if [[ $(cat /etc/hostname) != "$NAME" || $(uname -n) != "$NAME" ]]; then
    echo "$NAME" >/etc/hostname
    hostname "$NAME"
fi
{
    echo "127.0.0.1 localhost"
    cat "$RENDERED/hosts"
} >/run/lab/hosts
put /run/lab/hosts /etc/hosts || true

need ip iproute2
need modprobe kmod
need curl curl ca-certificates

changed=
put "$RENDERED/network.env" /etc/lab/network.env && changed=yes
put "$FILES/lab-network" /usr/local/sbin/lab-network 755 && changed=yes
put "$FILES/lab-network.service" /etc/systemd/system/lab-network.service && changed=yes
if [[ -n $changed ]]; then
    systemctl daemon-reload
    systemctl -q --no-reload enable lab-network.service
    systemctl restart lab-network.service
else
    systemctl start lab-network.service
fi
