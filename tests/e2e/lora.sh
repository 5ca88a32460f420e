# Adapters in place of weights, from a policy that was trained whole: SFT, a reward model and PPO under LoRA. Their results are whole
# models; a run that is killed, or that is of several processes, is bitwise the calm one; peft reads what export --adapter writes.
source "$(dirname "$0")/lib.sh"
cat > "$work/job.yaml" <<YAML
name: tiny
seed: 1
threads: 1
output: $work/runs
checkpoint: {every: 3, keep_last: 3}
stages:
  - {kind: toy_language, name: language, toy_language: {sft_rows: 200, pair_rows: 100, prompt_rows: 40, eval_rows: 8}}
  - kind: sft
    model: {create: {hidden_size: 32, intermediate_size: 64, num_layers: 2, num_heads: 2, max_positions: 64}}
    tokenizer: {stage: language}
    data: {train: "stage:language/sft.jsonl"}
    steps: 6
    learner: {optimizer: {learning_rate: 0.003}}
    sft: {batch_size: 8}
  - kind: sft
    name: tuned
    model: {stage: sft}
    data: {train: "stage:language/sft.jsonl"}
    steps: 6
    learner: {optimizer: {learning_rate: 0.003}, lora: {rank: 4, alpha: 8, dropout: 0.1, targets: [q_proj, v_proj, down_proj]}}
    sft: {batch_size: 8}
  - kind: reward_model
    model: {stage: sft}
    data: {train: "stage:language/pairs.jsonl"}
    steps: 6
    learner: {optimizer: {learning_rate: 0.003}, lora: {rank: 4}}
    reward_model: {batch_size: 8}
  - kind: ppo
    model: {stage: tuned}
    data: {train: "stage:language/prompts_train.jsonl", eval: "stage:language/prompts_eval.jsonl"}
    steps: 8
    eval: {every: 4}
    sampling: {max_new_tokens: 16}
    rewards: {parts: [{kind: model, name: taste, stage: reward_model}, {kind: length, unit: words, min: 3, weight: 0.5}]}
    learner: {optimizer: {learning_rate: 0.001}, lora: {rank: 4, alpha: 8}}
    ppo: {prompts_per_step: 8, samples_per_prompt: 2, epochs: 2, minibatches: 2, kl: {controller: adaptive}, critic: {optimizer: {learning_rate: 0.001}}}
YAML
"$praetor" validate "$work/job.yaml" --plan > "$work/plan" || { cat "$work/plan"; fail "validate"; }
grep -q "policy's adapter" "$work/plan" || { cat "$work/plan"; fail "the plan shows no adapter"; }
begin=$(date +%s%N)
"$praetor" train "$work/job.yaml" > "$work/out" 2> "$work/err" || { cat "$work/err"; fail "the calm run"; }
length=$(( ($(date +%s%N) - begin) / 1000000 ))
calm=$work/runs/tiny
"$praetor" verify "$calm" > "$work/verify.json" || { cat "$work/verify.json"; fail "verify of the calm run"; }
for pair in "sft tuned" "tuned ppo"; do
  cmp -s "$calm/stages/${pair% *}/model.safetensors" "$calm/stages/${pair#* }/model.safetensors" && fail "${pair#* } has changed nothing"
done

# A checkpoint holds adapters and heads, and what an export makes of it is the result.
python3 - "$calm"/checkpoints/ppo/step-000008/*.safetensors <<'PY'
import json, struct, sys
for path in sys.argv[1:]:
    with open(path, "rb") as f:
        names = [n for n in json.loads(f.read(struct.unpack("<Q", f.read(8))[0])) if n != "__metadata__"]
    assert names and all(".lora_A." in n or ".lora_B." in n or n.endswith("score.weight") for n in names), names
PY
"$praetor" export "$calm/latest" --to "$work/exported" > /dev/null
cmp "$work/exported/model.safetensors" "$calm/stages/ppo/model.safetensors" || fail "the export is not the result"
"$praetor" export "$calm/latest" --to "$work/adapter" --adapter > /dev/null
"$praetor" export "$calm/checkpoints/reward_model/step-000006" --to "$work/taste" --adapter > /dev/null
status=0; "$praetor" export "$calm/checkpoints/sft/step-000006" --to "$work/none" --adapter 2> "$work/err" || status=$?
[ "$status" -ne 0 ] && grep -q 'no learner.lora' "$work/err" || fail "export --adapter of a stage without one gave $status"

# peft, where it is there, computes with base and adapter what the merged folders hold.
python=${PEERS_VENV:-$HOME/peers}/bin/python
if "$python" -c 'import peft, transformers' 2> /dev/null; then
  "$python" - "$calm/stages" "$work/adapter" "$work/taste" 2> "$work/err" <<'PY' || { tail -n 5 "$work/err"; fail "peft"; }
import sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
stages, adapter, taste = sys.argv[1:]
tokens = torch.tensor([[1, 5, 9, 13, 7, 21, 3, 8]])
def distance(kind, base, merged, folder, **options):
    load = lambda name: kind.from_pretrained(f"{stages}/{name}", dtype=torch.float32, **options).eval()
    with torch.no_grad():
        plain = load(base)(tokens).logits
        wanted = load(merged)(tokens).logits
        found = PeftModel.from_pretrained(load(base), folder).eval()(tokens).logits
    assert (found - wanted).abs().max() < 1e-4, (merged, found, wanted)
    assert (plain - wanted).abs().max() > 1e-3, merged
distance(AutoModelForCausalLM, "tuned", "ppo", adapter)
distance(AutoModelForSequenceClassification, "sft", "reward_model", taste, num_labels=1)
PY
fi

# Loaded again on the model that it was trained on, an adapter gives that result.
sed '/name: tuned/,$d' "$work/job.yaml" | sed '$d' > "$work/loaded.yaml"
sed -i "s#$work/runs#$work/loaded#" "$work/loaded.yaml"
cat >> "$work/loaded.yaml" <<YAML
  - kind: sft
    name: loaded
    model: {path: $calm/stages/tuned, adapter: $work/adapter}
    data: {train: "stage:language/sft.jsonl"}
    steps: 1
    learner: {optimizer: {learning_rate: 1.0e-30}, lora: {rank: 1}}
    sft: {batch_size: 8}
YAML
"$praetor" train "$work/loaded.yaml" > "$work/out" 2> "$work/err" || { cat "$work/err"; fail "from an adapter"; }
"$praetor" export "$work/loaded/tiny/latest" --to "$work/loaded/model" > /dev/null
cmp "$work/loaded/model/model.safetensors" "$calm/stages/ppo/model.safetensors" || fail "an adapter that was loaded is another one"

for percent in 35 60 85; do
  rm -rf "$work/again"
  sed "s#$work/runs#$work/again#" "$work/job.yaml" > "$work/again.yaml"
  "$praetor" train "$work/again.yaml" > /dev/null 2> "$work/err" & pid=$!
  sleep "$(awk "BEGIN {print $length * $percent / 100000}")"
  kill -KILL "$pid" 2> /dev/null || true
  wait "$pid" || "$praetor" train "$work/again.yaml" --resume auto > /dev/null 2> "$work/err" || { cat "$work/err"; fail "resume"; }
  same_run "$calm" "$work/again/tiny" "killed after $percent percent"
done
"$praetor" replay "$calm" --step 5 > "$work/replay.json" || { cat "$work/replay.json"; fail "replay"; }
grep -q '"identical":true' "$work/replay.json" || fail "replay of step 5"

separate_job "$work/apart" > "$work/separate.yaml"
"$praetor" train "$work/separate.yaml" > "$work/out" 2> "$work/err" & pid=$!
finish "$pid" "$work/apart" "in several processes"

# Two ranks that keep weights in parts: other sums, the same run by and large.
separate_job "$work/parts" 1 1 2 > "$work/separate.yaml"
"$praetor" train "$work/separate.yaml" --set stages.ppo.learner.sharding.stage=3 --set stages.tuned.learner.sharding.stage=3 \
  > "$work/out" 2> "$work/err" & pid=$!
await_end "$pid" "$work/parts" "two ranks in parts"
python3 - "$calm" "$work/parts/tiny" <<'PY'
import json, sys
def losses(run):
    return [row["sft/loss"] for row in map(json.loads, open(run + "/metrics.jsonl")) if row["stage"] == "tuned" and "sft/loss" in row]
a, b = map(losses, sys.argv[1:])
assert len(a) == len(b) == 6 and all(abs(x - y) < 1e-4 for x, y in zip(a, b)), (a, b)
PY

# The reference that Nash-MD mixes with is the policy without its adapter.
sed '/kind: reward_model/,$d' "$work/job.yaml" > "$work/nash.yaml"
cat >> "$work/nash.yaml" <<YAML
  - kind: nash_md
    data: {train: "stage:language/prompts_train.jsonl"}
    steps: 3
    sampling: {max_new_tokens: 16}
    rewards: {parts: [{kind: length, unit: words, min: 3}]}
    learner: {optimizer: {learning_rate: 0.001}, lora: {rank: 4}}
    nash_md: {prompts_per_step: 8}
YAML
sed -i "s#$work/runs#$work/nash#" "$work/nash.yaml"
"$praetor" train "$work/nash.yaml" > "$work/out" 2> "$work/err" || { cat "$work/err"; fail "Nash-MD"; }
echo "adapters: SFT, reward model, PPO and Nash-MD"
