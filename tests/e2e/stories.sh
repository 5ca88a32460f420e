# The story job on the real model and data, shortened: it runs to the end, the learner's log-probabilities are the engine's
# to the last bit, and the result loads again.
source "$(dirname "$0")/lib.sh"
data=${PRAETOR_SHARED:-$root/../shared}/data
if [ ! -d "$data" ]; then
  [ "${CI:-}" != true ] || fail "CI must have the developers' data"
  echo "skipped: no developers' data at $data"
  exit 4
fi
"$praetor" train "$root/configs/stories_ppo.yaml" --set "output=$work/runs" --set "stages.sentiment.data.train=$data/sst2/dev.jsonl" \
  --set "stages.sentiment.data.eval=$data/sst2/test.jsonl" --set stages.sentiment.eval.prompts=50 \
  --set "stages.sentiment.model.path=$data/stories260K" --set "stages.ppo.model.path=$data/stories260K" \
  --set "stages.ppo.data.train=$data/story-prompts/train.jsonl" --set "stages.ppo.data.eval=$data/story-prompts/eval.jsonl" \
  --set stages.ppo.steps=3 --set stages.ppo.eval.require_rise=false --set stages.ppo.ppo.prompts_per_step=16 > "$work/out" 2> "$work/err" ||
  { cat "$work/err"; fail "the story job"; }
python3 - "$work/runs/stories_ppo/metrics.jsonl" <<'PY' || fail "metrics of the story job"
import json, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
ppo = [r for r in rows if r["stage"] == "ppo" and r["step"] > 0]
assert len(ppo) == 3 and all(r["mismatch/logprob_max"] == 0 for r in ppo), ppo
assert ppo[0]["objective/kl"] == 0 and "eval/score" in ppo[-1]
PY
printf '{"prompt":"Once upon a time"}\n' | "$praetor" generate --model "$work/runs/stories_ppo/stages/ppo" --prompts - --max-new-tokens 8 > "$work/made"
grep -q '"finish_reason"' "$work/made" || fail "the result does not generate"
