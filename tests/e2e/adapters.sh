# Policies under adapters, in separate processes: what is published after the base is A and B alone, and the run is the colocated
# one bit for bit: with a reference, a mixture and an anchor beside the policy, in bfloat16, with files and with streams, when
# workers are killed or join late and when learner or controller are killed; by ranks in parts and by split layers as well. So it
# is from learners on GPUs, in whose place is the processor (tests/support/emulated_device.cpp).
source "$(dirname "$0")/lib.sh"

lora="{rank: 2, alpha: 4, targets: [q_proj, v_proj, down_proj]}"
cat > "$work/job.yaml" <<YAML
name: tiny
seed: 1
threads: 1
output: $work/runs
checkpoint: {every: 3, keep_last: 3}
stages:
  - {kind: toy_language, name: language, toy_language: {sft_rows: 200, pair_rows: 10, prompt_rows: 40, eval_rows: 8}}
  - kind: sft
    model: {create: {hidden_size: 64, intermediate_size: 128, num_layers: 2, num_heads: 2, max_positions: 64}}
    tokenizer: {stage: language}
    data: {train: "stage:language/sft.jsonl"}
    steps: 6
    learner: {optimizer: {learning_rate: 0.003}}
    sft: {batch_size: 8}
  - kind: ppo
    data: {train: "stage:language/prompts_train.jsonl", eval: "stage:language/prompts_eval.jsonl"}
    steps: 12
    eval: {every: 4}
    sampling: {max_new_tokens: 16}
    rewards: {parts: [{kind: length, unit: words, min: 3}]}
    learner: {optimizer: {learning_rate: 0.001}, lora: $lora}
    ppo: {prompts_per_step: 8, samples_per_prompt: 2, epochs: 2, minibatches: 2, kl: {controller: adaptive}, critic: {optimizer: {learning_rate: 0.001}}}
  - kind: nash_md
    model: {stage: ppo}
    data: {train: "stage:language/prompts_train.jsonl"}
    steps: 4
    sampling: {max_new_tokens: 12}
    rewards: {parts: [{kind: length, unit: words, min: 3}]}
    learner: {optimizer: {learning_rate: 0.001}, lora: $lora, precision: bfloat16}
    nash_md: {prompts_per_step: 6, mixture: 0.25, opponents: 2, reference_samples: 1}
  - kind: nash_ema
    model: {stage: ppo}
    data: {train: "stage:language/prompts_train.jsonl"}
    steps: 4
    sampling: {max_new_tokens: 12}
    rewards: {parts: [{kind: length, unit: words, min: 3}]}
    learner: {optimizer: {learning_rate: 0.001}, lora: $lora}
    nash_ema: {prompts_per_step: 6, decay: 0.5}
YAML
"$praetor" train "$work/job.yaml" > "$work/out" 2> "$work/err" || { cat "$work/err"; fail "the colocated run"; }
calm=$work/runs/tiny

# same_samples RUN NAME: prompts, responses and numbers of every step and evaluation.
losses() { python3 - "$1" <<'PY'
import shutil, sqlite3, sys, tempfile
with tempfile.TemporaryDirectory() as books:
    for end in ("", "-wal", "-shm"):
        try: shutil.copy(f"{sys.argv[1]}/ledger.db{end}", books)
        except FileNotFoundError: pass
    ledger = sqlite3.connect(books + "/ledger.db")
    for row in ledger.execute("SELECT stage, step, loss_digest, gradient_digest FROM steps ORDER BY 1, 2"): print(*row)
    for row in ledger.execute("SELECT stage, ordinal, sample, prompt_length, response_length, finish, weight_version FROM rollouts ORDER BY 1, 2, 3"): print(*row)
PY
}
same_samples() {
  diff <(losses "$calm") <(losses "$1") > "$work/diff" || { head -n 5 "$work/diff"; fail "other samples ($2)"; }
  diff -r "$calm/samples" "$1/samples" > "$work/diff" || { head -n 5 "$work/diff"; fail "other evaluated samples ($2)"; }
}

# small RUN: a stage's first version is published with its base, later ones are adapters of the same few bytes.
small() {
  python3 - "$1/metrics.jsonl" <<'PY' || fail "what was published ($1)"
import json, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
for stage, networks in (("ppo", 1), ("nash_md", 1), ("nash_ema", 2)):
    sizes = [row["sync/bytes"] for row in rows if row["stage"] == stage and "sync/bytes" in row]
    later = sizes[1:]
    assert len(later) > 2 and len(set(later)) <= 4 and max(later) < min(later) + 64, (stage, sizes)
    assert later[0] < 20000 * networks and sizes[0] > later[0] + 300000, (stage, sizes)
    assert all(row["sync/seconds"] > 0 for row in rows if row["stage"] == stage and "sync/bytes" in row)
PY
}

for via in file stream; do
  separate_job "$work/$via" 2 1 > "$work/separate.yaml"
  "$praetor" train "$work/separate.yaml" --set "publish.via=$via" > "$work/out" 2> "$work/err" & pid=$!
  finish "$pid" "$work/$via" "via $via"
  same_samples "$work/$via/tiny" "via $via"
  small "$work/$via/tiny"
  [ ! -e "$work/$via/tiny/weights" ] || fail "weights were left behind (via $via)"
done

# strike MEMBER ROWS VIA: killed once so many rows (of 27) are written; 7 are of SFT and of PPO's first evaluation, 8 of the Nash stages.
strike() {
  local out=$work/strike pid target
  rm -rf "$out"
  separate_job "$out" 1 1 > "$work/separate.yaml"
  "$praetor" train "$work/separate.yaml" --set "publish.via=$3" > "$work/out" 2> "$work/err" & pid=$!
  while [ ! -d "$out/tiny" ]; do sleep 0.05; done
  target=$(pid_of "$out/tiny" "$1")
  await_rows "$pid" "$out/tiny" "$2"
  kill -KILL "$target" 2> /dev/null || fail "$1 had ended before row $2"
  finish "$pid" "$out" "$1 killed at row $2, via $3"
  same_samples "$out/tiny" "$1 killed at row $2, via $3"
  grep -q "died:" "$work/err" || { cat "$work/err"; fail "nobody said that $1 died"; }
}
strike rollout-0 13 auto
strike rollout-0 22 stream
strike learner-0 14 file
strike learner-0 21 stream
strike controller 13 auto

# A worker that joins late, on what might be another host, fetches the base and the newest adapter; it is alone from then on.
joins_late() {  # OUTPUT NAME
  local pid first second status=0
  separate_job "$1" 0 1 > "$work/separate.yaml"
  "$praetor" train "$work/separate.yaml" --set publish.via=stream > "$work/out" 2> "$work/err" & pid=$!
  while [ ! -e "$1/tiny/controller.json" ]; do sleep 0.05; kill -0 "$pid"; done
  "$praetor" worker --join "$1/tiny" --serve generate --threads 1 2> "$work/first" & first=$!
  await_rows "$pid" "$1/tiny" 14
  "$praetor" worker --join "$1/tiny" --serve generate --threads 1 2> "$work/second" & second=$!
  kill -TERM "$first"
  wait "$first" || status=$?
  [ "$status" -eq 143 ] || { cat "$work/first"; fail "a worker that was asked to leave gave status $status ($2)"; }
  finish "$pid" "$1" "$2"
  same_samples "$1/tiny" "$2"
  wait "$second" || { cat "$work/second"; fail "the worker that joined late ($2)"; }
}
joins_late "$work/hand" "a worker joined late"

# Interrupted, resumed, and replayed.
separate_job "$work/stop" 1 1 > "$work/separate.yaml"
"$praetor" train "$work/separate.yaml" > "$work/out" 2> "$work/err" & pid=$!
while [ ! -d "$work/stop/tiny" ]; do sleep 0.05; done
pid_of "$work/stop/tiny" learner-0 > /dev/null
await_rows "$pid" "$work/stop/tiny" 14
kill -TERM "$pid"
status=0; wait "$pid" || status=$?
[ "$status" -eq 143 ] || { cat "$work/err"; fail "SIGTERM gave status $status"; }
"$praetor" train "$work/separate.yaml" --resume auto > "$work/out" 2> "$work/err" & pid=$!
finish "$pid" "$work/stop" "resumed"
same_samples "$work/stop/tiny" "resumed"
"$praetor" replay "$work/stop/tiny" --step 3 > "$work/replay.json" || { cat "$work/replay.json"; fail "replay"; }
grep -q '"identical":true' "$work/replay.json" || fail "replay of step 3"

# Two ranks: in parts what they publish is what whole ones do, so the runs are equal; with split layers sums round otherwise.
ranks() {  # OUTPUT KEY=VALUE
  separate_job "$work/$1" 1 1 2 > "$work/separate.yaml"
  local stage keys=()
  for stage in ppo nash_md nash_ema; do keys+=(--set "stages.$stage.learner.sharding.$2"); done
  "$praetor" train "$work/separate.yaml" "${keys[@]}" > "$work/out" 2> "$work/err" & pid=$!
  await_end "$pid" "$work/$1" "two ranks, $2"
  small "$work/$1/tiny"
}
ranks whole stage=1
ranks parts stage=3
same_run "$work/whole/tiny" "$work/parts/tiny" "two ranks in parts"
ranks layers tensor=2
"$praetor" replay "$work/layers/tiny" --step 3 > "$work/replay.json" || { cat "$work/replay.json"; fail "replay of split layers"; }
grep -q '"identical":true' "$work/replay.json" || fail "replay of step 3 of split layers"

# Responses that go on under adapters that come while they are sampled.
separate_job "$work/ahead" 1 1 | sed "0,/^    eval: {every: 4}/s//    max_staleness: 1\n    eval: {every: 4}/" > "$work/separate.yaml"
"$praetor" train "$work/separate.yaml" > "$work/out" 2> "$work/err" & pid=$!
await_end "$pid" "$work/ahead" "sampling ahead"
python3 - "$work/ahead/tiny/metrics.jsonl" <<'PY' || fail "sampling ahead"
import json, sys
rows = [row for row in map(json.loads, open(sys.argv[1])) if row["stage"] == "ppo" and "staleness/max" in row]
assert len(rows) == 12 and max(row["staleness/max"] for row in rows) == 1, rows
assert all(row.get("mismatch/logprob_max", 0) < 1e-4 for row in rows), [row.get("mismatch/logprob_max") for row in rows]
PY

# From a GPU. What is published is as small as from the CPU, whose weights it is beside, and workers merge the bits that the colocated
# run's engine has, and results and exports.
emulated=$(dirname "$praetor")/../tests/libpraetor_torch_processor.so
[ -f "$emulated" ] || fail "no $emulated"
export PRAETOR_TORCH_CUDA_LIBRARY=$emulated PRAETOR_CUDA_LIBRARY=$work/none.so  # whatever GPU this machine has
sed -i 's/, lora: /, device: cuda, lora: /' "$work/job.yaml"
sed "s#$work/runs#$work/gpu#" "$work/job.yaml" > "$work/gpu.yaml"
"$praetor" train "$work/gpu.yaml" > "$work/out" 2> "$work/err" || { cat "$work/err"; fail "the colocated run on a GPU"; }
calm=$work/gpu/tiny
for stage in ppo nash_md nash_ema; do
  grep -q "$stage: rank 0 learns on cuda:0" "$calm/logs/train.log" || fail "$stage is not on the GPU"
done
"$praetor" export "$calm" --to "$work/exported" > "$work/out" 2>&1 || { cat "$work/out"; fail "export from a GPU"; }
cmp "$work/exported/model.safetensors" "$calm/stages/nash_ema/model.safetensors" || fail "export from a GPU"

bytes() {  # RUN: of every version
  python3 - "$1/metrics.jsonl" <<'PY'
import json, sys
for row in map(json.loads, open(sys.argv[1])):
    if "sync/bytes" in row: print(row["stage"], row["step"], row["sync/bytes"])
PY
}
for via in file stream; do
  separate_job "$work/gpu-$via" 2 1 > "$work/separate.yaml"
  "$praetor" train "$work/separate.yaml" --set "publish.via=$via" > "$work/out" 2> "$work/err" & pid=$!
  finish "$pid" "$work/gpu-$via" "from a GPU via $via"
  same_samples "$work/gpu-$via/tiny" "from a GPU via $via"
  diff <(bytes "$work/$via/tiny") <(bytes "$work/gpu-$via/tiny") > "$work/diff" || { head -n 5 "$work/diff"; fail "other sizes from a GPU via $via"; }
done
strike rollout-0 13 stream
strike learner-0 14 file
joins_late "$work/gpu-hand" "a worker joined late, from a GPU"
for stage in ppo nash_md nash_ema; do
  "$praetor" replay "$work/gpu-hand/tiny" --stage "$stage" --step 3 > "$work/replay.json" 2> "$work/err" || { cat "$work/replay.json"; fail "replay on a GPU"; }
  grep -q '"identical":true' "$work/replay.json" || fail "replay of step 3 of $stage on a GPU"
done
ranks gpu-parts stage=3
ranks gpu-whole stage=1
same_run "$work/gpu-whole/tiny" "$work/gpu-parts/tiny" "two GPUs in parts"
echo "adapters alone are published: PPO, Nash-MD and Nash-EMA"
