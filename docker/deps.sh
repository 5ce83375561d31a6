#!/bin/sh
# deps.sh [--check] PACKAGE...   Debian packages that are missing: says which, and
# installs them (or, with --check, only says what to do). Nothing when all are there.

check=no
[ "${1:-}" = --check ] && { check=yes; shift; }

# Elsewhere than on Debian the compiler will tell what is missing.
command -v dpkg-query >/dev/null 2>&1 || exit 0

missing=
for package in "$@"; do
    state=$(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null)
    case $state in ii*) ;; *) missing="$missing $package" ;; esac
done
[ -z "$missing" ] && exit 0
if [ $check = yes ]; then
    echo "missing packages:$missing. Install them with: make deps" >&2
    exit 69
fi

run=
if [ "$(id -u)" != 0 ]; then
    run=sudo
    command -v sudo >/dev/null 2>&1 || {
        echo "missing packages:$missing. Install them as root: this user has no sudo" >&2
        exit 77
    }
fi

log=${BUILD:-build}/deps.log
mkdir -p "$(dirname "$log")"
install() {
    $run env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        $missing </dev/null >>"$log" 2>&1
}
echo "installing:$missing"
: >"$log"
if ! install; then  # the package lists may be old or empty
    $run apt-get update >>"$log" 2>&1
    install || {
        reason=$(grep '^E:' "$log" | tail -1)
        echo "cannot install the missing packages (${reason:-see $log}). Is there a network? Details: $log" >&2
        exit 69
    }
fi
