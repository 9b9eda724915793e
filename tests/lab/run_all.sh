#!/bin/bash
# Runs every part of `make test`, the later ones too when an earlier one failed, and sums up.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit
summary=() result=0
for part in lint unit kernel; do
    echo "== $part"
    began=$SECONDS
    if make --no-print-directory "$part" 2>&1 | tee "build/lab/$part.log"; then
        words=passed
    else
        words=FAILED result=1
    fi
    # What pytest counted, without its frame of equal signs.
    counted=$(grep -aE '(passed|failed|error|no tests ran).* in [0-9.]+s' "build/lab/$part.log" | tail -1 | tr -d '=')
    summary+=("$(printf '%-8s %-8s %4d s  %s' "$part" "$words" $((SECONDS - began)) "$counted")")
done
echo "== summary"
printf '%s\n' "${summary[@]}"
exit $result
