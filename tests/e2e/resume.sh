# A run that is stopped (SIGTERM) or killed (kill -9) at any moment and resumed is bitwise the uninterrupted one; recorded
# steps replay with their digests; the ledger balances.
source "$(dirname "$0")/lib.sh"
tiny_job > "$work/job.yaml"
begin=$(date +%s%N)
"$praetor" train "$work/job.yaml" > "$work/out" 2> "$work/err" || { cat "$work/err"; fail "the calm run"; }
length=$(( ($(date +%s%N) - begin) / 1000000 ))
calm=$work/runs/tiny
# A resumed run never writes the row of its checkpoint's step again: the row must be there first.
[ ! "$calm/metrics.jsonl" -nt "$calm/latest/manifest.json" ] || fail "a checkpoint before its step's metrics"
"$praetor" verify "$calm" > "$work/verify.json" || { cat "$work/verify.json"; fail "verify of the calm run"; }

# interrupted_run SIGNAL PERCENT [FLAG...]: starts a run, sends the signal after that part of a calm run's time, resumes until done.
interrupted_run() {
  local signal=$1 percent=$2 delay rounds=0 pid status
  shift 2
  delay=$(awk "BEGIN {print $length * $percent / 100000}")
  rm -rf "$work/again"
  sed "s#$work/runs#$work/again#" "$work/job.yaml" > "$work/again.yaml"
  "$praetor" train "$work/again.yaml" "$@" > /dev/null 2> "$work/err" & pid=$!
  sleep "$delay"
  kill "-$signal" "$pid" 2>/dev/null || true
  status=0; wait "$pid" || status=$?
  if [ "$signal" = TERM ] && [ "$status" -ne 0 ] && [ "$status" -ne 143 ]; then cat "$work/err"; fail "SIGTERM gave status $status"; fi
  while [ "$status" -ne 0 ]; do
    rounds=$((rounds + 1)); [ "$rounds" -le 3 ] || fail "no end after $rounds resumes"
    status=0; "$praetor" train "$work/again.yaml" "$@" --resume auto > /dev/null 2> "$work/err" || status=$?
    [ "$status" -eq 0 ] || cat "$work/err"
  done
  same_run "$calm" "$work/again/tiny" "$signal after $delay s"
  "$praetor" verify "$work/again/tiny" > "$work/verify.json" || { cat "$work/verify.json"; fail "verify after $signal"; }
}
for percent in 15 45 65 80 92; do
  interrupted_run KILL "$percent"
  interrupted_run TERM "$percent"
done
# The same while a thread writes checkpoints beside training, one after each step.
for percent in 30 70 88; do interrupted_run KILL "$percent" --set checkpoint.background=true --set checkpoint.every=1; done
interrupted_run TERM 75 --set checkpoint.background=true --set checkpoint.every=1

for step in 1 7 14; do
  "$praetor" replay "$calm" --step "$step" > "$work/replay.json" || { cat "$work/replay.json"; fail "replay of step $step"; }
  grep -q '"identical":true' "$work/replay.json" || fail "replay of step $step"
done
status=0; "$praetor" replay "$calm" --step 99 2> "$work/err" || status=$?
[ "$status" -eq 65 ] || fail "replay of a step that is not there gave $status"

"$praetor" export "$calm/latest" --to "$work/exported" > /dev/null
cmp "$work/exported/model.safetensors" "$calm/stages/ppo/model.safetensors" || fail "the export is not the result"
"$praetor" export "$calm" --to "$work/newest" > /dev/null
cmp "$work/exported/model.safetensors" "$work/newest/model.safetensors" || fail "the export of a run is not that of its latest"
status=0; "$praetor" export "$calm" --best --to "$work/best" 2> "$work/err" || status=$?
[ "$status" -eq 66 ] || fail "the best of a run that keeps none gave $status"
rm -rf "$work/kept"
"$praetor" train "$work/job.yaml" --set "output=$work/kept" --set 'stages.ppo.checkpoint.keep_best.metric=eval/score' --set stages.ppo.checkpoint.keep_last=1 \
  > /dev/null 2> "$work/err" || { cat "$work/err"; fail "keep_best"; }
best=$(readlink "$work/kept/tiny/best")
[ -d "$work/kept/tiny/$best" ] && [[ $best == checkpoints/ppo/* ]] || fail "best leads to $best"
"$praetor" export "$work/kept/tiny" --best --to "$work/best" > /dev/null || fail "the export of the best"
[ "$(ls "$work/kept/tiny/checkpoints/ppo" | wc -l)" -le 2 ] || fail "more is kept than the last and the best"
"$praetor" status "$calm" --json | grep -q '"running":false' || fail "status"

# From an earlier checkpoint of a finished run, and of an earlier stage: the later steps are trained again as recorded.
for checkpoint in ppo/step-000008 sft/step-000004; do
  rm -rf "$work/copy" && cp -r "$calm" "$work/copy"
  "$praetor" train "$work/job.yaml" --resume "$work/copy/checkpoints/$checkpoint" > /dev/null 2> "$work/err" ||
    { cat "$work/err"; fail "resume from $checkpoint"; }
  same_run "$calm" "$work/copy" "from $checkpoint"
done

# Another thread count is named; the run goes on.
rm -rf "$work/copy" && cp -r "$calm" "$work/copy"
"$praetor" train "$work/job.yaml" --set threads=2 --resume "$work/copy/checkpoints/ppo/step-000008" > /dev/null 2> "$work/err"
grep -q 'equivalent, not identical.*threads: 1 then, 2 now' "$work/err" || { cat "$work/err"; fail "another thread count passed unnamed"; }

# A torn checkpoint is named and refused.
checkpoint=$(realpath "$calm/latest")
truncate -s -1 "$checkpoint/shard-00000-of-00001.safetensors"
status=0; "$praetor" verify "$checkpoint" > "$work/verify.json" 2>&1 || status=$?
[ "$status" -eq 65 ] && grep -q shard-00000 "$work/verify.json" || fail "a torn checkpoint passed: $status"
