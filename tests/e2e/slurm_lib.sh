# Shared by the scripts that run jobs on a Slurm of two nodes, n1 and n2, on this machine: source it after lib.sh.
if [ "$(id -u)" != 0 ] || ! PATH=$PATH:/usr/sbin command -v slurmctld munged srun > /dev/null; then
  [ -z "${CI:-}" ] || fail "root, slurm-wlm and munge are needed: PRAETOR_DEV_TOOLS=1 scripts/bootstrap"
  echo "skipped: root, slurm-wlm and munge are needed (PRAETOR_DEV_TOOLS=1 scripts/bootstrap)"
  exit 4
fi
testbed=$work/slurm
trap '"$root/scripts/slurm-testbed" down "$testbed" > "$work/down" 2>&1 || cat "$work/down"; rm -rf "$work"' EXIT
timeout 90 "$root/scripts/slurm-testbed" up "$testbed" 2> "$work/up" || { cat "$work/up" "$testbed"/*.log; fail "no Slurm"; }
eval "$("$root/scripts/slurm-testbed" env "$testbed")"

# slurm_job NAME STEPS: tiny_job as NAME, quick to notice what is lost; submit says more with --set.
slurm_job() {
  tiny_job 1 "$2" | sed "s/^name: tiny/name: $1/"
  cat <<YAML
supervision: {heartbeat: 0.2, lost_after: 2, patience: 30}
launcher: {slurm: {nodes: 2, signal: 0, margin: 1}}
roles: {rollout: {threads: 1}, reward: {threads: 1}}
YAML
}
# submit NAME [ARGUMENTS]: leaves the run directory in $run and the first job's id in $id.
submit() {
  local name=$1
  shift
  "$praetor" submit "$work/$name.yaml" "$@" > "$work/submitted" 2> "$work/err" || { cat "$work/err"; fail "submit of $name"; }
  run=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["run"])' "$work/submitted")
  id=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["jobs"][0])' "$work/submitted")
}
show_logs() { tail -n 30 "$run"/logs/*.log; scontrol show job; sinfo -N; }
state_of() { scontrol show job -o "$1" 2> /dev/null | sed -n 's/.*JobState=\([A-Z_]*\).*/\1/p' | head -n 1; }
# await_state ID STATE SECONDS WHAT: another end is a failure at once.
await_state() {
  local now tries
  for tries in $(seq $((5 * $3))); do
    now=$(state_of "$1")
    [ "$now" = "$2" ] && return
    case $now in FAILED|CANCELLED|TIMEOUT|NODE_FAIL) show_logs; fail "$4: $now, $2 was wanted" ;; esac
    sleep 0.2
  done
  show_logs
  fail "$4: $now after $3 s, $2 was wanted"
}
await_metrics() {  # RUN ROWS WHAT
  local tries
  for tries in $(seq 600); do
    [ "$(cat "$1/metrics.jsonl" 2> /dev/null | wc -l)" -ge "$2" ] && return
    sleep 0.1
  done
  show_logs
  fail "$3: no $2 rows of metrics"
}
# The run is done, its account holds, and it is the run of one process.
check_run() {  # WHAT
  await_state "$id" COMPLETED 120 "$1"
  "$praetor" verify "$run" > "$work/verify.json" || { cat "$work/verify.json"; fail "verify ($1)"; }
  same_run "$calm" "$run" "$1"
  no_orphans "$run" "$1"
  echo "$1: as it should be, $SECONDS s after the start"
}
calm_run() {  # STEPS
  tiny_job 1 "$1" > "$work/job.yaml"
  "$praetor" train "$work/job.yaml" > "$work/out" 2> "$work/err" || { cat "$work/err"; fail "the calm run"; }
  calm=$work/runs/tiny
}
