# A job on two Slurm nodes goes on by itself: put back into the queue by hand, at the end of its time, and when a node dies; it
# ends as the run of one process, bit for bit.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/slurm_lib.sh"
calm_run 60

restarts_of() { scontrol show job -o "$1" | sed -n 's/.* Restarts=\([0-9]*\).*/\1/p'; }

# Slurm starts it again.
slurm_job again 60 > "$work/again.yaml"
submit again
await_metrics "$run" 30 "a job to requeue"
scontrol requeue "$id"
check_run "requeued"
[ "$(restarts_of "$id")" = 1 ] || fail "it was not started again"

# It saves before its time is over, goes back into the queue and resumes. (The least limit is a minute; the margin takes most of it.)
slurm_job limit 60 > "$work/limit.yaml"
submit limit --set launcher.slurm.time=1 --set launcher.slurm.margin=53
check_run "at the end of its time"
[ "$(restarts_of "$id")" -ge 1 ] || { cat "$run"/logs/slurm-*.log; fail "its time was not over"; }
grep -q "the allocation ends in" "$run/logs/slurm-$id.log" || fail "the end was not seen"
grep -q "is queued again" "$run/logs/slurm-$id.log" || fail "it was not queued again"

# The workers' node dies: the workers start on the other one.
slurm_job loss 60 > "$work/loss.yaml"
submit loss
await_metrics "$run" 30 "a job to take a node from"
"$root/scripts/slurm-testbed" lose n2 "$testbed"
check_run "a node is lost"
grep -q "died:" "$run/logs/slurm-$id.log" || fail "nobody said that a worker died"
[ "$(restarts_of "$id")" = 0 ] || fail "the whole job was started again"
