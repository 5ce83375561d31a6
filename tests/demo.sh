#!/bin/sh
# `make run`: a private Luna in one folder. Starts a broker and a CPU decoder, decodes
# three photographs from their latents, and serves until Ctrl-C; without a terminal it
# stops by itself.

bin=${LUNA_BIN:?set LUNA_BIN to the folder of the programs}
data=$(realpath "$(dirname "$0")/data")
say() { printf '%s\n' "$*"; }
die() { say "luna: $*" >&2; exit 1; }

LUNA_HOME=$(realpath -m "${LUNA_HOME:-build/demo}")
# A socket's path has at most 107 bytes.
[ ${#LUNA_HOME} -gt 90 ] && LUNA_HOME=/tmp/luna-demo-$(id -u)
LUNA_VAE_ROOTS=${LUNA_VAE_ROOTS:-$data}
LUNA_OUTPUT_ROOTS=${LUNA_OUTPUT_ROOTS:-$LUNA_HOME/output}
export LUNA_HOME LUNA_VAE_ROOTS LUNA_OUTPUT_ROOTS
unset LUNA_BROKER
mkdir -p "$LUNA_HOME" "$LUNA_OUTPUT_ROOTS" 2>/dev/null || die "cannot make $LUNA_HOME; set LUNA_HOME=DIR"

broker= decoder=
stop() {
    trap - INT TERM EXIT
    for pid in $decoder $broker; do kill "$pid" 2>/dev/null; done
    wait
}
trap stop EXIT
trap 'stop; say; say "Stopped. The pictures stay in $LUNA_OUTPUT_ROOTS"; exit 0' INT TERM

# start NAME: runs a program with its log in a file, and tells its pid.
start() {
    "$bin/$1" >"$LUNA_HOME/$1.log" 2>&1 &
    pid=$!
}
# ready NAME PID EVENT: waits until the log has EVENT; a program that ended says why.
ready() {
    for _ in $(seq 300); do
        grep -q ": $3 " "$LUNA_HOME/$1.log" && return
        kill -0 "$2" 2>/dev/null || die "$(tail -n 1 "$LUNA_HOME/$1.log")"
        sleep 0.1
    done
    die "$1 did not become ready; its log is $LUNA_HOME/$1.log"
}

start luna-broker; broker=$pid
ready luna-broker "$broker" ready
start luna-decoder; decoder=$pid
ready luna-decoder "$decoder" broker_up

say "Luna runs in $LUNA_HOME; decoding three photographs with TAEF2 on the CPU ..."
failed=0
for photo in astronaut coffee chelsea; do
    "$bin/lunactl" submit --latents "$data/$photo.latent" --vae taef2_decoder \
        --filename "$photo" --wait || failed=1
done
[ $failed = 0 ] || die "a photograph was not decoded; the logs are in $LUNA_HOME"

say
say "The pictures are in $LUNA_OUTPUT_ROOTS"
if [ -t 0 ] && [ -t 1 ]; then
    say "Serving. In another terminal:  export LUNA_HOME=$LUNA_HOME; $bin/lunactl status"
    say "Ctrl-C stops it."
    wait
fi
