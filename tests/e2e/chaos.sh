# A job whose processes are killed, stopped, restarted and slowed at random ends by itself and gives bit for bit what it
# gives undisturbed. By hand: PRAETOR_CHAOS_SEED=1 PRAETOR_CHAOS_RUNS=50 bash tests/e2e/chaos.sh build/release/bin/praetor
source "$(dirname "$0")/lib.sh"

tiny_job 1 40 > "$work/job.yaml"
for ranks in 1 2; do
  separate_job "$work/calm-$ranks" 1 1 "$ranks" > "$work/calm.yaml"
  "$praetor" train "$work/calm.yaml" > "$work/out" 2> "$work/err" || { cat "$work/err"; fail "the calm run of $ranks ranks"; }
done
separate_job "$work/none" > "$work/calm.yaml"
sed '/^roles:/,$d; /^output:/d' "$work/calm.yaml" > "$work/job.yaml"
python3 "$(dirname "$0")/chaos.py" "$praetor" "$work" "${PRAETOR_CHAOS_SEED:-1}" "${PRAETOR_CHAOS_RUNS:-5}" || fail "chaos"
