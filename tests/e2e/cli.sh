# The program as a newcomer meets it: help, slips of the finger, exit codes, JSON on stdout and words on stderr.
source "$(dirname "$0")/lib.sh"
status() { local s=0; "$praetor" "$@" > "$work/out" 2> "$work/err" < /dev/null || s=$?; echo "$s"; }
want() { local s; s=$(status "${@:2}"); [ "$s" -eq "$1" ] || { cat "$work/err"; fail "praetor ${*:2}: status $s, not $1"; }; }

want 0 --help
for command in train validate submit cancel status generate serve logprobs tokenize score export replay verify doctor controller worker learner; do
  grep -q "^  $command " <(status --help > /dev/null; cat "$work/out") || fail "--help does not name $command"
  want 0 "$command" --help
done
want 64 trian
grep -q "Did you mean 'praetor train'" "$work/err" || fail "no nearest command"
want 64
want 64 train
want 66 train "$work/none.yaml"
grep -q none.yaml "$work/err" || fail "a missing job file is not named"
printf 'name: x\nstages:\n  - {kind: ppo, dta: 1}\n' > "$work/bad.yaml"
want 78 train "$work/bad.yaml"
grep -q 'bad.yaml:3' "$work/err" || fail "a broken job has no place"
[ ! -e runs/x ] || fail "a broken job made a run directory"
want 66 status "$work"
mkdir "$work/waiting"; touch "$work/waiting/resolved.yaml"
echo '{"jobs": [{"id": "17", "until": "", "script": "slurm.sbatch"}]}' > "$work/waiting/slurm.json"
want 0 status "$work/waiting"
grep -q "has not started" "$work/err" && grep -q "Slurm job 17" "$work/err" || fail "a run that waits in a queue is not told of"
want 66 verify "$work/none"
want 66 replay "$work" --step 1
want 66 export "$work/none" --to "$work/to"
want 66 logprobs --model "$work/none" --input "$work/none"
want 66 serve --model "$work/none" --port 0
want 64 serve --model "$work/none" --port 0 --host 0.0.0.0
grep -q -e --api-key-file "$work/err" || fail "an open server is not told what to do"
want 66 generate --model "$work/none" --prompts "$work/none" --max-new-tokens 4
want 0 doctor --json
python3 -m json.tool < "$work/out" > /dev/null || fail "doctor --json is not JSON"
grep -q '"sandbox":{"works":' "$work/out" || fail "doctor does not speak of the sandbox"
grep -q '"gpu_library":{"file":' "$work/out" || fail "doctor does not speak of the GPU library"

# A run directory that cannot be made, and one that is in use.
tiny_job 1 2 > "$work/job.yaml"
: > "$work/file"
want 74 train "$work/job.yaml" --set "output=$work/file/runs"
want 0 train "$work/job.yaml"
python3 -m json.tool < "$work/out" > /dev/null || fail "train's last line is not JSON"
exec 7> "$work/runs/tiny/.lock"; flock 7
want 75 train "$work/job.yaml" --resume "$work/runs/tiny"
exec 7>&-
want 0 train "$work/job.yaml" --resume auto

# From the job's own model: tokens there and back, log-probabilities, samples, scores.
model=$work/runs/tiny/stages/ppo
printf '"in spring the owl"\n' | "$praetor" tokenize --model "$model" > "$work/tokens" || fail tokenize
[ "$("$praetor" tokenize --model "$model" --decode < "$work/tokens")" = '{"text":"in spring the owl"}' ] || fail "decode"
printf '{"prompt":"in spring the owl went"}\n' > "$work/prompts"
"$praetor" generate --model "$model" --prompts "$work/prompts" --max-new-tokens 5 --temperature 0 --stats "$work/stats" > "$work/made"
"$praetor" generate --model "$model" --prompts "$work/prompts" --max-new-tokens 5 --temperature 0 --batch 1 | cmp - "$work/made" || fail "generate repeats"
python3 - "$work" <<'PY' || fail "shapes of generate, logprobs and score"
import json, subprocess, sys
work = sys.argv[1]
made = json.loads(open(work + "/made").readline())
assert set(made) == {"prompt_index", "sample_index", "tokens", "text", "logprobs", "finish_reason"}, made
assert len(made["tokens"]) == len(made["logprobs"]) and made["finish_reason"] in ("stop", "length")
stats = json.load(open(work + "/stats"))
assert {"prompts", "tokens", "seconds", "tokens_per_second", "peak_rss_bytes"} <= set(stats), stats
prompt = json.loads(open(work + "/tokens").readline())["tokens"]
open(work + "/rows", "w").write(json.dumps({"tokens": prompt}) + "\n")
PY
"$praetor" logprobs --model "$model" --input "$work/rows" > "$work/logprobs"
grep -q '"logprobs":\[' "$work/logprobs" || fail logprobs
printf 'parts: [{kind: model, path: %s}, {kind: keywords, required: [kind], weight: 2}]\n' "$work/runs/tiny/stages/reward_model" > "$work/reward.yaml"
printf '{"prompt":"in spring","response":" the owl was kind"}\n' > "$work/samples"
"$praetor" score --reward "$work/reward.yaml" --input "$work/samples" | grep -q '"keywords":{"score":1' || fail score
printf '{"prompt":1}\n' > "$work/samples"
want 65 score --reward "$work/reward.yaml" --input "$work/samples"
grep -q 'samples:1' "$work/err" || fail "a bad row has no place"
