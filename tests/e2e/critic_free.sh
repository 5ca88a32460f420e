# Policy gradients without a critic as whole jobs: groups that are dropped and replaced (dapo), a second, greedy voice (remax),
# best-of-n (raft). Separate processes give the colocated run's weights, bit for bit, and steps replay.
source "$(dirname "$0")/lib.sh"

job() {  # job OUTPUT: a policy of seconds, then three methods from it
  cat <<YAML
name: groups
seed: 3
threads: 1
output: $1
stages:
  - {kind: toy_language, name: language, toy_language: {sft_rows: 200, prompt_rows: 40, eval_rows: 8}}
  - kind: sft
    model: {create: {hidden_size: 32, intermediate_size: 64, num_layers: 1, num_heads: 2, max_positions: 64}}
    tokenizer: {stage: language}
    data: {train: "stage:language/sft.jsonl"}
    steps: 60
    learner: {optimizer: {learning_rate: 0.003}}
YAML
  local kind
  for kind in dapo remax raft; do
    cat <<YAML
  - kind: $kind
    model: {stage: sft}
    data: {train: "stage:language/prompts_train.jsonl", eval: "stage:language/prompts_eval.jsonl"}
    steps: 3
    sampling: {max_new_tokens: 16}
    rewards: {parts: [{kind: keywords, required: [the]}]}
    learner: {optimizer: {learning_rate: 0.001}}
    $kind: {prompts_per_step: 6, samples_per_prompt: 4}
YAML
  done
}

job "$work/one" > "$work/one.yaml"
"$praetor" train "$work/one.yaml" > "$work/out" 2> "$work/err" || { cat "$work/err"; fail "the colocated run"; }
{ job "$work/many"; echo 'placement: separate'; echo 'roles: {rollout: {workers: 2, threads: 1}, reward: {workers: 1, threads: 1}}'; } > "$work/many.yaml"
"$praetor" train "$work/many.yaml" > "$work/out" 2> "$work/err" || { cat "$work/err"; fail "the run of separate roles"; }
for kind in dapo remax raft; do
  cmp "$work"/{one,many}"/groups/stages/$kind/model.safetensors" || fail "$kind: other weights"
  ! cmp -s "$work/one/groups/stages/"{sft,$kind}/model.safetensors || fail "$kind: learned nothing"
  "$praetor" replay "$work/many/groups" --stage "$kind" --step 2 > "$work/replay.json" || { cat "$work/replay.json"; fail "replay of $kind"; }
  grep -q '"identical":true' "$work/replay.json" || fail "replay of $kind"
done
"$praetor" verify "$work/many/groups" > "$work/verify.json" || { cat "$work/verify.json"; fail "verify"; }

# The step of dapo has all its groups, though some were dropped; raft's best are better than its mean.
python3 - "$work/many/groups/metrics.jsonl" <<'PY'
import json, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
steps = lambda stage: [r for r in rows if r["stage"] == stage and r["step"] > 0 and "reward/mean" in r]
assert [len(steps(s)) for s in ("dapo", "remax", "raft")] == [3, 3, 3]
assert sum(r["data/dropped"] for r in steps("dapo")) > 0
assert all(r["group/size"] == 4 and r["group/std"] > 0 for r in steps("dapo")), steps("dapo")
assert steps("dapo")[-1]["data/consumed"] > 18
assert all("remax/greedy_score" in r and r["remax/without_baseline"] == 0 for r in steps("remax"))
assert all(r["raft/best_score"] >= r["reward/mean"] for r in steps("raft"))
PY
