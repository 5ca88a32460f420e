# A job of separate roles gives bit for bit what the colocated run gives: with several workers of a kind, when a process of
# each role is killed or stopped in the middle, and when the whole job is interrupted and resumed. No process outlives it.
source "$(dirname "$0")/lib.sh"

tiny_job > "$work/job.yaml"
"$praetor" train "$work/job.yaml" > "$work/out" 2> "$work/err" || { cat "$work/err"; fail "the colocated run"; }
calm=$work/runs/tiny

for shape in "1 1" "2 1" "3 0"; do
  set -- $shape
  separate_job "$work/s$1" "$1" "$2" > "$work/separate.yaml"
  "$praetor" train "$work/separate.yaml" > "$work/out" 2> "$work/err" &
  finish $! "$work/s$1" "$1 rollout workers"
done

# strike SIGNAL MEMBER ROWS RANKS: the member is hit once so many rows of metrics (of 35) are written.
strike() {
  local out=$work/strike pid target
  rm -rf "$out"
  separate_job "$out" 1 1 "$4" > "$work/separate.yaml"
  "$praetor" train "$work/separate.yaml" > "$work/out" 2> "$work/err" & pid=$!
  while [ ! -d "$out/tiny" ]; do sleep 0.05; done
  target=$(pid_of "$out/tiny" "$2")
  await_rows "$pid" "$out/tiny" "$3"
  kill "-$1" "$target" 2> /dev/null || fail "$2 had ended before row $3"
  if [ "$4" -eq 1 ]; then finish "$pid" "$out" "$1 of $2 at row $3"; else finish_group "$pid" "$out" "$1 of $2 at row $3"; fi
  grep -q "died:" "$work/err" || { cat "$work/err"; fail "nobody said that $2 died"; }
}
# With two ranks the sums have another order: the calm run is one of two ranks.
finish_group() {
  local calm=$work/two/tiny
  finish "$1" "$2" "$3"
}
# Random ones are chaos.sh's.
strikes="KILL rollout-0 23 1;STOP reward-0 25 1;KILL learner-0 27 1;KILL controller 24 1;KILL learner-1 26 2"
separate_job "$work/two" 1 1 2 > "$work/separate.yaml"
"$praetor" train "$work/separate.yaml" > "$work/out" 2> "$work/err" || { cat "$work/err"; fail "two ranks"; }
# Its steps replay, the ranks being threads then.
for step in 1 9; do
  "$praetor" replay "$work/two/tiny" --step "$step" > "$work/replay.json" || { cat "$work/replay.json"; fail "replay"; }
  grep -q '"identical":true' "$work/replay.json" || fail "replay of step $step of two ranks"
done
# With weights and gradients in parts the sums are the same, so the models are; replay and export read the parts.
separate_job "$work/parts" 1 1 2 > "$work/separate.yaml"
parts=()
for stage in sft reward_model ppo; do parts+=(--set "stages.$stage.learner.sharding.stage=3"); done
"$praetor" train "$work/separate.yaml" "${parts[@]}" > "$work/out" 2> "$work/err" || { cat "$work/err"; fail "two ranks in parts"; }
for stage in sft reward_model ppo; do
  cmp "$work/two/tiny/stages/$stage/model.safetensors" "$work/parts/tiny/stages/$stage/model.safetensors" || fail "$stage in parts: other weights"
done
"$praetor" replay "$work/parts/tiny" --step 9 > "$work/replay.json" || { cat "$work/replay.json"; fail "replay in parts"; }
grep -q '"identical":true' "$work/replay.json" || fail "replay of step 9 of two ranks in parts"
exported_is_result() {  # RUN
  rm -rf "$work/exported"
  "$praetor" export "$1/latest" --to "$work/exported" > "$work/out"
  python3 - "$work/exported" "$1/stages/ppo" <<'PY' || fail "the exported weights are not the result's"
import json, struct, sys
def tensors(folder):
    data = open(folder + "/model.safetensors", "rb").read()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    header.pop("__metadata__", None)
    return {name: (t["shape"], data[8 + size:][slice(*t["data_offsets"])]) for name, t in header.items()}
sys.exit(tensors(sys.argv[1]) != tensors(sys.argv[2]))
PY
}
exported_is_result "$work/parts/tiny"
# With every layer over both ranks.
separate_job "$work/layers" 1 1 2 > "$work/separate.yaml"
layers=()
for stage in sft reward_model ppo; do layers+=(--set "stages.$stage.learner.sharding.tensor=2"); done
"$praetor" train "$work/separate.yaml" "${layers[@]}" > "$work/out" 2> "$work/err" || { cat "$work/err"; fail "layers over two ranks"; }
"$praetor" replay "$work/layers/tiny" --step 9 > "$work/replay.json" || { cat "$work/replay.json"; fail "replay of layers over ranks"; }
grep -q '"identical":true' "$work/replay.json" || fail "replay of step 9 of layers over ranks"
exported_is_result "$work/layers/tiny"
IFS=';' read -ra list <<< "$strikes"
for one in "${list[@]}"; do strike $one; done

# Ctrl-C saves; the rest is done by another shape.
separate_job "$work/stop" 2 1 > "$work/separate.yaml"
"$praetor" train "$work/separate.yaml" > "$work/out" 2> "$work/err" & pid=$!
while [ ! -d "$work/stop/tiny" ]; do sleep 0.05; done
target=$(pid_of "$work/stop/tiny" learner-0)
await_rows "$pid" "$work/stop/tiny" 24
kill -TERM "$pid"
status=0; wait "$pid" || status=$?
[ "$status" -eq 143 ] || { cat "$work/err"; fail "SIGTERM gave status $status"; }
no_orphans "$work/stop/tiny" "SIGTERM"
"$praetor" train "$work/separate.yaml" --set roles.rollout.workers=1 --resume auto > "$work/out" 2> "$work/err" &
finish $! "$work/stop" "resumed with one rollout worker"
grep -q "equivalent, not identical" "$work/err" && fail "another number of workers was called another run"

# Workers that join by hand: one by the run directory, which leaves again, and one by the address.
separate_job "$work/hand" 0 1 > "$work/separate.yaml"
"$praetor" train "$work/separate.yaml" > "$work/out" 2> "$work/err" & pid=$!
while [ ! -e "$work/hand/tiny/controller.json" ]; do sleep 0.05; kill -0 "$pid"; done
"$praetor" worker --join "$work/hand/tiny" --serve generate --threads 1 2> "$work/first" & first=$!
await_rows "$pid" "$work/hand/tiny" 23
mkdir -p "$work/elsewhere" && cp -p "$work/hand/tiny/secret" "$work/elsewhere/"
address=$(sed -n 's/.*"address": *"\([^"]*\)".*/\1/p' "$work/hand/tiny/controller.json")
run_id=$(sed -n 's/.*"run_id": *"\([^"]*\)".*/\1/p' "$work/hand/tiny/controller.json")
"$praetor" worker --join "$address" --run-id "$run_id" --secret-folder "$work/elsewhere" --serve generate --threads 1 \
  2> "$work/second" & second=$!
kill -TERM "$first"
status=0; wait "$first" || status=$?
[ "$status" -eq 143 ] || { cat "$work/first"; fail "a worker that was asked to leave gave status $status"; }
finish "$pid" "$work/hand" "workers joined by hand"
wait "$second" || { cat "$work/second"; fail "the worker that joined by address"; }

# Nobody uninvited: another secret, another run.
status=0; "$praetor" worker --join "$work/stop/tiny" --serve generate > /dev/null 2> "$work/err" || status=$?
[ "$status" -ne 0 ] || fail "a worker joined a run that is over"
true
