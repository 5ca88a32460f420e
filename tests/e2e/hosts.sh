# A run over four hosts: controller, learner and two workers, each in a network namespace of its own, joined by a bridge in a
# fifth, with mutual TLS and weights over streams. It ends with the calm colocated run's weights, bit for bit, also when a
# link is cut, slow, stalls, or is gone without a word. Needs root and ip (iproute2): a user skips it, CI must not.
source "$(dirname "$0")/lib.sh"

missing=""
[ "$(id -u)" -eq 0 ] || missing="root"
command -v ip > /dev/null || missing="${missing:+$missing and }ip (package iproute2)"
prefix=praetor$$
if [ -z "$missing" ] && ! ip netns add "$prefix-try" 2> "$work/why"; then missing="network namespaces ($(cat "$work/why"))"; fi
if [ -n "$missing" ]; then
  [ -z "${CI:-}" ] || fail "CI must run this test; missing: $missing"
  echo "skipped: needs $missing"
  exit 4
fi
ip netns del "$prefix-try"

pids=()
# Only what this script made: its own processes, by their ids, and its own namespaces.
cleanup() {
  local pid name
  for pid in "${pids[@]}"; do kill -KILL "$pid" 2> /dev/null || true; done
  wait 2> /dev/null || true
  for name in switch controller learner a b; do ip netns del "$prefix-$name" 2> /dev/null || true; done
  rm -rf "$work"
}
trap cleanup EXIT

ip netns add "$prefix-switch"
ip -n "$prefix-switch" link add bridge type bridge
ip -n "$prefix-switch" link set bridge up
number=0
for host in controller learner a b; do
  number=$((number + 1))
  ip netns add "$prefix-$host"
  ip link add eth0 netns "$prefix-$host" type veth peer name "$host" netns "$prefix-switch"
  ip -n "$prefix-switch" link set "$host" master bridge up
  ip -n "$prefix-$host" addr add "10.77.0.$number/24" dev eth0
  ip -n "$prefix-$host" link set lo up
  ip -n "$prefix-$host" link set eth0 up
done
cable() { ip -n "$prefix-switch" link set "$1" "$2"; }  # HOST up|down: the far end, so that nobody hears of it by a FIN

# on HOST LOG COMMAND...: in the background; its id is the last of pids.
on() {
  local host=$1 log=$2; shift 2
  ip netns exec "$prefix-$host" "$@" > "$work/$log" 2>&1 &
  pids+=($!)
}

tiny_job 1 24 > "$work/job.yaml"
"$praetor" train "$work/job.yaml" > "$work/out" 2> "$work/err" || { cat "$work/err"; fail "the colocated run"; }
calm=$work/runs/tiny

# start NAME: controller and learner of a new run, on hosts of their own.
start() {
  run=$work/$1/tiny
  mkdir -p "$run/logs"
  { separate_job "$work/$1" 0 0 | sed '/^roles:/,$d'
    echo 'roles: {rollout: {workers: 0}, reward: {workers: 0}}'
    echo 'network: {bind: 0.0.0.0, advertise: 10.77.0.1}'
    echo 'publish: {via: stream}'; } > "$run/resolved.yaml"
  on controller "$1.controller" "$praetor" controller "$run"
  controller=${pids[-1]}
  until [ -e "$run/controller.json" ]; do sleep 0.05; kill -0 "$controller" || { cat "$work/$1.controller"; fail "no controller ($1)"; }; done
  on learner "$1.learner" "$praetor" learner "$run" --advertise 10.77.0.2
  learner=${pids[-1]}
}
# worker HOST LOG [JOIN...]: one that generates and scores.
worker() {
  local host=$1 log=$2; shift 2
  on "$host" "$log" "$praetor" worker "${@:---join}" ${1:+} $([ $# -gt 0 ] || echo "$run") --serve generate,score --threads 1 --name "$host"
}
# ended NAME [PID...]: the learner ends well, then the controller and those workers; the run is the calm one.
ended() {
  local name=$1 status=0 pid waited=0; shift
  while kill -0 "$learner" 2> /dev/null; do
    sleep 0.2; waited=$((waited + 1))
    [ "$waited" -lt 450 ] || { tail -n 30 "$work/$name".*; fail "no end after 90 s ($name)"; }
  done
  wait "$learner" || status=$?
  [ "$status" -eq 0 ] || { tail -n 30 "$work/$name".*; fail "the learner gave status $status ($name)"; }
  # What the supervisor says at the end of a run that train started.
  kill -TERM "$controller"; wait "$controller" || true
  for pid in "$@"; do kill -TERM "$pid" 2> /dev/null || true; wait "$pid" || true; done
  "$praetor" verify "$run" > "$work/verify.json" || { cat "$work/verify.json"; fail "verify ($name)"; }
  same_run "$calm" "$run" "$name"
}
rows() {  # COUNT: until so many rows of metrics are written
  while [ "$(cat "$run/metrics.jsonl" 2> /dev/null | wc -l)" -lt "$1" ]; do sleep 0.02; kill -0 "$learner" || fail "the learner ended early"; done
}
