# A job on two Slurm nodes goes on by itself: put back into the queue by hand, at the end of its time, and when a node dies; it
# ends as the run of one process, bit for bit.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/slurm_lib.sh"
calm_run 60
echo "the calm run: $SECONDS s"

restarts_of() { scontrol show job -o "$1" | sed -n 's/.* Restarts=\([0-9]*\).*/\1/p'; }

# Slurm starts it again.
slurm_job again 60 > "$work/again.yaml"
submit again
await_metrics "$run" 25 "a job to requeue"
scontrol requeue "$id"
check_run "requeued"
[ "$(restarts_of "$id")" = 1 ] || fail "it was not started again"

# It saves before its time is over, goes back into the queue and resumes. (The least limit is a minute, of which the margin leaves
# two seconds. Slurm may start it again before the limit is raised, and then it goes back once more.)
slurm_job limit 60 > "$work/limit.yaml"
submit limit --set launcher.slurm.time=1 --set launcher.slurm.margin=58
for _ in $(seq 300); do grep -qs "Slurm job $id is queued again" "$run/logs/slurm-$id.log" && break; sleep 0.1; done
scontrol update "JobId=$id" TimeLimit=30
check_run "at the end of its time"
[ "$(restarts_of "$id")" -ge 1 ] || { cat "$run"/logs/slurm-*.log; fail "it was not started again"; }
grep -q "the allocation ends in 5[0-9] s" "$run/logs/slurm-$id.log" || fail "the end was not seen"

# Slurm's warning, to a job of one process: it saves, goes back into the queue and resumes.
slurm_job warned 60 > "$work/warned.yaml"
submit warned --set placement=colocated --set launcher.slurm.nodes=1
await_metrics "$run" 25 "a job to warn"
scancel --signal=USR1 --batch "$id"
check_run "warned"
[ "$(restarts_of "$id")" = 1 ] || fail "a warned job was not started again"

# A node dies, and with it a learner rank and a worker: all go on on the other one.
separate_job "$work/two" 1 1 2 > "$work/two.yaml"
"$praetor" train "$work/two.yaml" > "$work/out" 2> "$work/err" || { cat "$work/err"; fail "two ranks"; }
one=$calm
calm=$work/two/tiny
slurm_job loss 60 > "$work/loss.yaml"
submit loss --set roles.learner.ranks=2
await_metrics "$run" 25 "a job to take a node from"
"$root/scripts/slurm-testbed" lose n2 "$testbed"
check_run "a node is lost"
grep -q "died:" "$run/logs/slurm-$id.log" || fail "nobody said that a worker died"
[ "$(restarts_of "$id")" = 0 ] || fail "the whole job was started again"
"$root/scripts/slurm-testbed" revive n2 "$testbed"

calm=$one

# The node of the batch script dies, and the whole job with it: Slurm starts it on the other one.
slurm_job batch 60 > "$work/batch.yaml"
submit batch --set launcher.slurm.nodes=1 --set launcher.slurm.directives='[--nodelist=n1]'
await_metrics "$run" 25 "a job to take the first node from"
"$root/scripts/slurm-testbed" lose n1 "$testbed"
for _ in $(seq 300); do [ "$(state_of "$id")" = PENDING ] && break; sleep 0.1; done
scontrol update "JobId=$id" ReqNodeList=
check_run "the first node is lost"
[ "$(restarts_of "$id")" = 1 ] || fail "it was not started again once"
