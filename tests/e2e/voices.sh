# Stages with voices beside the policy (mixtures, references, anchors, rows' own answers): separate roles give bit for bit
# what the colocated run gives, also when the learner is killed; stopped runs resume, and steps replay.
source "$(dirname "$0")/lib.sh"

online() {  # KIND STEPS SECTION [TRAIN [EVAL]]: a stage of rollouts
  cat <<YAML
  - kind: $1
    model: {stage: sft}
    data: {train: "${4:-stage:language/prompts_train.jsonl}", eval: "${5:-stage:language/prompts_eval.jsonl}"}
    steps: $2
    eval: {every: 4}
    sampling: {max_new_tokens: 12}
    rewards: {parts: [{kind: model, name: taste, stage: reward_model}, {kind: length, unit: words, min: 3, weight: 0.5}]}
    learner: {optimizer: {learning_rate: 0.001}}
    $1: {prompts_per_step: 6, $3}
YAML
}
python3 - "$work/answered.jsonl" <<'PY'
import json, sys
with open(sys.argv[1], "w") as out:
    for i in range(24):
        out.write(json.dumps({"prompt": "one morning the cat", "baseline": " went home .", "task": "ab"[i % 2]}) + "\n")
PY
tiny_job 1 | sed '/kind: ppo/,$d' > "$work/job.yaml"
{
  online nash_md 6 "mixture: 0.25, opponents: 2, reference_samples: 1"
  online nash_ema 4 "decay: 0.5"
  online ipo_md 4 "tau: 0.5"
  online xpo 4 "alpha: 0.001"
  online inpo 5 "samples_per_prompt: 3, iteration_steps: 2, eta: 0.5, tau: 0.1"
  online cgpo 5 "baseline: dataset, tasks: {a: {optimizer: crpg, samples_per_prompt: 3}, b: {optimizer: crraft, samples_per_prompt: 2}}" \
    "$work/answered.jsonl" "$work/answered.jsonl" |
    sed 's/    rewards: {parts/    rewards: {tasks: {a: {parts: [{kind: length, name: few, max: 9, weight: 0.1}]}, b: {parts: [{kind: repetition, use: constraint, threshold: 0.5}]}}, parts/'
} >> "$work/job.yaml"
"$praetor" train "$work/job.yaml" > "$work/out" 2> "$work/err" || { cat "$work/err"; fail "the colocated run"; }
calm=$work/runs/tiny
"$praetor" verify "$calm" > "$work/verify.json" || { cat "$work/verify.json"; fail "verify of the calm run"; }
for name in nash/prob_vs_ref nash/opponent_length ipo_md/pairs inpo/pairs xpo/reference_logprob cgpo/a/reward cgpo/b/baseline_used; do
  grep -q "\"$name\"" "$calm/metrics.jsonl" || fail "no metric $name"
done
for step in nash_md/3 nash_ema/4 inpo/5 cgpo/2; do
  "$praetor" replay "$calm" --stage "${step%/*}" --step "${step#*/}" > "$work/replay.json" || { cat "$work/replay.json"; fail "replay of $step"; }
  grep -q '"identical":true' "$work/replay.json" || fail "replay of $step"
done

separate_job "$work/s" 2 1 > "$work/separate.yaml"
"$praetor" train "$work/separate.yaml" > "$work/out" 2> "$work/err" & pid=$!
finish "$pid" "$work/s" "separate roles"

# Weights streamed, the learner killed while the anchor of inpo is away from the policy.
separate_job "$work/k" 1 1 | sed 's/^placement: separate/placement: separate\npublish: {via: stream}/' > "$work/separate.yaml"
"$praetor" train "$work/separate.yaml" > "$work/out" 2> "$work/err" & pid=$!
while [ ! -d "$work/k/tiny" ]; do sleep 0.05; done
target=$(pid_of "$work/k/tiny" learner-0)
before=$(grep -nE '"stage": ?"inpo"' "$calm/metrics.jsonl" | sed -n 4p | cut -d: -f1)
await_rows "$pid" "$work/k/tiny" "$before"
kill -KILL "$target" 2> /dev/null || fail "the learner had ended"
finish "$pid" "$work/k" "streamed, the learner killed"
