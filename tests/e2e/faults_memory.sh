# A worker that the kernel kills for want of memory is reported as such, and replaced.
source "$(dirname "$0")/lib.sh"

tiny_job 1 30 > "$work/job.yaml"
"$praetor" train "$work/job.yaml" > "$work/out" 2> "$work/err" || { cat "$work/err"; fail "the colocated run"; }
calm=$work/runs/tiny

separate_job "$work/memory" > "$work/separate.yaml"
python3 "$root/tests/e2e/faults.py" memory "$praetor" "$work/memory/tiny" "$praetor" train "$work/separate.yaml" \
  > "$work/out" 2> "$work/err" &
finish $! "$work/memory" "a worker without memory"
cat "$work/out"
said="killed by SIGKILL; out of memory: the kernel counted such a kill"
grep -q "rollout-0 died: $said" "$work/err" || { cat "$work/err"; fail "the user was not told of the lack of memory"; }
grep -q "lost rollout-0 .*$said" "$work/memory/tiny/logs/controller.log" || fail "the log does not say why"
