#!/bin/bash
# A Consul agent. Its program comes from, in this order: the box; the repository in LAB_APT_REPO (a line of sources.list);
# Debian, where it has a candidate; HashiCorp's repository. Unit and configuration are the lab's own in any case.
set -euo pipefail
# shellcheck source=lib.sh
. "$HERE/lib.sh"

if ! command -v consul >/dev/null; then
    if [[ -n ${LAB_APT_REPO:-} ]]; then
        echo "$LAB_APT_REPO" >/etc/apt/sources.list.d/lab.list
        rm -f /run/lab/apt-updated
    fi
    apt-get -q -o DPkg::Lock::Timeout=300 update >/dev/null
    candidate=$(LC_ALL=C apt-cache policy consul | awk '/Candidate:/ { print $2 }')
    if [[ -z $candidate || $candidate == "(none)" ]]; then
        need gpg gpg
        curl -fsSL https://apt.releases.hashicorp.com/gpg | gpg --batch --yes --dearmor -o /usr/share/keyrings/hashicorp.gpg
        # shellcheck source=/dev/null
        . /etc/os-release
        echo "deb [signed-by=/usr/share/keyrings/hashicorp.gpg] https://apt.releases.hashicorp.com $VERSION_CODENAME main" \
            >/etc/apt/sources.list.d/hashicorp.list
        rm -f /run/lab/apt-updated
    fi
fi
need consul consul

getent passwd consul >/dev/null || useradd --system --user-group --home-dir /var/lib/lab-consul --shell /usr/sbin/nologin consul

# Instances of applications are registered by files beside the agent's own. What is not in the topology any more goes.
changed=
reload=
mkdir -p /etc/lab/consul.d
put "$RENDERED/consul.d/agent.json" /etc/lab/consul.d/agent.json && changed=yes
put "$FILES/consul.service" /etc/systemd/system/consul.service && changed=yes
for file in "$RENDERED"/consul.d/*.hcl; do
    [[ ! -e $file ]] || { put "$file" "/etc/lab/consul.d/${file##*/}" && reload=yes; } || true
done
for file in /etc/lab/consul.d/*.hcl; do
    if [[ -e $file && ! -e $RENDERED/consul.d/${file##*/} ]]; then
        rm "$file"
        reload=yes
    fi
done
if [[ -n $changed ]]; then
    systemctl daemon-reload
    systemctl -q --no-reload enable consul.service
    systemctl restart consul.service
elif ! systemctl -q is-active consul.service; then
    systemctl -q --no-reload enable consul.service
    systemctl start consul.service
elif [[ -n $reload ]]; then
    systemctl reload consul.service
fi
wait_for 120 "the Consul agent's API" curl -fsS http://127.0.0.1:8500/v1/agent/self
