#!/bin/bash
# The client: asks the virtual servers. It knows nothing of Consul and of instances.
set -euo pipefail
# shellcheck source=lib.sh
. "$HERE/lib.sh"

need curl curl
put "$FILES/lab-load" /usr/local/bin/lab-load 755 || true
