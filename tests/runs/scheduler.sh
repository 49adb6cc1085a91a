#!/usr/bin/env bash
# Test a fleet with a scheduler and two workers in processes of their own, with TLS. Each worker opens its own lab.
# 1. The fleet has a planted fault and a killed worker. Once both are mended, `--resume` runs their two rows.
# 2. The scheduler dies while both workers run a row. The command and the workers end by themselves, and `--resume` with
#    a new scheduler runs the missing rows.
#   tests/runs/scheduler.sh          prints "as it should be" and exits with 0, or says what is wrong
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
work=$(mktemp -d)
started=()
cleanup() {
  for process in "${started[@]}"; do kill "$process" 2>/dev/null || true; done
  wait || true
  rm -rf "$work"
}
trap cleanup EXIT
cd "$work"
mkdir tmp
export TMPDIR=$work/tmp PYTHONPATH=$root DASK_LOGGING__DISTRIBUTED=error
python=$root/.venv/bin/python

"$python" -m tests.runs.certificate ca.pem cert.pem key.pem
tls=(--tls-ca-file ca.pem --tls-cert cert.pem --tls-key key.pem)

start() {
  rm -f scheduler.json
  "$root/.venv/bin/dask" scheduler --host 127.0.0.1 --port 0 --protocol tls --no-dashboard \
    --dashboard-address 127.0.0.1:0 --scheduler-file scheduler.json "${tls[@]}" >scheduler.log 2>&1 &
  scheduler=$!
  started+=("$scheduler")
  until [ -s scheduler.json ]; do sleep 0.1; done
  address=$("$python" -c 'import json; print(json.load(open("scheduler.json"))["address"])')
  for number in 1 2; do
    "$root/.venv/bin/dask" worker "$address" --host 127.0.0.1 --nthreads 1 --name "worker-$number" --no-dashboard \
      --dashboard-address 127.0.0.1:0 --local-directory "$work/worker-$number" "${tls[@]}" >"worker-$number.log" 2>&1 &
    started+=($!)
  done
}

fleet() {
  "$root/.venv/bin/labkit" fleet fleet.yaml --notebook in.ipynb --lab-per-worker \
    --scheduler "$address" --tls-ca ca.pem --tls-cert cert.pem --tls-key key.pem "$@"
}
count() { ls "$@" 2>/dev/null | wc -l; }

start
"$python" -m tests.runs.planted fleet.yaml in.ipynb --faults
code=0; fleet --out out || code=$?
[ "$code" = 1 ] || { echo "the fleet with faults ended with $code"; exit 1; }
"$python" -m tests.runs.planted --check out
"$python" -m tests.runs.planted fleet.yaml in.ipynb
fleet --out out --resume
"$python" -m tests.runs.planted --check-mended out 2

"$python" -m tests.runs.planted fleet.yaml in.ipynb --endless
fleet --out gone >gone.log &
ended=$!
until [ "$(count gone/rows/*.json)" = 2 ] && [ "$(count gone/rows/*.running)" = 2 ]; do sleep 0.1; done
kill -9 "$scheduler"
code=0; wait "$ended" || code=$?
[ "$code" = 1 ] || { echo "the fleet without a scheduler ended with $code"; exit 1; }
grep "The fleet ended early: the scheduler went away. Run the rest:" gone.log
"$python" -m tests.runs.planted --check-gone gone
start
"$python" -m tests.runs.planted fleet.yaml in.ipynb
# The old workers end within a minute. Until then, --resume refuses to run beside them: exit code 2.
for _ in {1..20}; do
  code=0; fleet --out gone --resume || code=$?
  [ "$code" = 2 ] || break
  sleep 5
done
[ "$code" = 0 ] || { echo "the fleet with a new scheduler ended with $code"; exit 1; }
"$python" -m tests.runs.planted --check-mended gone 6
[ "$(count -d "$work"/tmp/labkit-fleet-*)" = 0 ] || { echo "labs are left in $work/tmp"; exit 1; }
echo "as it should be"
