# Reward models of several attributes as whole jobs: regression on labels, a probe of a reward model in closed form, gates over
# both, and a policy that is asked in directions of preference. Separate processes give the colocated run's weights and metrics, bit
# for bit, also when the learner is killed; stages are resumed, steps replay, and the folders score from the command line.
source "$(dirname "$0")/lib.sh"

tiny_job 5 | sed '/kind: ppo/,$d' > "$work/job.yaml"
cat >> "$work/job.yaml" <<'YAML'
  - kind: attribute_model
    data: {train: "stage:language/attributes.jsonl", eval: "stage:language/attributes_eval.jsonl"}
    steps: 30
    learner: {optimizer: {learning_rate: 0.003}}
    attribute_model: {batch_size: 16, attributes: {kindness: 1, verbosity: -0.5}}
  - kind: attribute_gate
    data: {train: "stage:language/pairs.jsonl", eval: "stage:language/pairs_eval.jsonl"}
    steps: 6
    learner: {optimizer: {learning_rate: 0.001}}
    attribute_gate: {batch_size: 8, layers: 1, width: 16, verbosity: verbosity}
  - kind: attribute_probe
    model: {stage: reward_model}
    data: {train: "stage:language/attributes.jsonl", eval: "stage:language/attributes_eval.jsonl"}
    attribute_probe: {attributes: {kindness: 1, verbosity: -0.5}, alphas: [0.1, 1, 10]}
  - kind: attribute_gate
    name: probe_gate
    data: {train: "stage:language/pairs.jsonl"}
    steps: 3
    attribute_gate: {batch_size: 8, layers: 1, width: 16, verbosity: verbosity}
  - kind: dpa
    model: {stage: sft}
    data: {train: "stage:language/prompts_train.jsonl", eval: "stage:language/prompts_eval.jsonl"}
    steps: 7
    eval: {every: 3}
    sampling: {max_new_tokens: 12}
    rewards: {parts: [{kind: attributes, name: quality, stage: attribute_model, direction: [kindness, verbosity], rescale: {from_model: true}}]}
    learner: {optimizer: {learning_rate: 0.001}}
    dpa: {prompts_per_step: 6, samples_per_prompt: 3, text: "{a} {b}:"}
  - kind: raft
    model: {stage: sft}
    data: {train: "stage:language/prompts_train.jsonl"}
    steps: 2
    sampling: {max_new_tokens: 12}
    rewards: {parts: [{kind: attributes, name: quality, stage: attribute_gate}, {kind: attributes, name: probed, stage: probe_gate}]}
    raft: {prompts_per_step: 4, samples_per_prompt: 3}
YAML
"$praetor" train "$work/job.yaml" > "$work/out" 2> "$work/err" || { cat "$work/err"; fail "the colocated run"; }
calm=$work/runs/tiny
"$praetor" verify "$calm" > "$work/verify.json" || { cat "$work/verify.json"; fail "verify of the calm run"; }
for step in attribute_model/7 attribute_gate/6 attribute_probe/1 probe_gate/2 dpa/5; do
  "$praetor" replay "$calm" --stage "${step%/*}" --step "${step#*/}" > "$work/replay.json" || { cat "$work/replay.json"; fail "replay of $step"; }
  grep -q '"identical":true' "$work/replay.json" || fail "replay of $step"
done

# What was trained moves; the gate leaves the model below it alone; directions spread and are told to policy and rewards.
cmp "$calm/stages/"{attribute_model,attribute_gate}/model.safetensors || fail "the gate moved the frozen model"
cmp "$calm/stages/"{attribute_probe,probe_gate}/model.safetensors || fail "the gate moved the probe"
python3 - "$calm" <<'PY'
import json, sys
run = sys.argv[1]
rows = [json.loads(line) for line in open(f"{run}/metrics.jsonl")]
of = lambda stage: {r["step"]: r for r in rows if r["stage"] == stage}
model = of("attribute_model")
assert model[30]["eval/pearson"] > model[0]["eval/pearson"], (model[0], model[30])
assert model[30]["eval/loss"] < model[0]["eval/loss"]
assert model[30]["eval/pairs"] > 0 and "attributes/verbosity/mse" in model[30]
gate = of("attribute_gate")
assert gate[6]["gate/scale"] != 1 and gate[6]["gate/pairs"] == 8, gate[6]
described = json.load(open(f"{run}/stages/attribute_gate/praetor_reward.json"))
assert [a["name"] for a in described["attributes"]] == ["kindness", "verbosity"], described
assert json.load(open(f"{run}/stages/attribute_model/config.json"))["id2label"] == {"0": "kindness", "1": "verbosity"}
probe = of("attribute_probe")
assert sorted(probe) == [0, 1], probe
assert probe[1]["eval/pearson"] > probe[0]["eval/pearson"] and probe[1]["eval/loss"] < probe[0]["eval/loss"], probe
assert probe[1]["data/consumed"] == 2000 and probe[1]["data/epoch"] == 1, probe[1]
for name in ("kindness", "verbosity"):
    assert probe[1][f"attributes/{name}/alpha"] in (0.1, 1, 10) and probe[1][f"attributes/{name}/held_out_mse"] > 0, probe[1]
described = json.load(open(f"{run}/stages/probe_gate/praetor_reward.json"))
assert [(a["name"], a["weight"]) for a in described["attributes"]] == [("kindness", 1), ("verbosity", -0.5)], described
dpa = of("dpa")
for name in ("dpa/kindness", "dpa/best_score", "dpa/pareto_area", "reward/quality/verbosity", "policy/loss"):
    assert name in dpa[7], name
assert any(name.startswith("eval/dpa/angle_") for name in dpa[7]) and "eval/quality/kindness" in dpa[7]
assert all(r["dpa/best_score"] >= r["reward/mean"] for s, r in dpa.items() if s > 0)
assert "reward/quality/kindness" in of("raft")[2] and "reward/probed/kindness" in of("raft")[2]
PY

# From the checkpoint of the probe, and of the stage before it, when the probe is made again.
for checkpoint in attribute_probe/step-000001 attribute_gate/step-000004; do
  rm -rf "$work/copy" && cp -r "$calm" "$work/copy"
  "$praetor" train "$work/job.yaml" --resume "$work/copy/checkpoints/$checkpoint" > "$work/out" 2> "$work/err" ||
    { cat "$work/err"; fail "resume from $checkpoint"; }
  same_run "$calm" "$work/copy" "from $checkpoint"
done

separate_job "$work/s" 2 1 > "$work/separate.yaml"
"$praetor" train "$work/separate.yaml" > "$work/out" 2> "$work/err" & pid=$!
finish "$pid" "$work/s" "separate roles"

separate_job "$work/k" 1 1 > "$work/separate.yaml"
"$praetor" train "$work/separate.yaml" > "$work/out" 2> "$work/err" & pid=$!
while [ ! -d "$work/k/tiny" ]; do sleep 0.05; done
target=$(pid_of "$work/k/tiny" learner-0)
before=$(grep -nE '"stage": ?"dpa"' "$calm/metrics.jsonl" | sed -n 4p | cut -d: -f1)
await_rows "$pid" "$work/k/tiny" "$before"
kill -KILL "$target" 2> /dev/null || fail "the learner had ended"
finish "$pid" "$work/k" "the learner killed"

# The folders from the command line: by weights, by the gate, by a row's direction.
cat > "$work/rewards.yaml" <<YAML
parts:
  - {kind: attributes, name: own, path: "$calm/stages/attribute_model"}
  - {kind: attributes, name: gated, path: "$calm/stages/attribute_gate"}
  - {kind: attributes, name: probed, path: "$calm/stages/attribute_probe"}
  - {kind: attributes, name: asked, path: "$calm/stages/attribute_model", direction: [kindness, verbosity]}
YAML
echo '{"prompt": "one morning the fox went to the river .", "response": " the fox was kind . the end .", "direction": [0.6, -0.8]}' > "$work/rows.jsonl"
"$praetor" score --reward "$work/rewards.yaml" --input "$work/rows.jsonl" > "$work/scores.jsonl" 2> "$work/err" || { cat "$work/err"; fail "score"; }
python3 - "$work/scores.jsonl" <<'PY'
import json, sys
parts = json.loads(open(sys.argv[1]).read())["parts"]
for name, part in parts.items():
    total = sum(a["value"] * a["weight"] for a in part["attributes"].values())
    assert abs(total - part["score"]) < 1e-9, (name, part)
assert parts["asked"]["attributes"]["verbosity"]["weight"] == -0.8
assert parts["own"]["attributes"]["verbosity"]["weight"] == -0.5
assert parts["gated"]["attributes"]["verbosity"]["value"] == 0
PY
