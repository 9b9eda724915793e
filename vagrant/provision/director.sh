#!/bin/bash
# A director: lvsctl as users run it, installed from the wheels of this checkout, as the service of docs/operations.md.
set -euo pipefail
# shellcheck source=lib.sh
. "$HERE/lib.sh"

need ipvsadm ipvsadm
need python3 python3

# The settings below net.ipv4.vs exist once ip_vs is there; [kernel] of lvsctl.toml sets them.
printf 'ip_vs\n' >/run/lab/modules
put /run/lab/modules /etc/modules-load.d/lab.conf || true
modprobe ip_vs

# lvsctl: the wheels unpacked into an environment of its own. The share has those of its dependencies, too.
changed=
wheels=$(cd "$LAB/wheels" && cksum ./*.whl | cksum)
if [[ $(cat /opt/lvsctl/.wheels 2>/dev/null || true) != "$wheels" ]]; then
    echo "  /opt/lvsctl"
    rm -rf /opt/lvsctl
    /usr/bin/python3 -m venv --without-pip /opt/lvsctl
    /opt/lvsctl/bin/python "$HERE/install_wheels.py" "$LAB/wheels"
    echo "$wheels" >/opt/lvsctl/.wheels
    changed=yes
fi
ln -sfn /opt/lvsctl/bin/lvsctl /usr/local/bin/lvsctl

put "$FILES/lvsctl.sysusers" /etc/sysusers.d/lvsctl.conf && systemd-sysusers /etc/sysusers.d/lvsctl.conf
put "$FILES/lvsctl.service" /etc/systemd/system/lvsctl.service && changed=yes
reload=
put "$RENDERED/lvsctl.toml" /etc/lvsctl/lvsctl.toml && reload=yes
lvsctl check /etc/lvsctl/lvsctl.toml

if [[ $VIRTUAL_ADDRESSES == failover ]]; then
    put "$RENDERED/addresses" /etc/lab/addresses || true
    put "$FILES/lab-addresses" /usr/local/sbin/lab-addresses 755 || true
    if put "$FILES/lab-addresses.service" /etc/systemd/system/lab-addresses.service; then
        systemctl daemon-reload
        [[ -z $ACTIVE ]] || systemctl -q enable --now lab-addresses.service # the first time; from then on a person decides
    fi
fi

if [[ -n $changed ]]; then
    systemctl daemon-reload
    systemctl -q --no-reload enable lvsctl.service
    systemctl restart lvsctl.service
elif ! systemctl -q is-active lvsctl.service; then
    systemctl start lvsctl.service
elif [[ -n $reload ]]; then
    lvsctl reload
fi
