#!/usr/bin/env bash
# Builds the image from the Dockerfile and runs its processes, without a container daemon or a registry:
#
#   sudo bash tests/support/image.sh        # Debian: buildah debootstrap bubblewrap curl; Java and Maven for Kafka
#
# In place of python:3.11-slim-bookworm stands a fresh Debian bookworm with its own Python 3.11. Each process runs with
# the image's root read-only, as user 10001, without capabilities, /tmp in memory and a disk of its own at
# /var/lib/nudge. They share the machine's network. Exit code 0 when all of them worked and ended in good order.
set -euo pipefail
cd "$(dirname "$0")/../.."

work=${NUDGE_IMAGE_WORK:-/var/tmp/nudge-image}
image="buildah --root $work/store --runroot $work/run --storage-driver vfs"
base=docker.io/library/python:3.11-slim-bookworm
mkdir -p "$work"

build() {
    if ! $image inspect --type image "$base" >/dev/null 2>&1; then
        debootstrap --variant=minbase \
            --include=python3,python3-dev,python3-venv,python3-pip,python-is-python3,ca-certificates bookworm "$work/root"
        cp /etc/ssl/certs/ca-certificates.crt "$work/root/etc/ssl/certs/" # as this machine trusts
        from=$($image from scratch)
        $image copy -q "$from" "$work/root" /
        $image commit -q "$from" "$base"
        $image rm "$from" >/dev/null
    fi
    $image build --isolation chroot --pull=never --format docker -t nudge .
}

# box NAME [VARIABLE=VALUE …] -- COMMAND …
box() {
    local disk=$work/disk-$1 sets=()
    shift
    install -d -o 10001 -g 10001 "$disk"
    while [ "$1" != -- ]; do
        sets+=(--setenv "${1%%=*}" "${1#*=}")
        shift
    done
    shift
    exec env -i /usr/bin/bwrap --ro-bind "$root" / --proc /proc --dev /dev --tmpfs /tmp --bind "$disk" /var/lib/nudge \
        --unshare-pid --unshare-ipc --unshare-uts --die-with-parent --chdir /var/lib/nudge \
        --cap-add CAP_SETUID --cap-add CAP_SETGID --cap-add CAP_SETPCAP \
        --setenv PATH /opt/nudge/bin:/usr/sbin:/usr/bin:/sbin:/bin --setenv PYTHONDONTWRITEBYTECODE 1 \
        --setenv PYTHONUNBUFFERED 1 --setenv NUDGE_DATA_DIR /var/lib/nudge "${sets[@]}" \
        -- /usr/bin/setpriv --reuid=10001 --regid=10001 --clear-groups --no-new-privs --inh-caps=-all \
        --bounding-set=-all "$@"
}

declare -A process=()

# leaf PID — the program in a box: bwrap, its init, and then it
leaf() {
    local pid=$1 child
    while child=$(pgrep -P "$pid" | head -n 1) && [ -n "$child" ]; do pid=$child; done
    echo "$pid"
}

# start NAME PORT [VARIABLE=VALUE …] -- COMMAND …
start() {
    local name=$1 port=$2
    shift 2
    install -d -o 10001 -g 10001 "$work/disk-$name"
    install -m 0444 policies/shop.yaml "$work/disk-$name/policy.yaml"
    (box "$name" "${shared[@]}" NUDGE_HTTP_PORT="$port" "$@") >"$work/$name.log" 2>&1 &
    process[$name]=$!
}

run_all() {
    local secret ready=0 code failed=0
    secret=$(openssl rand -hex 32)
    shared=(NUDGE_BROKER="$NUDGE_TEST_KAFKA" NUDGE_SECRET="$secret" NUDGE_PRIVACY_SECRET="$secret" NUDGE_PARTITIONS=8
        NUDGE_LOG_FORMAT=json)
    local policy=NUDGE_POLICY=/var/lib/nudge/policy.yaml
    rm -rf "$work"/disk-*

    (box look -- sh -c 'id -u; ! touch /opt/nudge/x && ! touch /x && grep -q "^CapEff:.0*$" /proc/self/status')
    # The core is compiled, and what compiled it is not there.
    (box version -- nudge --version) | tee "$work/version.log"
    grep -q "core compiled" "$work/version.log"
    (box tools -- sh -c '! command -v gcc && ! command -v cc && ! command -v as && ! command -v ld && ! python -c "import mypy" 2>/dev/null')
    echo "megabytes: $(du -sm "$root" | cut -f 1), of them $(du -sm "$root/opt/nudge" | cut -f 1) in /opt/nudge"
    (box topics "${shared[@]}" -- nudge topics create --replication 1)
    start worker-1 6066 NUDGE_INSTANCE_ID=worker-1 $policy -- nudge worker
    start worker-2 6102 NUDGE_INSTANCE_ID=worker-2 $policy -- nudge worker
    start sender 6103 NUDGE_INSTANCE_ID=sender-1 NUDGE_SENDER_PROVIDER=console -- nudge sender
    start console 6104 NUDGE_CONSOLE_PORT=6105 NUDGE_WORKER_URLS=http://127.0.0.1:6066 -- nudge console
    for _ in $(seq 120); do
        ready=1
        for port in 6066 6102 6103; do curl -sf "localhost:$port/readyz" >/dev/null || ready=0; done
        curl -sf localhost:6105/ >/dev/null || ready=0
        [ $ready = 1 ] && break
        sleep 1
    done
    echo "ready: $ready"
    (box simulate "${shared[@]}" -- nudge simulate --rate 200 --seconds 20 --answer) | tail -3
    for port in 6066 6102 6103; do
        curl -s "localhost:$port/metrics" | grep -E \
            '^nudge_(events_total|sends_total|ready|state_rows|clock_skew)|^process_resident_memory' | sed "s/^/$port /"
    done
    (box health -- python -c "import urllib.request as r; r.urlopen('http://127.0.0.1:6066/livez', timeout=4)")
    echo "health check: $?"
    install -D -m 0444 policies/shop.yaml "$work/disk-doctor/policy.yaml"
    (box doctor "${shared[@]}" $policy NUDGE_HTTP_PORT=6199 -- nudge doctor) || failed=1
    for name in "${!process[@]}"; do kill -TERM "$(leaf "${process[$name]}")"; done
    for name in "${!process[@]}"; do
        code=0
        wait "${process[$name]}" || code=$?
        echo "$name ended with $code"
        [ "$code" = 0 ] || failed=1
    done
    [ $ready = 1 ] && [ $failed = 0 ]
}

if [ "${1:-}" = run ]; then
    root=$2
    run_all
else
    build
    root=$($image mount "$($image from --pull=never localhost/nudge)")
    python=${PYTHON:-.venv/bin/python}
    $python -m tests.support.kafka -- bash tests/support/image.sh run "$root"
fi
