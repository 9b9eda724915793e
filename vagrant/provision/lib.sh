# Sourced by the scripts of the roles: what all of them need. RENDERED and FILES come from guest.sh.
# shellcheck shell=bash
export DEBIAN_FRONTEND=noninteractive

# shellcheck source=/dev/null
. "$RENDERED/guest.env"

put() { # SOURCE TARGET [MODE]: copies it where it differs; returns 0 where it did, 1 where nothing was to do
    local mode=${3:-644}
    if cmp -s "$1" "$2" && [[ $(stat -c %a "$2") == "$mode" ]]; then
        return 1
    fi
    install -D -m "$mode" "$1" "$2"
    echo "  $2"
}

need() { # PROGRAM PACKAGE...: installs the packages where the program is missing
    if command -v "$1" >/dev/null; then
        return
    fi
    echo "  installing ${*:2}"
    if [[ ! -e /run/lab/apt-updated ]]; then
        apt-get -q -o DPkg::Lock::Timeout=300 update >/dev/null
        touch /run/lab/apt-updated
    fi
    apt-get -qq -y -o DPkg::Lock::Timeout=300 --no-install-recommends install "${@:2}" >/dev/null
}

wait_for() { # SECONDS WHAT COMMAND...: until the command succeeds
    local what=$2 until=$((SECONDS + $1))
    shift 2
    until "$@" >/dev/null 2>&1; do
        if ((SECONDS >= until)); then
            echo "$NAME: waited in vain for: $what" >&2
            return 1
        fi
        sleep 1
    done
}
