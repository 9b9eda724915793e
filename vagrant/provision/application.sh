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
for file in "$RENDERED"/instances/*.env; do
    id=$(basename "$file" .env)
    changed=$program
    put "$file" "/etc/lab/instances/$id.env" && changed=yes
    if [[ -n $changed ]]; then
        systemctl -q enable "lab-app@$id.service"
        systemctl restart --no-block "lab-app@$id.service" # several at once: each is slow to start
    elif ! systemctl -q is-active "lab-app@$id.service"; then
        systemctl start "lab-app@$id.service"
    fi
done
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
