# The clock of the machine jumps a day ahead, and back, in the middle of a run of separate roles: nobody is lost, and the
# result is bit for bit the calm run's.
source "$(dirname "$0")/lib.sh"
library=$(ls /usr/lib/*/faketime/libfaketimeMT.so.1 2> /dev/null | head -n 1 || true)
if [ -z "$library" ]; then
  [ -z "${CI:-}" ] || fail "libfaketime is needed: PRAETOR_DEV_TOOLS=1 scripts/bootstrap"
  echo "skipped: libfaketime is needed (PRAETOR_DEV_TOOLS=1 scripts/bootstrap)"
  exit 4
fi
tiny_job > "$work/job.yaml"
"$praetor" train "$work/job.yaml" > "$work/out" 2> "$work/err" || { cat "$work/err"; fail "the calm run"; }
calm=$work/runs/tiny

set_clock() { echo "$1" > "$work/clock.new" && mv "$work/clock.new" "$work/clock"; }
for tls in off on; do
  { separate_job "$work/jump-$tls" 2 1; echo "network: {tls: $tls}"; } > "$work/separate.yaml"
  set_clock +0
  LD_PRELOAD=$library FAKETIME_TIMESTAMP_FILE=$work/clock FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1 FAKETIME_DONT_RESET=1 \
    "$praetor" train "$work/separate.yaml" > "$work/out" 2> "$work/err" & pid=$!
  while [ ! -d "$work/jump-$tls/tiny" ]; do sleep 0.05; done
  await_rows "$pid" "$work/jump-$tls/tiny" 23
  set_clock +1d
  await_rows "$pid" "$work/jump-$tls/tiny" 27
  set_clock -30m
  finish "$pid" "$work/jump-$tls" "a clock that jumps, tls $tls"
  grep -q "died:" "$work/err" && { cat "$work/err"; fail "a member was lost when the clock jumped, tls $tls"; }
  # The jump was seen: the logs of the run are of two days.
  days=$(cat "$work/jump-$tls"/tiny/logs/*.log | grep -oE '^20[0-9]{2}-[0-9]{2}-[0-9]{2}T' | sort -u | wc -l)
  [ "$days" -ge 2 ] || fail "the clock did not jump"
done
