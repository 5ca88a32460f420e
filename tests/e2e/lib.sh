# Shared by the end-to-end scripts: source it with the praetor binary as $1.
set -euo pipefail
praetor=$(realpath "$1")
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export OMP_WAIT_POLICY=passive

fail() { echo "FAILED: $*" >&2; exit 1; }

# A quickstart of seconds: fewer rows and steps, the same stages.
tiny_job() {
  cat <<YAML
name: tiny
seed: ${1:-1}
threads: 1
output: $work/runs
checkpoint: {every: 4, keep_last: 3}
stages:
  - {kind: toy_language, name: language, toy_language: {sft_rows: 200, pair_rows: 100, prompt_rows: 40, eval_rows: 8}}
  - kind: sft
    model: {create: {hidden_size: 32, intermediate_size: 64, num_layers: 1, num_heads: 2, max_positions: 64}}
    tokenizer: {stage: language}
    data: {train: "stage:language/sft.jsonl"}
    steps: 10
    learner: {optimizer: {learning_rate: 0.003}}
    sft: {batch_size: 8}
  - kind: reward_model
    data: {train: "stage:language/pairs.jsonl"}
    steps: 10
    learner: {optimizer: {learning_rate: 0.003}}
    reward_model: {batch_size: 8}
  - kind: ppo
    model: {stage: sft}
    data: {train: "stage:language/prompts_train.jsonl", eval: "stage:language/prompts_eval.jsonl"}
    steps: ${2:-14}
    eval: {every: 5}
    sampling: {max_new_tokens: 16}
    rewards: {parts: [{kind: model, name: taste, stage: reward_model}, {kind: length, unit: words, min: 3, weight: 0.5}]}
    learner: {optimizer: {learning_rate: 0.001}}
    ppo: {prompts_per_step: 8, samples_per_prompt: 2, epochs: 2, minibatches: 2, kl: {controller: adaptive}, critic: {init: reward, optimizer: {learning_rate: 0.001}}}
YAML
}

# The figures of a run that depend on the job alone: no seconds, no rates.
stable_metrics() {
  python3 - "$1/metrics.jsonl" <<'PY'
import json, sys
skip = ("time/", "perf/", "idle/", "judge/", "fault/", "rollout/tokens_per_second", "sync/seconds", "sync/bytes", "sync/epoch", "sync/receivers")
for line in open(sys.argv[1]):
    row = json.loads(line)
    print(json.dumps({k: v for k, v in row.items() if not k.startswith(skip)}, sort_keys=True))
PY
}

# Fails unless both runs have the same weights and metrics, bit for bit.
same_run() {
  local weights stage
  for weights in "$1"/stages/*/model.safetensors; do
    stage=$(basename "$(dirname "$weights")")
    cmp "$weights" "$2/stages/$stage/model.safetensors" || fail "$stage: other weights ($3)"
  done
  diff <(stable_metrics "$1") <(stable_metrics "$2") > "$work/diff" || { head -n 5 "$work/diff"; fail "other metrics ($3)"; }
}

near() {  # RUN OTHER TOLERANCE STAGE...: weights of those stages, in L2
  python3 - "$@" <<'PY' || fail "the weights of $2 are too far from those of $1"
import array, json, math, struct, sys
def read(file):
    data = open(file, "rb").read()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    out = []
    for name in sorted(header):
        if name == "__metadata__": continue
        begin, end = header[name]["data_offsets"]
        out.extend(array.array("f", data[8 + size + begin:8 + size + end]))
    return out
for stage in sys.argv[4:]:
    one, other = (read(f"{run}/stages/{stage}/model.safetensors") for run in sys.argv[1:3])
    apart = math.dist(one, other) / math.hypot(*one)
    print(f"{stage}: {apart:.1e} apart")
    assert 0 <= apart < float(sys.argv[3]), (stage, apart)
PY
}

# separate_job OUTPUT [ROLLOUT [REWARD [RANKS]]]: the job $work/job.yaml as processes; quick to notice what is lost.
separate_job() {
  sed "s#$work/runs#$1#" "$work/job.yaml"
  cat <<YAML
placement: separate
supervision: {heartbeat: 0.2, lost_after: 2, patience: 30}
roles:
  rollout: {workers: ${2:-1}, threads: 1}
  reward: {workers: ${3:-1}, threads: 1}
  learner: {ranks: ${4:-1}}
YAML
}
no_orphans() {
  local left
  left=$(pgrep -f "$1" || true)
  [ -z "$left" ] || { ps -fp $left; fail "processes left over ($2)"; }
}
await_end() {  # PID OUTPUT NAME: the run ends by itself, its account holds, and no process is left
  local status=0 waited=0
  while kill -0 "$1" 2>/dev/null; do
    sleep 0.2; waited=$((waited + 1))
    [ "$waited" -lt 600 ] || { kill "$1"; tail -n 40 "$work/err"; fail "no end after 120 s ($3)"; }
  done
  wait "$1" || status=$?
  [ "$status" -ne 4 ] || { cat "$work/out"; exit 4; }  # of CMakeLists.txt: skipped
  [ "$status" -eq 0 ] || { cat "$work/err"; tail -n 20 "$2"/tiny/logs/*; fail "status $status ($3)"; }
  "$praetor" verify "$2/tiny" > "$work/verify.json" || { cat "$work/verify.json"; fail "verify ($3)"; }
  no_orphans "$2/tiny" "$3"
}
finish() {  # PID OUTPUT NAME: the same, and it has become the run $calm
  await_end "$@"
  same_run "$calm" "$2/tiny" "$3"
}

# pid_of RUN MEMBER: its process, once it has joined.
pid_of() {
  local tries pid
  for tries in $(seq 100); do
    if [ "$2" = controller ]; then
      pid=$(sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' "$1/controller.json" 2>/dev/null || true)
    else
      pid=$("$praetor" status "$1" --json 2>/dev/null | python3 -c '
import json, sys
for m in json.load(sys.stdin).get("roles", {}).get("members", []):
    if m["name"] == sys.argv[1] and m["state"] != "lost": print(m["pid"])' "$2" 2>/dev/null || true)
    fi
    [ -n "$pid" ] && { echo "$pid"; return; }
    sleep 0.1
  done
  fail "no process of $2"
}

await_rows() {  # PID RUN ROWS: until so many rows of metrics are written
  while [ "$(cat "$2/metrics.jsonl" 2> /dev/null | wc -l)" -lt "$3" ] && kill -0 "$1"; do sleep 0.01; done
}
