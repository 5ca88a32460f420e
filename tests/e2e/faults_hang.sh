# A worker that lives but does not get on is replaced; its work goes to another process, and the run becomes the calm one.
source "$(dirname "$0")/lib.sh"

# Long responses, so that it can be met in the middle of them.
tiny_job 1 30 | sed "s/max_new_tokens: 16/max_new_tokens: 44/" > "$work/job.yaml"
"$praetor" train "$work/job.yaml" > "$work/out" 2> "$work/err" || { cat "$work/err"; fail "the colocated run"; }
calm=$work/runs/tiny

# Silence cannot be what ends it.
separate_job "$work/hang" | sed 's/lost_after: 2/lost_after: 60, hung_after: 4/' > "$work/separate.yaml"
python3 "$root/tests/e2e/faults.py" hang "$praetor" "$work/hang/tiny" "$praetor" train "$work/separate.yaml" \
  > "$work/out" 2> "$work/err" &
finish $! "$work/hang" "a worker without progress"
grep -q "rollout-0 died: .*at work without progress" "$work/err" || { cat "$work/err"; fail "nobody said why rollout-0 was ended"; }
grep -q "lost rollout-0 .*at work without progress" "$work/hang/tiny/logs/controller.log" || fail "the log does not say why"
grep -q '"fault/leases_reissued": *[1-9]' "$work/hang/tiny/metrics.jsonl" || fail "no lease was reissued"
