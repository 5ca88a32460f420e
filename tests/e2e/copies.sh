# Learner ranks in pairs that keep a copy each, in parts within the pair (learner.sharding.group): when a rank of one pair is killed both
# are started again, and the run is the calm one bit for bit; checkpoints hold one copy, replay and export read it, and another layout, or fewer ranks,
# go on from it to the same weights.
source "$(dirname "$0")/lib.sh"
tiny_job 1 8 > "$work/job.yaml"
# in_pairs OUTPUT: the command line of the job.
in_pairs() {
  separate_job "$1" 1 1 4 > "$work/separate.yaml"
  arguments=("$work/separate.yaml")
  for stage in sft reward_model ppo; do
    arguments+=(--set "stages.$stage.learner.sharding.stage=3" --set "stages.$stage.learner.sharding.group=2")
  done
}
in_pairs "$work/calm"
"$praetor" validate "${arguments[@]}" --plan > "$work/plan" || { cat "$work/plan"; fail "the plan"; }
grep -q "each of 4 learner ranks keeps, at sharding stage 3 in groups of 2:" "$work/plan" || { cat "$work/plan"; fail "the plan does not say groups"; }
status=0
"$praetor" validate "${arguments[@]}" --set stages.sft.learner.sharding.group=3 > "$work/out" 2> "$work/err" || status=$?
[ "$status" = 78 ] && grep -q "group: 3 does not divide the 4 ranks of roles.learner.ranks" "$work/err" || { cat "$work/err"; fail "groups of three of four: $status"; }

"$praetor" train "${arguments[@]}" > "$work/out" 2> "$work/err" || { cat "$work/err"; fail "four ranks in pairs"; }
calm=$work/calm/tiny
[ "$(ls "$calm"/latest/shard-*-of-00002.safetensors | wc -l)" -eq 2 ] || { ls "$calm/latest/"; fail "a checkpoint holds one copy"; }
"$praetor" replay "$calm" --step 5 > "$work/replay.json" || { cat "$work/replay.json"; fail "replay"; }
grep -q '"identical":true' "$work/replay.json" || fail "replay of step 5"
"$praetor" export "$calm/latest" --to "$work/exported" > "$work/out" || fail "export"

in_pairs "$work/killed"
"$praetor" train "${arguments[@]}" > "$work/out" 2> "$work/err" & pid=$!
while [ ! -d "$work/killed/tiny" ]; do sleep 0.05; kill -0 "$pid"; done
target=$(pid_of "$work/killed/tiny" learner-3)
await_rows "$pid" "$work/killed/tiny" 23
kill -KILL "$target" 2> /dev/null || fail "learner-3 had ended before row 23"
finish "$pid" "$work/killed" "a rank of the second pair is killed"
grep -q "died:" "$work/err" || { cat "$work/err"; fail "nobody said that learner-3 died"; }

in_pairs "$work/other"
"$praetor" train "${arguments[@]}" > "$work/out" 2> "$work/err" & pid=$!
await_rows "$pid" "$work/other/tiny" 24
kill -TERM "$pid"
status=0; wait "$pid" || status=$?
[ "$status" -eq 143 ] || { cat "$work/err"; fail "SIGTERM gave status $status"; }
cp -r "$work/other" "$work/fewer"
"$praetor" train "${arguments[@]}" --set stages.ppo.learner.sharding.group=1 --set stages.ppo.learner.sharding.stage=1 --resume auto > "$work/out" 2> "$work/err" &
await_end $! "$work/other" "resumed with a copy on every rank"
[ "$(ls "$work"/other/tiny/latest/shard-*-of-00001.safetensors | wc -l)" -eq 1 ] || { ls "$work/other/tiny/latest/"; fail "a copy on every rank is one shard"; }
near "$calm" "$work/other/tiny" 1e-4 ppo

# The same checkpoint where two ranks are left of the four: one copy.
in_pairs "$work/fewer"
"$praetor" train "${arguments[@]}" --set roles.learner.ranks=2 --resume auto > "$work/out" 2> "$work/err" &
await_end $! "$work/fewer" "resumed on two ranks of four"
near "$calm" "$work/fewer/tiny" 1e-4 ppo
! cmp -s "$calm/stages/ppo/model.safetensors" "$work/fewer/tiny/stages/ppo/model.safetensors" || fail "two ranks sum in the order of four"
