# publish.via: nccl over an emulated GPU library, whose NCCL is sockets: the same samples, metrics and weights as by files, undisturbed
# and when workers and the publisher are killed, stopped or get damaged bytes in the middle of a broadcast. Nothing hangs.
source "$(dirname "$0")/lib.sh"
emulated=$(dirname "$praetor")/../tests/libpraetor_cuda_processor.so
[ -f "$emulated" ] || fail "no $emulated"
# While the first file is there broadcasts stand still in their middle; the worker that removes the second gets a damaged bucket.
export PRAETOR_CUDA_LIBRARY=$emulated PRAETOR_PROCESSOR_DEVICES=6 TMPDIR=$work
export PRAETOR_PROCESSOR_HOLD=$work/hold PRAETOR_PROCESSOR_CORRUPT=$work/damage

# Steps enough that a quick machine is not through before it is disturbed.
tiny_job 1 80 | sed 's/hidden_size: 32/hidden_size: 16/; s/    ppo: {/    engine: {device: cuda, max_sequences: 16, max_step_tokens: 64}\n    ppo: {/' > "$work/job.yaml"
separate_job "$work/file" 2 1 > "$work/separate.yaml"
"$praetor" train "$work/separate.yaml" > "$work/out" 2> "$work/err" || { cat "$work/err"; fail "publication by files"; }
calm=$work/file/tiny

begin() {  # OUTPUT WORKERS TIMEOUT [LOST_AFTER]: a run that broadcasts; its process in $pid
  out=$1
  { separate_job "$1" "$2" 1 | sed "s/lost_after: 2/lost_after: ${4:-2}/"; echo "publish: {via: nccl, bucket_bytes: 4096, timeout: $3}"; } > "$work/separate.yaml"
  "$praetor" train "$work/separate.yaml" > "$work/out" 2> "$work/err" & pid=$!
  while [ ! -d "$out/tiny" ] && kill -0 "$pid"; do sleep 0.05; done
}
count() { cat "$out"/tiny/logs/$1.log "$work/late" 2> /dev/null | grep -c "$2" || true; }
await_more() {  # LOG PATTERN COUNT: until more lines than that say so
  local tries
  for tries in $(seq 600); do
    [ "$(count "$1" "$2")" -le "$3" ] || return 0
    kill -0 "$pid" 2> /dev/null || { cat "$work/err"; fail "the run ended before $1 said: $2"; }
    sleep 0.1
  done
  tail -n 5 "$out"/tiny/logs/*; fail "$1 did not say in 60 s: $2"
}
# in_the_middle SIGNAL MEMBER: hits the member while a broadcast that it is part of stands still, and lets go once it was given up.
in_the_middle() {
  local target begun given_up where=$2 says=(learners "go as a file")
  [ "$2" != learner-0 ] || { where='rollout-*'; says=('rollout-*' "taken as a file"); }
  begun=$(count "$where" "receiving broadcast")
  touch "$work/hold"
  await_more "$where" "receiving broadcast" "$begun"
  given_up=$(count "${says[@]}")
  target=$(pid_of "$out/tiny" "$2")
  kill "-$1" "$target" || fail "no $2"
  await_more "${says[@]}" "$given_up"
  rm "$work/hold"
}
epochs_of() {  # RUN: the run's epochs rise, each version went to all of an epoch or as a file; prints how many there were
  python3 - "$1/metrics.jsonl" <<'PY'
import json, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
rows = [(row["sync/epoch"], row["sync/receivers"]) for row in rows if "sync/epoch" in row]
assert rows, "no row says how its weights went"
cast = [row for row in rows if row[0] > 0]
assert all(receivers == 0 for epoch, receivers in rows if epoch == 0), rows
assert all(receivers > 0 for _, receivers in cast), rows
assert [epoch for epoch, _ in cast] == sorted(epoch for epoch, _ in cast), rows
print(len({epoch for epoch, _ in cast}), max(receivers for _, receivers in rows), sum(epoch == 0 for epoch, _ in rows))
PY
}

# Undisturbed, and a worker that comes late, over a relay.
begin "$work/late-run" 1 20 30
: > "$work/late"
await_rows "$pid" "$out/tiny" 22
"$praetor" relay "$out/tiny" --name relay-0 2> "$work/relay" & relay=$!
"$praetor" worker --join "$out/tiny" --relay relay-0 --serve generate --threads 1 --name rollout-late 2> "$work/late" & late=$!
await_more rollout-late "receiving broadcast 1 of epoch" 0
"$praetor" status "$out/tiny" 2> "$work/status"
grep -q "broadcasts of weights: epoch [0-9]*, number [0-9]*, of learner-0, rollout-0, rollout-late" "$work/status" || { cat "$work/status"; fail "status"; }
finish "$pid" "$out" "a worker that comes late"
wait "$late" || { cat "$work/late"; fail "the late worker"; }
wait "$relay" || { cat "$work/relay"; fail "the relay"; }
rm "$work/late"
epochs=($(epochs_of "$out/tiny")) || fail "how weights went"
[ "${epochs[0]}" -ge 2 ] && [ "${epochs[1]}" -eq 2 ] || fail "epochs, receivers and files of the undisturbed run: ${epochs[*]}"
! grep -q "as a file" "$out"/tiny/logs/*.log || fail "a broadcast failed, and nobody disturbed it"

# Workers: killed, given damage, stopped.
begin "$work/workers" 2 20
await_rows "$pid" "$out/tiny" 21
killed='broadcast of weights, epoch [0-9]*, rank 0 of [23] (with [^)]*rollout-1): weights of step [0-9]*: bucket [0-9]* of'
for _ in 1 2 3; do  # what it receives may have been sent already, and then the next broadcast stands still
  in_the_middle KILL rollout-1
  ! grep -q "$killed" "$out/tiny/logs/learners.log" || break
done
grep -q "$killed" "$out/tiny/logs/learners.log" || { grep "as a file" "$out/tiny/logs/learners.log"; fail "what the publisher says of a killed worker"; }
await_rows "$pid" "$out/tiny" 25
touch "$work/damage"
await_more 'rollout-*' "taken as a file: broadcast of weights, epoch .*: /proc/self/fd/" 0
[ ! -e "$work/damage" ] || fail "nobody got the damaged bucket"
await_rows "$pid" "$out/tiny" 29
in_the_middle STOP rollout-0
finish "$pid" "$out" "workers that are killed, damaged and stopped"
epochs=($(epochs_of "$out/tiny")) || fail "how weights went"
[ "${epochs[0]}" -ge 4 ] && [ "${epochs[2]}" -ge 2 ] || fail "epochs, receivers and files of the disturbed run: ${epochs[*]}"

# The publisher: killed, then stopped; its successor begins an epoch.
begin "$work/publisher" 2 3
await_rows "$pid" "$out/tiny" 30
in_the_middle KILL learner-0
await_rows "$pid" "$out/tiny" 40
in_the_middle STOP learner-0
finish "$pid" "$out" "a publisher that is killed and stopped"
grep -q "epoch [0-9]*, rank [12] of [23] (with learner-0[^)]*): weights of step [0-9]*: bucket [0-9]* of" "$out"/tiny/logs/rollout-*.log \
  || { grep "as a file" "$out"/tiny/logs/rollout-*.log; fail "what workers say of a publisher that is gone"; }
epochs=($(epochs_of "$out/tiny")) || fail "how weights went"
[ "${epochs[0]}" -ge 3 ] || fail "epochs, receivers and files with another publisher: ${epochs[*]}"

# Without a GPU for the publisher nothing is begun.
{ separate_job "$work/none" 1 1; echo "publish: {via: nccl}"; } > "$work/separate.yaml"
status=0
PRAETOR_CUDA_LIBRARY=$work/none.so "$praetor" train "$work/separate.yaml" > "$work/out" 2>&1 || status=$?
[ "$status" -eq 66 ] || { cat "$work/out"; fail "status $status without a GPU"; }
echo "weights broadcast over emulated GPUs"
