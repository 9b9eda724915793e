#!/bin/bash
# An access node: nginx, a client of the virtual servers and itself one of the instances behind another.
set -euo pipefail
# shellcheck source=lib.sh
. "$HERE/lib.sh"

need nginx nginx-light
rm -f /etc/nginx/sites-enabled/default
changed=
put "$RENDERED/nginx.conf" /etc/nginx/conf.d/lab.conf && changed=yes
if [[ -n $changed ]]; then
    nginx -q -t
    systemctl -q --no-reload enable nginx.service
    systemctl restart nginx.service
else
    systemctl start nginx.service
fi
