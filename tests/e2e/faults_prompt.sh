# A prompt that ends three workers is set aside: the user hears of it, the run goes on without it and its account holds.
source "$(dirname "$0")/lib.sh"

# Without evaluations, whose prompts leave no record.
tiny_job | sed '/eval: {every/d; s/, eval: "stage:[^"]*"//' > "$work/job.yaml"
separate_job "$work/poison" | sed 's/lost_after: 2/lost_after: 60, restarts: 30/' > "$work/separate.yaml"
python3 "$root/tests/e2e/faults.py" poison "$praetor" "$work/poison/tiny" "$praetor" train "$work/separate.yaml" \
  > "$work/out" 2> "$work/err" &
await_end $! "$work/poison" "a prompt that ends workers"
cat "$work/out"
prompt=$(sed -n 's/.*"set_aside": \["\(prompt [0-9]* (row [0-9]* of the prompt data)\)"\].*/\1/p' "$work/out")
[ -n "$prompt" ] || fail "status named no prompt, or more than one"
grep -q "$prompt ended 3 workers and is set aside" "$work/poison/tiny/logs/controller.log" || fail "the log does not say so"
grep -q "^set aside: $prompt" "$work/err" || { cat "$work/err"; fail "the user was not told of $prompt"; }
grep -q "^  [12] samples were dropped" "$work/err" || { cat "$work/err"; fail "the summary does not count them"; }
"$praetor" status "$work/poison/tiny" 2> "$work/table"
grep -q "^  [12] dropped: set aside: it ended 3 workers" "$work/table" || { cat "$work/table"; fail "status does not say why"; }
[ "$(grep -c '"stage": *"ppo"' "$work/poison/tiny/metrics.jsonl")" -eq 14 ] || fail "not every step was made"
