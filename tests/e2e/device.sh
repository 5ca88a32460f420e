# engine.device: cuda. Without a GPU every command says what is missing before it does anything; over a GPU library whose devices
# are the processor (tests/cuda_processor) the whole program runs: generate, serve, a colocated and a separate run.
source "$(dirname "$0")/lib.sh"
emulated=$(dirname "$praetor")/../tests/libpraetor_cuda_processor.so
[ -f "$emulated" ] || fail "no $emulated"

tiny_job 1 6 | sed 's/hidden_size: 32/hidden_size: 16/; s/    ppo: {/    engine: {device: cuda, max_sequences: 16, max_step_tokens: 64}\n    ppo: {/' > "$work/job.yaml"
"$praetor" validate "$work/job.yaml" > "$work/out" 2>&1 || { cat "$work/out"; fail "validate"; }

# No GPU: a library that is not there, and a machine that sees none.
export PRAETOR_CUDA_LIBRARY=$work/none.so
for command in "train $work/job.yaml" "generate --model $work --prompts - --device cuda" "serve --model $work --port 0 --device cuda"; do
  status=0
  "$praetor" $command < /dev/null > "$work/out" 2>&1 || status=$?
  [ "$status" -eq 66 ] || { cat "$work/out"; fail "status $status of $command"; }
  grep -q "device: cuda: GPU library: PRAETOR_CUDA_LIBRARY names $work/none.so, which is not there" "$work/out" || { cat "$work/out"; fail "what $command says"; }
done
[ ! -e "$work/runs" ] || fail "a run was begun without a GPU"

export PRAETOR_CUDA_LIBRARY=$emulated TMPDIR=$work
"$praetor" train "$work/job.yaml" > "$work/out" 2> "$work/err" || { cat "$work/err"; fail "the colocated run"; }
calm=$work/runs/tiny
"$praetor" verify "$calm" > "$work/verify.json" || { cat "$work/verify.json"; fail "verify"; }
grep -q '"weights": *"*bfloat16\|weights: bfloat16' "$calm/resolved.yaml" || fail "resolved.yaml has not the kind of weights"
python3 - "$calm/metrics.jsonl" <<'PY' || fail "the GPU's numbers are too far from the learner's"
import json, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
apart = [row["mismatch/logprob_mean"] for row in rows if "mismatch/logprob_mean" in row]
assert apart and 0 < max(apart) < 0.05, apart
PY
"$praetor" replay "$calm" --stage ppo --step 3 > "$work/replay.json" || { cat "$work/replay.json"; fail "replay"; }
grep -q '"identical":true' "$work/replay.json" || fail "replay"

# Two workers have a GPU each, and the samples do not depend on who made them.
separate_job "$work/s" 2 0 > "$work/separate.yaml"
"$praetor" train "$work/separate.yaml" > "$work/out" 2> "$work/err" & pid=$!
finish "$pid" "$work/s" "separate roles"
cat "$work"/s/tiny/logs/* > "$work/logs"
for gpu in 0 1; do grep -q "GPU $gpu: processor" "$work/logs" || fail "no worker has GPU $gpu"; done

# The same prompts on the processor: with greedy draws nearly all tokens are the same.
model=$(echo "$calm"/stages/*ppo)
for i in 1 2 3 4; do echo '{"prompt": "one morning the cat"}'; echo '{"prompt": "the dog"}'; done > "$work/prompts.jsonl"
generate() { "$praetor" generate --model "$model" --prompts "$work/prompts.jsonl" --max-new-tokens 12 --temperature 0 "$@"; }
generate > "$work/cpu" 2> "$work/err" || { cat "$work/err"; fail "generate on the processor"; }
generate --device cuda > "$work/gpu" 2> "$work/err" || { cat "$work/err"; fail "generate"; }
generate --device cuda --top-logprobs 2 --draft-tokens 3 --batch 3 > "$work/other" 2> "$work/err" || { cat "$work/err"; fail "generate with guesses"; }
python3 - "$work/cpu" "$work/gpu" "$work/other" <<'PY' || fail "the GPU's responses"
import json, sys
cpu, gpu, other = ([json.loads(line)["tokens"] for line in open(name)] for name in sys.argv[1:])
same = sum(a == b for x, y in zip(cpu, gpu) for a, b in zip(x, y))
assert same >= 0.7 * sum(map(len, cpu)), (cpu, gpu)
assert gpu == other, (gpu, other)
PY
status=0
generate --device cuda --weights int8 > "$work/out" 2>&1 || status=$?
{ [ "$status" -eq 64 ] && grep -q "weights: int8: device cuda multiplies by bfloat16" "$work/out"; } || { cat "$work/out"; fail "int8 on a GPU"; }

"$praetor" serve --model "$model" --name ppo --port 0 --device cuda --cache-bytes 4194304 > "$work/serve" 2>&1 & pid=$!
for _ in $(seq 100); do url=$(sed -n 's/.*on \(http[^ ]*\).*/\1/p' "$work/serve"); [ -n "$url" ] && break; sleep 0.1; done
answer=$(curl -s "$url/completions" -H 'Content-Type: application/json' -d '{"model": "ppo", "prompt": "the dog", "max_tokens": 5, "temperature": 0}')
kill -TERM "$pid"; wait "$pid" || fail "the end of serve"
echo "$answer" | grep -q '"completion_tokens": *5\|"finish_reason": *"stop"' || { echo "$answer"; cat "$work/serve"; fail "serve"; }
echo "one engine on the emulated GPU"
