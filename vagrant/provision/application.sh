#!/bin/bash
# An application node: one program for each instance, at any port. Consul knows them by files, or they tell it themselves.
set -euo pipefail
# shellcheck source=lib.sh
. "$HERE/lib.sh"

program=
put "$FILES/lab-app" /usr/local/bin/lab-app 755 && program=yes
put "$FILES/lab-app@.service" /etc/systemd/system/lab-app@.service && program=yes
[[ -z $program ]] || systemctl daemon-reload

mkdir -p /etc/lab/instances /etc/lab/releases
new=()
stopped=()
for file in "$RENDERED"/instances/*.env; do
    id=$(basename "$file" .env)
    changed=$program
    put "$file" "/etc/lab/instances/$id.env" && changed=yes
    if [[ -n $changed ]]; then
        new+=("lab-app@$id.service")
    else
        stopped+=("lab-app@$id.service") # perhaps; those that run are left alone
    fi
done
if ((${#new[@]})); then
    systemctl -q --no-reload enable "${new[@]}"
    systemctl restart "${new[@]}"
fi
((${#stopped[@]} == 0)) || systemctl start "${stopped[@]}"
for file in /etc/lab/instances/*.env; do
    id=$(basename "$file" .env)
    if [[ ! -e $RENDERED/instances/$id.env ]]; then
        systemctl -q disable --now "lab-app@$id.service"
        rm "$file"
    fi
done
for file in "$RENDERED"/instances/*.env; do
    # shellcheck source=/dev/null
    . "$file"
    wait_for 120 "instance $INSTANCE at $ADDRESS:$PORT" curl -fsS "http://$ADDRESS:$PORT/health"
done
