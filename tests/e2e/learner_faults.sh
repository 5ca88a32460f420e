# A learner rank over MPI that is stopped, in each stage, is named, and the job goes on by itself from its last checkpoint; one that is only
# slow is waited for. Both give bit for bit what the calm run gives, and leave no process. (roles.sh and chaos.sh kill them.)
source "$(dirname "$0")/lib.sh"

# Weights in parts, so that every layer's forward and backward waits for the other rank.
tiny_job 1 16 | sed 's/learner: {optimizer/learner: {sharding: {stage: 3}, optimizer/' > "$work/job.yaml"
[ "$(grep -c "stage: 3" "$work/job.yaml")" -eq 3 ] || fail "the job's learners"
separate_job "$work/calm" 1 1 2 > "$work/separate.yaml"
"$praetor" train "$work/separate.yaml" > "$work/out" 2> "$work/err" || { cat "$work/err"; fail "the calm run"; }
calm=$work/calm/tiny

run=$work/stopped/tiny log=$work/stopped/tiny/logs/controller.log
separate_job "$work/stopped" 1 1 2 > "$work/separate.yaml"
"$praetor" train "$work/separate.yaml" > "$work/out" 2> "$work/err" & pid=$!
begun() { while [ ! -d "$1" ]; do kill -0 "$pid" 2> /dev/null || { cat "$work/err"; fail "no run $1"; }; sleep 0.05; done; }
times() { grep -c "lost $1" "$log" 2> /dev/null || true; }
stop() {  # MEMBER ROWS: once so many rows of metrics are written; until the controller has named it
  local target before
  begun "$run"
  await_rows "$pid" "$run" "$2"
  before=$(times "$1")
  target=$(pid_of "$run" "$1")
  kill -STOP "$target" || fail "$1 had ended before row $2"
  for _ in $(seq 300); do
    [ "$(times "$1")" -le "$before" ] || break
    sleep 0.1
  done
  [ "$(times "$1")" -gt "$before" ] || { kill -CONT "$target"; fail "nobody missed $1, stopped at row $2"; }
  # Not the one that is to be replaced.
  while kill -0 "$target" 2> /dev/null; do sleep 0.05; done
}
stop learner-1 4
stop learner-1 14
stop learner-1 26
stop learner-0 30
finish "$pid" "$work/stopped" "ranks that are stopped"
[ "$(grep -c "^learners died:" "$work/err")" -ge 4 ] || { cat "$work/err"; fail "deaths that were not told"; }
grep -q "lost learner-1 on .*: " "$log" || { cat "$log"; fail "why learner-1 was lost is not told"; }

# Before supervision misses it the other rank does, in an exchange: it names the rank and the step, and the group is started again.
run=$work/named/tiny
separate_job "$work/named" 1 1 2 | sed 's/lost_after: 2/lost_after: 60/; s/ranks: 2}/ranks: 2, timeout: 5}/' > "$work/separate.yaml"
"$praetor" train "$work/separate.yaml" > "$work/out" 2> "$work/err" & pid=$!
begun "$run"
await_rows "$pid" "$run" 26
target=$(pid_of "$run" learner-1)
kill -STOP "$target" || fail "learner-1 had ended before row 26"
for _ in $(seq 300); do
  kill -0 "$target" 2> /dev/null || break
  sleep 0.1
done
finish "$pid" "$work/named" "a rank that another misses"
grep -qE "rank 0.*: .* in step [0-9]+ timed out after 5.* s \(rank 1 (did not come|came, but did not finish)" "$run/logs/learners.log" || { cat "$run/logs/learners.log"; fail "rank 0 does not name the other"; }

# Stopped again and again, but never for as long as supervision waits.
separate_job "$work/slowed" 1 1 2 | sed 's/lost_after: 2/lost_after: 20/' > "$work/separate.yaml"
"$praetor" train "$work/separate.yaml" > "$work/out" 2> "$work/err" & pid=$!
begun "$work/slowed/tiny"
target=$(pid_of "$work/slowed/tiny" learner-1)
pauses=0
while kill -STOP "$target" 2> /dev/null; do
  sleep 0.4
  kill -CONT "$target" 2> /dev/null || break
  pauses=$((pauses + 1))
  sleep 0.3
done
finish "$pid" "$work/slowed" "a rank that is slow"
[ "$pauses" -ge 3 ] || fail "only $pauses pauses"
grep "lost learner" "$work/slowed/tiny/logs/controller.log" && fail "a slow rank was given up"
echo "a rank was stopped four times, and another paused $pauses times"
